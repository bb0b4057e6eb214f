#include "roles.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

static const char *const names[ROLES] = {[SO] = "so", [CO] = "co", [CU] = "cu", [LCO] = "lco"};

static void path_of(const struct partition *partition, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%.4000s.%s.roles", sim.config.token_dir, partition->serial);
}

static void hash_pin(const struct partition *partition, int which, const unsigned char *pin, CK_ULONG length,
		     char hex[65])
{
	unsigned char digest[32];
	char salt[32];
	int salt_length = snprintf(salt, sizeof salt, "%s %s ", partition->serial, names[which]);
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	if (context == NULL || !EVP_DigestInit_ex(context, EVP_sha256(), NULL) ||
	    !EVP_DigestUpdate(context, salt, (size_t)salt_length) ||
	    !EVP_DigestUpdate(context, pin, pin != NULL ? length : 0) || !EVP_DigestFinal_ex(context, digest, NULL))
		abort();
	EVP_MD_CTX_free(context);
	for (size_t i = 0; i < sizeof digest; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

void role_set_pin(const struct partition *partition, struct roles *roles, int which, const unsigned char *pin,
		  CK_ULONG length)
{
	roles->role[which] = (struct role){0};
	hash_pin(partition, which, pin, length, roles->role[which].hash);
}

static void initial(const struct partition *partition, struct roles *roles)
{
	const char *const pins[ROLES] = {
		[SO] = sim.config.so_pin, [CO] = sim.config.co_pin, [CU] = sim.config.cu_pin, [LCO] = sim.config.lco_pin};
	for (int i = 0; i < ROLES; i++) {
		roles->role[i] = (struct role){.hash = "-"};
		if (pins[i][0] != '\0')
			role_set_pin(partition, roles, i, (const unsigned char *)pins[i], strlen(pins[i]));
	}
	roles->role[CO].expired = sim.config.co_pin_expired != 0;
	roles->role[CU].expired = sim.config.cu_pin_expired != 0;
}

void roles_begin(const struct partition *partition, struct roles *roles)
{
	char path[PATH_MAX];
	path_of(partition, path);
	roles->lock = file_lock(path);
	initial(partition, roles);
	roles->text = file_read(path);
	const char *at = roles->text;
	for (int i = 0, read; at != NULL && i < ROLES; i++, at += read) {
		struct role *role = &roles->role[i];
		int expired;
		if (sscanf(at, "%*s %lu %d %64s%n", &role->failures, &expired, role->hash, &read) != 3)
			break;
		role->expired = expired != 0;
	}
}

void roles_end(const struct partition *partition, struct roles *roles)
{
	char path[PATH_MAX], text[ROLES * 128];
	size_t used = 0;
	path_of(partition, path);
	for (int i = 0; i < ROLES; i++) {
		const struct role *role = &roles->role[i];
		used += (size_t)snprintf(text + used, sizeof text - used, "%s %lu %d %s\n", names[i], role->failures,
					 role->expired, role->hash);
	}
	bool changed = roles->text == NULL || strcmp(roles->text, text) != 0;
	if (changed && !file_replace(path, text))
		fprintf(stderr, "hsmsim: cannot write %s\n", path);
	free(roles->text);
	file_unlock(roles->lock);
}

bool role_has_pin(const struct role *role)
{
	return strcmp(role->hash, "-") != 0;
}

static bool exhausted(const struct role *role)
{
	int limit = sim.config.policy[POLICY_MAX_FAILED_LOGINS];
	return role->failures >= (unsigned long)(limit > 0 ? limit : 10);
}

/* A locked Crypto Officer locks the Crypto User too (Luna 7.1 and later). */
bool role_locked(const struct roles *roles, int which)
{
	return exhausted(&roles->role[which]) || (which != SO && exhausted(&roles->role[CO]));
}

bool role_matches(const struct partition *partition, const struct roles *roles, int which, const unsigned char *pin,
		  CK_ULONG length)
{
	char hash[65];
	hash_pin(partition, which, pin, length, hash);
	return strcmp(hash, roles->role[which].hash) == 0;
}
