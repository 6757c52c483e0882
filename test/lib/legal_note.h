/* Included ahead of every file of session/ in unit tests: each transition of a state is noted, before legal.h judges it. */
#ifndef LEGAL_NOTE_H
#define LEGAL_NOTE_H

/* enter: the function that writes the state; from and to: its numbers. fake_session.c has it. */
void legal_note(const char *enter, unsigned from, unsigned to);

#define LEGAL_NOTE(from, to) legal_note(__func__, (unsigned)(from), (unsigned)(to))

#endif
