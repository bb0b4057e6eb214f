/* Small text files that several processes share. */
#ifndef FILE_H
#define FILE_H

#include <stdbool.h>

/* Returns the content of a file, to be freed, or NULL when it cannot be read. */
char *file_read(const char *path);

/* Waits for the lock that belongs to a path, and returns what file_unlock
 * takes. Writers hold it; readers need not, because files are replaced whole. */
int file_lock(const char *path);
void file_unlock(int lock);

bool file_replace(const char *path, const char *text);

/* One `key = value` line. Blank lines and those that begin with # are skipped. */
struct line {
	char key[64];
	char value[512]; /* "" when the line has no equals sign */
	const char *begin, *end; /* of the line, with its newline, in the text */
};

/* Reads the line at *cursor and moves on; false at the end of the text. */
bool line_next(const char **cursor, struct line *line);

#endif
