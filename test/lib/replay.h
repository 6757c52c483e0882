/* With -DREPLAY a fuzz target is a program that replays files, or all files of directories, each twice so that what one
 * run leaves behind shows in the next. Inputs are exact heap copies: with ASan an octet read too far is found. */
#ifndef REPLAY_H
#define REPLAY_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#ifdef REPLAY
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned replayed;
static const char *current;

/* So that a finding of a sanitizer says which input it was, as a failed CHECK does. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

const char *__asan_default_options(void)
{
	return "abort_on_error=1";
}

const char *__ubsan_default_options(void)
{
	return "abort_on_error=1:print_stacktrace=1";
}

static void name_input(int number)
{
	static const char text[] = ": this input failed\n";

	(void)number;
	if (write(2, current, strlen(current)) > 0)
		(void)!write(2, text, sizeof text - 1);
}

static void replay_file(const char *path)
{
	static unsigned char buffer[1 << 20];
	FILE *f = fopen(path, "rb");
	size_t n = f ? fread(buffer, 1, sizeof buffer, f) : 0;
	uint8_t *copy = malloc(n ? n : 1);

	if (!f || ferror(f) || !copy) {
		perror(path);
		exit(1);
	}
	fclose(f);
	memcpy(copy, buffer, n);
	current = path;
	LLVMFuzzerTestOneInput(copy, n);
	LLVMFuzzerTestOneInput(copy, n);
	free(copy);
	replayed++;
}

static void replay_directory(DIR *dir, const char *path)
{
	char name[4096];

	for (struct dirent *e; (e = readdir(dir));) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(name, sizeof name, "%s/%s", path, e->d_name);
		replay_file(name);
	}
}

int main(int argc, char **argv)
{
	signal(SIGABRT, name_input); /* returns, and abort() ends the program all the same */
	for (int i = 1; i < argc; i++) {
		DIR *dir = opendir(argv[i]);

		if (dir) {
			replay_directory(dir, argv[i]);
			closedir(dir);
		} else {
			replay_file(argv[i]);
		}
	}
	printf("%s: %u inputs replayed\n", argv[0], replayed);
	return replayed ? 0 : 1;
}
#endif

#endif
