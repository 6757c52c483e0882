/* What --log takes. See sink.h for the contract. */
#include "pure/sink.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum sink_kind sink_parse(const char *text, const char **path)
{
	static const char words[SINK_UNKNOWN][8] = { "none", "stderr", "file:", "unix:", "syslog", "journal" };

	for (unsigned i = 0; i < SINK_UNKNOWN; i++) {
		size_t n = strlen(words[i]);
		bool takes_path = words[i][n - 1] == ':';

		*path = takes_path ? text + n : "";
		if (takes_path ? strncmp(text, words[i], n) == 0 && text[n] : strcmp(text, words[i]) == 0)
			return (enum sink_kind)i;
	}
	*path = "";
	return SINK_UNKNOWN;
}
