/* Calls Thales' extension functions as a plugin would, found by name, and
 * prints what they answer: extensions LIBRARY. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "../cryptoki/luna.h"

typedef CK_RV (*policies_function)(CK_SLOT_ID, CK_ULONG_PTR, CK_ULONG_PTR, CK_ULONG_PTR, CK_ULONG_PTR);

static void *library;

static void *find(const char *name)
{
	void *function = dlsym(library, name);
	if (function == NULL) {
		fprintf(stderr, "%s is not exported\n", name);
		exit(1);
	}
	return function;
}

static void print_policies(const char *name, CK_SLOT_ID slot)
{
	policies_function get;
	CK_ULONG ids[64], values[64], id_count = 0, value_count = 0;
	*(void **)&get = find(name);
	CK_RV rv = get(slot, NULL, &id_count, NULL, &value_count);
	if (rv == CKR_OK)
		rv = get(slot, ids, &id_count, values, &value_count);
	printf("%s 0x%lX", name, rv);
	for (CK_ULONG i = 0; rv == CKR_OK && i < id_count; i++)
		printf(" %lu=%lu", ids[i], values[i]);
	printf("\n");
}

static void print_firmware(CK_SLOT_ID slot)
{
	CK_RV (*get)(CK_SLOT_ID, CK_ULONG_PTR, CK_ULONG_PTR, CK_ULONG_PTR);
	CK_ULONG major = 0, minor = 0, sub = 0;
	*(void **)&get = find("CA_GetFirmwareVersion");
	CK_RV rv = get(slot, &major, &minor, &sub);
	printf("CA_GetFirmwareVersion 0x%lX %lu.%lu.%lu\n", rv, major, minor, sub);
}

static void print_group(CK_SLOT_ID slot)
{
	CK_RV (*get)(CK_SLOT_ID, CK_HA_STATUS *);
	CK_HA_STATUS status = {.listSize = 0};
	*(void **)&get = find("CA_GetHAState");
	CK_RV rv = get(slot, &status);
	printf("CA_GetHAState 0x%lX %s", rv, (const char *)status.groupSerial);
	for (CK_ULONG i = 0; i < status.listSize; i++)
		printf(" %s=0x%lX", (const char *)status.memberList[i].memberSerial, status.memberList[i].memberStatus);
	printf("\n");
}

int main(int argc, char **argv)
{
	CK_FUNCTION_LIST *p11;
	CK_C_GetFunctionList get;
	CK_SLOT_ID slots[8];
	CK_ULONG count = 8;
	library = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
	if (library == NULL)
		return 1;
	*(void **)&get = find("C_GetFunctionList");
	if (get(&p11) != CKR_OK || p11->C_Initialize(NULL) != CKR_OK ||
	    p11->C_GetSlotList(CK_TRUE, slots, &count) != CKR_OK || count == 0)
		return 1;
	print_policies("CA_GetTokenPolicies", slots[0]);
	print_policies("CA_GetHSMPolicySet", slots[0]);
	print_firmware(slots[0]);
	print_group(slots[0]);
	return p11->C_Finalize(NULL) == CKR_OK ? 0 : 1;
}
