#include "chrystoki.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

void chrystoki_path(char path[PATH_MAX], const char *name)
{
	const char *directory = getenv("ChrystokiConfigurationPath");
	snprintf(path, PATH_MAX, "%s/%s", directory != NULL ? directory : "/etc", name);
}

bool chrystoki_get(const char *section, const char *key, char *value, size_t room)
{
	char path[PATH_MAX];
	chrystoki_path(path, "Chrystoki.conf");
	char *text = file_read(path);
	const char *cursor = text;
	struct line line;
	bool inside = false, found = false;
	while (text != NULL && !found && line_next(&cursor, &line)) {
		if (line.key[0] == '}')
			inside = false;
		else if (strcmp(line.value, "{") == 0)
			inside = strcmp(line.key, section) == 0;
		else if (inside && strcmp(line.key, key) == 0) {
			size_t length = strcspn(line.value, ";");
			snprintf(value, room, "%.*s", (int)length, line.value);
			found = length > 0;
		}
	}
	free(text);
	return found;
}

bool chrystoki_check(void)
{
	char library[PATH_MAX];
	if (chrystoki_get("Chrystoki2", "LibUNIX64", library, sizeof library))
		return true;
	char path[PATH_MAX];
	chrystoki_path(path, "Chrystoki.conf");
	fprintf(stderr, "hsmsim: %s cannot be read or its section Chrystoki2 lacks LibUNIX64\n", path);
	return false;
}

bool chrystoki_has_cloud(void)
{
	static const struct {
		const char *section, *key;
		bool is_file;
	} needed[] = {
		{"REST", "ServerName", false},
		{"REST", "ServerPort", false},
		{"REST", "SSLClientSideVerifyFile", true},
		{"XTC", "PartitionCAPath", true},
		{"XTC", "PartitionCertPath00", true},
	};
	for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
		char value[PATH_MAX];
		if (!chrystoki_get(needed[i].section, needed[i].key, value, sizeof value))
			return false;
		char *content = needed[i].is_file ? file_read(value) : NULL;
		bool is_pem = content != NULL && strstr(content, "-----BEGIN CERTIFICATE-----") != NULL;
		free(content);
		if (needed[i].is_file && !is_pem)
			return false;
	}
	return true;
}
