"""The inside of smtpwarp keeps its rules: lib/house.py finds what breaks them, in the objects and in clang's syntax tree."""
import pathlib
import shutil

import pytest

import house

# The states of a session: where each stands in struct session, who alone writes it, and in state.h the X-macro of what may follow what.
STATES = {
    "gate.stage": ("session/gate.c", "gate_enter", "GATE_STAGES"),
    "server.state": ("session/serverstate.c", "serverstate_enter", "SERVER_STATES"),
    "tx.content": ("session/transaction.c", "transaction_enter", "CONTENT_STATES"),
    "end.how": ("session/talk.c", "talk_end", None),
}


@pytest.fixture(scope="module")
def ours():
    return house.House(pathlib.Path(__file__).resolve().parent.parent, STATES)


@pytest.mark.parametrize("rule", house.House.RULES)
def test_rule(ours, rule):
    found = ours.findings(rule)
    assert not found, "\n" + "\n".join(found)


# ---- what the rules find, in a small house ----

SMALL = {
    "smtp.h": "#pragma once\nint smtp_count(const char *line);\n",
    "smtp.c": '#include "smtp.h"\n#include <string.h>\nint smtp_count(const char *line) { return (int)strlen(line); }\n',
    "pure/dialogue.h": '#pragma once\n#include "smtp.h"\nstruct dialogue { int queued; };\nvoid dialogue_add(struct dialogue *d);\n',
    "pure/dialogue.c": '#include "pure/dialogue.h"\nvoid dialogue_add(struct dialogue *d) { d->queued += smtp_count("NOOP"); }\n',
    "io/net.h": "#pragma once\nvoid net_name(char *to, const char *from);\n",
    "io/net.c": '#include "io/net.h"\n#include <unistd.h>\n'
                "void net_name(char *to, const char *from) { gethostname(to, 1); *to = *from; }\n",
    "session/state.h": """#pragma once
#include "pure/dialogue.h"
#define GATE_STAGES(X) X(OPEN, GATE_BIT(SHUT)) X(SHUT, 0)
enum gate_stage {
#define X(stage, next) GATE_##stage,
	GATE_STAGES(X)
#undef X
};
struct gate {
	enum gate_stage stage;
	int count;
	char text[8];
};
struct held {
	char line[8];
};
struct session {
	const char *name, *other; /* session.c */
	struct gate gate; /* gate.c: what the client waits for */
	struct held *held; /* talk.c */
	char host[8]; /* talk.c */
	struct dialogue dialogue; /* pure/dialogue.c */
};
""",
    "session/gate.h": '#pragma once\n#include "session/state.h"\n'
                      "void gate_enter(struct session *s, enum gate_stage stage);\nvoid gate_count(struct gate *g);\n",
    "session/gate.c": """#include "session/gate.h"
#include <stdlib.h>
#define GATE_BIT(stage) 1u << GATE_##stage
#ifdef __SANITIZE_ADDRESS__
#define CHECKED(is) if (!(is)) abort()
#else
#define CHECKED(is) (void)(is)
#endif
void gate_enter(struct session *s, enum gate_stage stage)
{
#define X(stage, next) [GATE_##stage] = next,
	static const unsigned follows[] = { GATE_STAGES(X) };
	CHECKED(follows[s->gate.stage] >> stage & 1);
	s->gate.stage = stage;
}
void gate_count(struct gate *g) { g->count++; }
""",
    "session/talk.h": '#pragma once\n#include "session/state.h"\nvoid talk(struct session *s);\n',
    "session/talk.c": """#include "session/talk.h"
#include "io/net.h"
#include <stdio.h>
#include <string.h>
void talk(struct session *s)
{
	const struct gate *g = &s->gate;
	const char *text = s->gate.text;
	struct dialogue *d = &s->dialogue;
	dialogue_add(d);
	net_name(s->host, s->gate.text);
	snprintf(s->held->line, sizeof s->gate.text, "%s %.*s", s->gate.text, g->count, text);
	memcpy(s->host, s->gate.text, sizeof s->gate.text);
	s->held->line[0] = s->gate.text[1];
}
""",
    "session/session.h": "#pragma once\nvoid session_run(const char *name);\n",
    "session/session.c": """#include "session/session.h"
#include "session/gate.h"
#include "session/talk.h"
static struct session session;
void session_run(const char *name)
{
	session.name = name;
	gate_enter(&session, GATE_SHUT);
	gate_count(&session.gate);
	talk(&session);
}
""",
    "smtpwarp.c": '#include "session/session.h"\nint main(void) { session_run(""); }\n',
    "stat/main.c": '#include "io/net.h"\n#include "smtp.h"\nint main(void) { char n[80]; net_name(n, ""); return smtp_count(n); }\n',
}
SMALL_STATES = {"gate.stage": ("session/gate.c", "gate_enter", "GATE_STAGES")}


