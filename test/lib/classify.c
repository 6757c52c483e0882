/* Classes of replies by hand, for tests: lines of "STAGE TAB REPLY" on standard input, where \n in a reply stands between its lines. For each
 * it prints CLASS, SCOPE and the line of the rule, 0 if none matches. The file of rules is its argument. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pure/replyrules.h"
#include "smtp.h"

static struct replyrules *read_rules(const char *path)
{
	static char text[1 << 20];
	struct replyrules *rules = calloc(1, REPLYRULES_MAX);
	FILE *f = fopen(path, "r");
	size_t n = f ? fread(text, 1, sizeof text, f) : 0;
	unsigned line = 0;
	const char *why = f && rules ? replyrules_add(rules, 0, text, n, &line) : "cannot be read";

	if (why) {
		fprintf(stderr, "%s: line %u: %s\n", path, line, why);
		exit(1);
	}
	fclose(f);
	return rules;
}

static void classify(const struct replyrules *rules, const char *stage_name, char *reply)
{
	enum reply_stage stage = replyclass_parse_stage(stage_name, strlen(stage_name));
	struct reply_line line = { 0 };
	struct replyrule rule = { .line = 0 };
	uint16_t enhanced[3];
	int code = atoi(reply);
	char *text = strlen(reply) > 4 ? reply + 4 : "";

	for (char *next; text; text = next) {
		next = strstr(text, "\\n");
		if (next)
			*next = 0;
		smtp_enhanced((unsigned char *)text, strlen(text), enhanced);
		replyclass_add(&line, code, (unsigned char *)text, strlen(text));
		next = next ? next + 2 : NULL;
	}
	if (!replyrules_match(rules, NULL, stage, &line, &rule)) {
		rule.class = replyclass_of(stage, code, enhanced, &line);
		rule.scope = replyclass_scope(rule.class);
	}
	printf("%s %s %u\n", replyclass_name(rule.class), replyclass_scope_name(rule.scope), rule.line);
}

int main(int argc, char **argv)
{
	static char line[1 << 16];
	struct replyrules *rules = argc == 2 ? read_rules(argv[1]) : NULL;

	while (rules && fgets(line, sizeof line, stdin)) {
		char *reply = strchr(line, '\t');

		line[strcspn(line, "\n")] = 0;
		if (!reply)
			return 1;
		*reply++ = 0;
		classify(rules, line, reply);
	}
	free(rules);
	return !rules;
}
