/* Classes of replies. See replyclass.h for the contract; the comments here say why. */
#include "pure/replyclass.h"

#include <string.h>

static const char class_names[][20] = {
#define X(class, name, scope) name,
	REPLY_CLASSES(X)
#undef X
};

static const unsigned char scopes[] = {
#define X(class, name, scope) REPLY_OF_##scope,
	REPLY_CLASSES(X)
#undef X
};

static const char stage_names[][8] = {
#define X(stage, name) name,
	REPLY_STAGES(X)
#undef X
};

static const char scope_names[][8] = {
#define X(scope, name) name,
	REPLY_SCOPES(X)
#undef X
};

const char *replyclass_name(enum reply_class class)
{
	return class_names[class];
}

const char *replyclass_stage_name(enum reply_stage stage)
{
	return stage_names[stage];
}

const char *replyclass_scope_name(enum reply_scope scope)
{
	return scope_names[scope];
}

/* The index of the word among names that are `size` octets each; `count`: it is none of them. */
static unsigned find(const char *names, size_t size, unsigned count, const char *word, size_t n)
{
	for (unsigned i = 0; i < count; i++)
		if (strlen(names + i * size) == n && memcmp(names + i * size, word, n) == 0)
			return i;
	return count;
}

enum reply_class replyclass_parse(const char *word, size_t n)
{
	return (enum reply_class)find(*class_names, sizeof *class_names, REPLY_CLASSES_END, word, n);
}

enum reply_stage replyclass_parse_stage(const char *word, size_t n)
{
	return (enum reply_stage)find(*stage_names, sizeof *stage_names, REPLY_STAGES_END, word, n);
}

enum reply_scope replyclass_parse_scope(const char *word, size_t n)
{
	return (enum reply_scope)find(*scope_names, sizeof *scope_names, REPLY_SCOPES_END, word, n);
}

enum reply_scope replyclass_scope(enum reply_class class)
{
	return (enum reply_scope)scopes[class];
}
