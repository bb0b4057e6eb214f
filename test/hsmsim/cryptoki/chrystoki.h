/* Chrystoki.conf, the file that every Luna client reads, and what a DPoD
 * service client keeps beside it. */
#ifndef CHRYSTOKI_H
#define CHRYSTOKI_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

/* Writes the path of a file in ChrystokiConfigurationPath, or in /etc. */
void chrystoki_path(char path[PATH_MAX], const char *name);

/* Reads `key = value;` from a section `name = { ... }`. */
bool chrystoki_get(const char *section, const char *key, char *value, size_t room);

/* Reports whether the file can be read and has Chrystoki2's LibUNIX64. */
bool chrystoki_check(void);

/* Reports whether the files of a DPoD client are complete: the sections REST
 * and XTC with a server, and the three certificates that they name. */
bool chrystoki_has_cloud(void);

#endif