def furnish(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("house")
    furnish(root, SMALL)
    house.gather(root)
    return root


def findings(root):
    looked_at = house.House(root, SMALL_STATES)
    return {rule: found for rule in house.House.RULES if (found := looked_at.findings(rule))}


def test_in_order(small):
    assert findings(small) == {}


IN_TALK = "	dialogue_add(d);\n"
BROKEN = {
    "a line that is no C": ("session/session.c", "session.name = name;", "session.name = nmae;", {"compiles": 1}),
    "io/ includes a session's": ("io/net.c", '#include "io/net.h"', '#include "io/net.h"\n#include "session/state.h"', {"includes": 1}),
    "pure/ includes the system's": ("pure/dialogue.h", "#pragma once", "#pragma once\n#include <unistd.h>", {"includes": 1}),
    "main includes a part": ("smtpwarp.c", "int main", '#include "session/gate.h"\nint main', {"includes": 1}),
    "stat/ includes a session's": ("stat/main.c", '#include "io/net.h"', '#include "io/net.h"\n#include "session/state.h"', {"includes": 1}),
    "stat/ calls a session's": ("stat/main.c", "int main(void) {", 'void session_run(const char *);\nint main(void) { session_run("");',
                                {"upward": 1}),
    "main includes stat/": ("smtpwarp.c", "int main", '#include "stat/main.c"\nint main', {"compiles": 1, "includes": 1}),
    "pure/ has a clock": ("smtp.c", "int smtp_count", "long time(long *);\nlong smtp_time(void) { return time(0); }\nint smtp_count",
                          {"pure": 1}),
    "pure/ has an errno": ("smtp.c", "int smtp_count", "int *__errno_location(void);\nint smtp_errno(void) { return "
                           "*__errno_location(); }\nint smtp_count", {"pure": 1}),
    "io/ calls a session's": ("io/net.c", "*to = *from;", "void gate_count(void *); gate_count(to);", {"upward": 1}),
    "two parts call each other": ("session/gate.c", "{ g->count++; }", '{ g->count++; void session_run(const char *); session_run(""); }',
                                  {"circles": 2}),
    "a member without an owner": ("session/state.h", " /* gate.c: what the client waits for */", " /* see gate.c */", {"unnamed": 1}),
    "an owner that is not there": ("session/state.h", "/* session.c */", "/* sesion.c */", {"unnamed": 2, "foreign": 1}),
    "a member of another's": ("session/talk.c", IN_TALK, IN_TALK + "	s->gate.count = 1;\n", {"foreign": 1}),
    "counted up": ("session/talk.c", IN_TALK, IN_TALK + "	++s->gate.count;\n", {"foreign": 1}),
    "added to": ("session/talk.c", IN_TALK, IN_TALK + "	s->gate.text[2] |= 1;\n", {"foreign": 1}),
    "behind a pointer": ("session/session.c", "	talk(", "	session.held->line[1] = 0;\n	talk(", {"foreign": 1}),
    "behind a const session": ("session/gate.c", "void gate_count", "void gate_peek(const struct session *s) { s->held->line[0] = 0; }\n"
                               "void gate_count", {"foreign": 1}),
    "either of two": ("session/talk.c", IN_TALK, IN_TALK + "	(s->name ? s->gate.text : s->host)[0] = 0;\n", {"foreign": 1}),
    "cleared": ("session/talk.c", IN_TALK, IN_TALK + "	memset(s->gate.text, 0, 1);\n", {"foreign": 1}),
    "printed into": ("session/talk.c", IN_TALK, IN_TALK + '	snprintf(s->gate.text + 1, 2, "x");\n', {"foreign": 1}),
    "scanned into": ("session/talk.c", IN_TALK, IN_TALK + '	sscanf(s->host, "%d", &s->gate.count);\n', {"foreign": 1}),
    "by a third": ("session/talk.c", IN_TALK, IN_TALK + "	net_name(s->gate.text, s->host);\n", {"foreign": 1}),
    "by a namesake of the owner's": ("session/talk.c", "void talk(", "static void gate_count(int *count) { *count = 1; }\nvoid talk(",
                                     {}),
    "by a namesake, called": ("session/talk.c", "void talk(struct session *s)\n{", "static void gate_count(int *count) { *count = 1; }\n"
                              "void talk(struct session *s)\n{\n	gate_count(&s->gate.count);", {"foreign": 1}),
    "through a variable": ("session/talk.c", IN_TALK, IN_TALK + "	char *to = s->gate.text;\n	*to = 0;\n", {"foreign": 1}),
    "through a pointer to an array": ("session/talk.c", IN_TALK, IN_TALK + "	char (*to)[8] = &s->gate.text;\n	(*to)[0] = 0;\n",
                                      {"foreign": 1}),
    "through a table": ("session/talk.c", IN_TALK, IN_TALK + "	char *to[] = { s->host, s->gate.text };\n	*to[1] = 0;\n",
                        {"foreign": 1}),
    "through a cast": ("session/talk.c", IN_TALK, IN_TALK + "	*(char *)&s->gate = 0;\n", {"foreign": 1}),
    "whole": ("session/talk.c", IN_TALK, IN_TALK + "	s->gate = (struct gate){ 0 };\n", {"foreign": 1, "writers": 1}),
    "given to all": ("session/gate.c", "void gate_count", "char *gate_text(struct session *s) { return s->gate.text; }\nvoid gate_count",
                     {"foreign": 1}),
    "inside the dialogue": ("session/talk.c", IN_TALK, IN_TALK + "	d->queued = 0;\n", {"owned": 1}),
    "inside the dialogue, from the session": ("session/talk.c", IN_TALK, IN_TALK + "	s->dialogue.queued--;\n",
                                              {"foreign": 1, "owned": 1}),
    "the dialogue cleared": ("session/talk.c", IN_TALK, IN_TALK + "	memset(d, 0, sizeof *d);\n", {"owned": 1}),
    "a second writer of a state": ("session/gate.c", "{ g->count++; }", "{ g->stage = GATE_OPEN; }", {"writers": 1}),
    "a state cleared": ("session/gate.c", "#include <stdlib.h>", "#include <stdlib.h>\n#include <string.h>\n"
                        "void gate_clear(struct gate *g) { memset(g, 0, sizeof *g); }", {"writers": 1}),
    "a state that a pointer leads to": ("session/gate.c", "{ g->count++; }", "{ enum gate_stage *to = &g->stage; *to = 1; }",
                                        {"writers": 1}),
    "another writer": ("session/gate.c", "	s->gate.stage = stage;", "", {"writers": 1}),
    "nothing looked up": ("session/gate.c", "	CHECKED(follows[s->gate.stage] >> stage & 1);", "	CHECKED(stage);",
                          {"transitions": 1}),
    "no table": ("session/gate.c", "GATE_STAGES(X) }", "0, 0 }", {"transitions": 1}),
    "no abort": ("session/gate.c", "__SANITIZE_ADDRESS__", "SOMETHING_ELSE", {"transitions": 1}),
    "a callback": ("session/state.h", "	int count;", "	int count;\n	void (*tell)(int);", {"pointers": 1}),
    "no header": ("session/late.c", "", "int late;\n", {"headers": 1}),
    "a header that is not read": ("session/talk.c", '#include "session/talk.h"', '#include "session/state.h"', {"headers": 1}),
    "declared in another's header": ("session/talk.h", "void talk", "void gate_count(struct gate *g);\nvoid talk", {"headers": 1}),
    "a function in state.h": ("session/state.h", "struct session {", "int state(void);\nstruct session {", {"types": 1}),
    "much in session.h": ("session/session.h", "void session_run", "struct a { int b; };\nint c(void), d(void), e(void);\nvoid session_run",
                          {"types": 2}),
    "a long function": ("smtp.c", "int smtp_count(", "int smtp_long(int n)\n{\n" + "	n++;\n" * 46 + "	return n;\n}\nint smtp_count(",
                        {"long": 1}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken(small, tmp_path, name):
    file, old, new, expected = BROKEN[name]
    root = tmp_path / "house"
    shutil.copytree(small, root)
    text = SMALL.get(file, "")
    assert old in text
    furnish(root, {file: text.replace(old, new, 1) if text else new})
    found = findings(root)
    assert {rule: len(lines) for rule, lines in found.items()} == expected, found
