#include "control.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

void control_read(struct control *control)
{
	const char *path = getenv("HSMSIM_CONTROL");
	control->text = path != NULL ? file_read(path) : NULL;
}

void control_free(struct control *control)
{
	free(control->text);
	control->text = NULL;
}

bool control_has(const struct control *control, const char *key, const char *value)
{
	const char *cursor = control->text;
	struct line line;
	while (cursor != NULL && line_next(&cursor, &line))
		if (strcmp(line.key, key) == 0 && strcmp(line.value, value) == 0)
			return true;
	return false;
}

unsigned long control_number(const struct control *control, const char *key)
{
	const char *cursor = control->text;
	struct line line;
	while (cursor != NULL && line_next(&cursor, &line))
		if (strcmp(line.key, key) == 0)
			return strtoul(line.value, NULL, 0);
	return 0;
}

/* The value of a line that happens a number of times. */
struct fault {
	char word[64];
	bool has_code, always;
	unsigned long code, count;
};

static struct fault parse(const struct line *line)
{
	struct fault fault = {.count = 1};
	char rest[2][24] = {"", ""};
	sscanf(line->value, "%63s %23s %23s", fault.word, rest[0], rest[1]);
	for (int i = 0; i < 2; i++) {
		if (strncmp(rest[i], "0x", 2) == 0) {
			fault.has_code = true;
			fault.code = strtoul(rest[i], NULL, 16);
		} else if (strcmp(rest[i], "always") == 0) {
			fault.always = true;
		} else if (rest[i][0] != '\0') {
			fault.count = strtoul(rest[i], NULL, 10);
		}
	}
	return fault;
}

static bool find(const char *text, const char *key, const char *word, struct line *line, struct fault *fault)
{
	while (text != NULL && line_next(&text, line)) {
		if (strcmp(line->key, key) != 0)
			continue;
		*fault = parse(line);
		if (fault->count > 0 && (strcmp(fault->word, word) == 0 || strcmp(fault->word, "*") == 0))
			return true;
	}
	return false;
}

/* Writes the file again with the line counted down, or without it. */
static void count_down(const char *path, const char *text, const struct line *line, const struct fault *fault)
{
	char left[256] = "", code[24] = "";
	if (fault->has_code)
		snprintf(code, sizeof code, " 0x%lX", fault->code);
	if (fault->count > 1)
		snprintf(left, sizeof left, "%s = %s%s %lu\n", line->key, fault->word, code, fault->count - 1);
	size_t room = strlen(text) + sizeof left;
	char *changed = malloc(room);
	if (changed == NULL)
		return;
	snprintf(changed, room, "%.*s%s%s", (int)(line->begin - text), text, left, line->end);
	file_replace(path, changed);
	free(changed);
}

bool control_take(const struct control *control, const char *key, const char *word, unsigned long *code)
{
	struct line line;
	struct fault fault;
	const char *path = getenv("HSMSIM_CONTROL");
	if (path == NULL || !find(control->text, key, word, &line, &fault))
		return false;

	/* Somebody else may have been first: look again where nobody else writes. */
	int lock = file_lock(path);
	char *text = file_read(path);
	bool taken = find(text, key, word, &line, &fault);
	if (taken && !fault.always)
		count_down(path, text, &line, &fault);
	free(text);
	file_unlock(lock);
	if (taken && fault.has_code && code != NULL)
		*code = fault.code;
	return taken;
}
