#include "config.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chrystoki.h"
#include "file.h"

/* The defaults, in the words of the options file. */
static const char common[] =
	"softhsm = /usr/lib/softhsm/libsofthsm2.so\n"
	"model = LunaSA 7.2.0\n"
	"firmware_major = 7\nfirmware_minor = 7\nfirmware_sub = 1\n"
	"max_sessions = 1000\nobject_limit_code = 0x8000001B\n"
	"locked_code = 0xA4\nlost_code = 0xB3\noffline_code = 0x30\n"
	"receive_timeout_ms = 20000\nfailover_ms = 2000\njwt_refresh_ms = 1000\n"
	"empty_slots = 1\n"
	"policy.0 = 1\npolicy.1 = 0\npolicy.5 = 1\npolicy.11 = 1\npolicy.20 = 10\npolicy.28 = 1\npolicy.43 = 1\n"
	"hsm_policy.12 = 1\nhsm_policy.15 = 0\n";

static const struct {
	const char *name, *options;
} dresses[] = {
	{"luna", ""},
	{"luna-fips", "fips = 1\npolicy.43 = 0\nhsm_policy.12 = 0\n"},
	{"luna-oldfw", "model = Luna K6\nfirmware_major = 6\nfirmware_minor = 2\nfirmware_sub = 4\nsha1_oaep_only = 1\n"},
	{"luna-ha", "ha_members = 2\nha_only = 1\nempty_slots = 0\n"},
	{"dpod", "model = Cryptovisor7\ncloud = 1\nfips = 1\npolicy.43 = 0\nhsm_policy.12 = -1\nhsm_policy.15 = -1\n"
		 "first_slot = 3\nempty_slots = 0\nlatency_min_ms = 20\nlatency_max_ms = 80\n"
		 "object_limit_code = 0x80000031\n"},
};

static const struct {
	const char *name;
	size_t offset;
} numbers[] = {
#define ROW(name) {#name, offsetof(struct config, name)},
	CONFIG_NUMBERS(ROW)
}, texts[] = {
	CONFIG_TEXTS(ROW)
#undef ROW
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static bool set_policy(int *policies, const char *number, const char *value)
{
	unsigned long n = strtoul(number, NULL, 10);
	if (n >= MAX_POLICY)
		return false;
	policies[n] = (int)strtol(value, NULL, 10);
	return true;
}

static bool set(struct config *config, const struct line *line)
{
	for (size_t i = 0; i < COUNT(numbers); i++)
		if (strcmp(line->key, numbers[i].name) == 0) {
			*(unsigned long *)((char *)config + numbers[i].offset) = strtoul(line->value, NULL, 0);
			return true;
		}
	for (size_t i = 0; i < COUNT(texts); i++)
		if (strcmp(line->key, texts[i].name) == 0) {
			snprintf((char *)config + texts[i].offset, sizeof config->model, "%.255s", line->value);
			return true;
		}
	if (strncmp(line->key, "policy.", 7) == 0)
		return set_policy(config->policy, line->key + 7, line->value);
	if (strncmp(line->key, "hsm_policy.", 11) == 0)
		return set_policy(config->hsm_policy, line->key + 11, line->value);
	return false;
}

static bool apply(struct config *config, const char *text, const char *origin)
{
	struct line line;
	while (line_next(&text, &line))
		if (!set(config, &line)) {
			fprintf(stderr, "hsmsim: %s: unknown option %s\n", origin, line.key);
			return false;
		}
	return true;
}

static bool put_on(struct config *config)
{
	const char *wanted = getenv("HSMSIM_DRESS");
	for (size_t i = 0; i < COUNT(dresses); i++)
		if (wanted != NULL && strcmp(wanted, dresses[i].name) == 0)
			return apply(config, dresses[i].options, wanted);
	fprintf(stderr, "hsmsim: HSMSIM_DRESS is none of luna, luna-fips, luna-oldfw, luna-ha, dpod\n");
	return false;
}

static bool apply_file(struct config *config)
{
	char path[PATH_MAX];
	const char *named = getenv("HSMSIM_CONF");
	if (named != NULL)
		snprintf(path, sizeof path, "%s", named);
	else
		chrystoki_path(path, "hsmsim.conf");
	char *text = file_read(path);
	if (text == NULL) {
		if (named != NULL)
			fprintf(stderr, "hsmsim: HSMSIM_CONF names %s, which cannot be read\n", named);
		return named == NULL;
	}
	bool understood = apply(config, text, path);
	free(text);
	return understood;
}

/* The files of the simulator lie beside SoftHSM's tokens, whose directory only
 * SoftHSM's configuration tells. */
static bool find_tokens(struct config *config)
{
	const char *path = getenv("SOFTHSM2_CONF");
	char *text = file_read(path != NULL ? path : "/etc/softhsm/softhsm2.conf");
	const char *cursor = text;
	struct line line;
	while (text != NULL && line_next(&cursor, &line))
		if (strcmp(line.key, "directories.tokendir") == 0)
			snprintf(config->token_dir, sizeof config->token_dir, "%s", line.value);
	free(text);
	size_t length = strlen(config->token_dir);
	while (length > 1 && config->token_dir[length - 1] == '/')
		config->token_dir[--length] = '\0';
	if (length == 0)
		fprintf(stderr, "hsmsim: SOFTHSM2_CONF names no directories.tokendir\n");
	return length > 0;
}

bool config_load(struct config *config)
{
	*config = (struct config){0};
	for (int i = 0; i < MAX_POLICY; i++)
		config->policy[i] = config->hsm_policy[i] = -1;
	char timeout[32];
	if (!apply(config, common, "defaults") || !put_on(config) || !chrystoki_check())
		return false;
	if (chrystoki_get("LunaSA Client", "ReceiveTimeout", timeout, sizeof timeout))
		config->receive_timeout_ms = strtoul(timeout, NULL, 10);
	return apply_file(config) && find_tokens(config);
}
