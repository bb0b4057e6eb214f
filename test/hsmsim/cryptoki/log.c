#include "sim.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* One line per call, written at once, so that lines of threads and processes
 * never mix: name, process, slot or session, answer. No argument is shown. */
void log_call(const struct call *call, const char *answer)
{
	const char *path = getenv("HSMSIM_LOG");
	if (path == NULL)
		return;
	char line[160];
	const char *what = call->scope == SLOT ? "slot" : "session";
	int length = snprintf(line, sizeof line, "%s pid=%ld %s=%lu rv=%s\n", call->name, (long)getpid(), what,
			      call->subject, answer);
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, line, (size_t)length) != length)
		fprintf(stderr, "hsmsim: HSMSIM_LOG: cannot write to %s\n", path);
	if (fd >= 0)
		close(fd);
}
