/*
 * A PKCS#11 library that cannot reach its service: C_Initialize writes the
 * configuration directory that it sees to the file SEEN and answers
 * CKR_UNABLE_TO_CONNECT.
 */
#include <stdio.h>
#include <stdlib.h>

static unsigned long initialize(void *args)
{
	FILE *file = fopen(getenv("SEEN"), "w");
	if (file == NULL)
		abort();
	fputs(getenv("ChrystokiConfigurationPath"), file);
	fclose(file);
	return 0x8000001F;
}

static struct {
	unsigned long version;
	void *functions[68];
} list = { .functions = { initialize } };

unsigned long C_GetFunctionList(void **out)
{
	*out = &list;
	return 0;
}
