/*
 * A PKCS#11 library for tests: it forwards to the one named by SHIM_MODULE,
 * writes the name of each call below to the file SHIM_LOG, and misbehaves as
 * the file SHIM_FAULT says:
 *
 *     C_WrapKey before 0x30     answer 0x30 once, without the real call
 *     C_WrapKey after 0x30      answer 0x30 once, after the real call
 *     C_WrapKey always 0x30     answer 0x30 each time, without the real call
 *     C_WrapKey block           wait until the file is gone
 *
 * It copies the function list as an array: one padded CK_VERSION and then
 * pointers, all of whose arguments are words (PKCS#11 2.40, pkcs11f.h).
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long word;
typedef word (*function)(word, word, word, word, word, word, word, word);

static struct {
	word version;
	function f[68];
} list, *original;

static void note(const char *name)
{
	char line[64];
	int n = snprintf(line, sizeof line, "%s\n", name);
	int fd = open(getenv("SHIM_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0600);
	if (fd < 0 || write(fd, line, n) != n)
		abort();
	close(fd);
}

static int fault(const char *name, char *mode, word *code)
{
	char wanted[64];
	FILE *file = fopen(getenv("SHIM_FAULT"), "r");
	if (file == NULL)
		return 0;
	*code = 0;
	int n = fscanf(file, "%63s %15s %lx", wanted, mode, code);
	fclose(file);
	return n >= 2 && strcmp(wanted, name) == 0;
}

#define CALL original->f[index](a, b, c, d, e, f, g, h)

static word forward(const char *name, int index, word a, word b, word c, word d, word e, word f, word g, word h)
{
	char mode[16];
	word code;
	note(name);
	if (!fault(name, mode, &code))
		return CALL;
	if (strcmp(mode, "always") == 0)
		return code;
	if (strcmp(mode, "block") == 0) {
		note("blocked");
		while (access(getenv("SHIM_FAULT"), F_OK) == 0)
			usleep(1000);
		return CALL;
	}
	unlink(getenv("SHIM_FAULT"));
	if (strcmp(mode, "after") == 0)
		CALL;
	return code;
}

#define CALLS(X) \
	X(C_Finalize, 1) X(C_GetTokenInfo, 6) X(C_OpenSession, 12) X(C_CloseSession, 13) X(C_GetSessionInfo, 15) X(C_Login, 18) \
	X(C_CreateObject, 20) X(C_DestroyObject, 22) X(C_GetAttributeValue, 24) X(C_SetAttributeValue, 25) \
	X(C_FindObjectsInit, 26) X(C_GenerateKey, 58) X(C_WrapKey, 60) X(C_GenerateRandom, 64)

#define DEFINE(name, index) \
	static word name(word a, word b, word c, word d, word e, word f, word g, word h) \
	{ return forward(#name, index, a, b, c, d, e, f, g, h); }
CALLS(DEFINE)

word C_GetFunctionList(void **out)
{
	void *module = dlopen(getenv("SHIM_MODULE"), RTLD_NOW | RTLD_LOCAL);
	word (*get)(void *) = module ? (word (*)(void *))dlsym(module, "C_GetFunctionList") : NULL;
	if (get == NULL || get(&original) != 0)
		return 5;
	list = *original;
#define REPLACE(name, index) list.f[index] = name;
	CALLS(REPLACE)
	*out = &list;
	return 0;
}
