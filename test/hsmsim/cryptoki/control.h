/*
 * The control file: how a test changes the device while programs use it.
 *
 * HSMSIM_CONTROL names it; no variable or no file means that all is well. Each
 * call reads it anew, so a change reaches every process with its next call. The
 * lines are in README.md. Lines that happen a number of times, such as
 *
 *     inject = C_WrapKey 0x30 2
 *
 * are counted down by the library itself, which removes a line that is used up:
 * a process that is restarted after a crash does not crash again.
 *
 * Whoever writes the file replaces it whole, by rename, holding flock on the
 * same path with ".lock" appended.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include <stdbool.h>

struct control {
	char *text;
};

void control_read(struct control *control);
void control_free(struct control *control);

/* Reports whether there is a line `key = value`. */
bool control_has(const struct control *control, const char *key, const char *value);

/* Returns the number of the line `key = number`, and 0 without one. */
unsigned long control_number(const struct control *control, const char *key);

/* Uses up one of `key = word [0xCODE] [COUNT|always]`; the count is 1 unless
 * given. The word * in the file stands for any. Leaves *code alone when the
 * line has none; code may be NULL. */
bool control_take(const struct control *control, const char *key, const char *word, unsigned long *code);

#endif
