#include "file.h"

#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

char *file_read(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	size_t room = 4096, used = 0;
	char *text = malloc(room);
	ssize_t n = -1;
	while (text != NULL && (n = read(fd, text + used, room - used - 1)) > 0) {
		used += (size_t)n;
		if (used == room - 1) {
			char *more = realloc(text, room *= 2);
			if (more == NULL)
				free(text);
			text = more;
		}
	}
	close(fd);
	if (text == NULL || n < 0) {
		free(text);
		return NULL;
	}
	text[used] = '\0';
	return text;
}

int file_lock(const char *path)
{
	char name[PATH_MAX];
	snprintf(name, sizeof name, "%s.lock", path);
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		flock(fd, LOCK_EX);
	return fd;
}

void file_unlock(int lock)
{
	if (lock >= 0)
		close(lock);
}

bool file_replace(const char *path, const char *text)
{
	char name[PATH_MAX];
	snprintf(name, sizeof name, "%s.part", path);
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	size_t length = strlen(text);
	bool written = write(fd, text, length) == (ssize_t)length;
	return close(fd) == 0 && written && rename(name, path) == 0;
}

/* Copies from begin to end without the blanks around it. */
static void copy_trimmed(char *to, size_t room, const char *begin, const char *end)
{
	while (begin < end && isspace((unsigned char)*begin))
		begin++;
	while (end > begin && isspace((unsigned char)end[-1]))
		end--;
	snprintf(to, room, "%.*s", (int)(end - begin), begin);
}

bool line_next(const char **cursor, struct line *line)
{
	while (**cursor != '\0') {
		line->begin = *cursor;
		const char *stop = strchr(line->begin, '\n');
		const char *text_end = stop != NULL ? stop : line->begin + strlen(line->begin);
		line->end = *cursor = stop != NULL ? stop + 1 : text_end;
		const char *equals = memchr(line->begin, '=', (size_t)(text_end - line->begin));
		copy_trimmed(line->key, sizeof line->key, line->begin, equals != NULL ? equals : text_end);
		copy_trimmed(line->value, sizeof line->value, equals != NULL ? equals + 1 : text_end, text_end);
		if (line->key[0] != '\0' && line->key[0] != '#')
			return true;
	}
	return false;
}
