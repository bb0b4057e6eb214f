#include "call.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

enum { ok = 0x0, not_supported = 0x54 };

ck_function_list *ck_load(const char *path, char **why)
{
	*why = NULL;
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL) {
		*why = strdup(dlerror());
		return NULL;
	}
	ck_ulong (*get)(ck_function_list **) = (ck_ulong(*)(ck_function_list **))dlsym(library, "C_GetFunctionList");
	ck_function_list *list = NULL;
	if (get == NULL || get(&list) != ok || list == NULL) {
		*why = strdup("it has no C_GetFunctionList, or that gives no list");
		return NULL;
	}
	return list;
}

// CK_C_INITIALIZE_ARGS with CKF_OS_LOCKING_OK.
static struct {
	void *create, *destroy, *lock, *unlock;
	ck_ulong flags;
	void *reserved;
} with_threads = {.flags = 2};

// The place of a function in the list. p11-kit does not count C_GetFunctionList, which
// is the fourth, nor the two legacy functions before C_WaitForSlotEvent, and has
// C_InitPIN and C_SetPIN behind the functions about sessions.
static void *find(ck_function_list *list, unsigned int function)
{
	if (function >= 1 && function <= 3)
		return list->functions[function - 1];
	if (function >= 10 && function <= 13)
		return list->functions[function + 2];
	if (function == 14 || function == 15)
		return list->functions[function - 4];
	if (function >= 4 && function <= 64)
		return list->functions[function];
	if (function == 65)
		return list->functions[67];
	return NULL;
}

typedef ck_ulong u;
typedef void *p;

ck_ulong ck_do(ck_function_list *list, unsigned int function, ck_call *c)
{
	void *f = find(list, function);
	u *n = c->numbers;
	p *d = c->data, *t = (p *)c->templates;
	u *dl = c->data_length, *tl = c->template_length;
	ck_mechanism *m = c->mechanism;
	if (f == NULL)
		return not_supported;
	switch (function) {
	case 1: // C_Initialize
		return ((u(*)(p))f)(&with_threads);
	case 2: // C_Finalize
		return ((u(*)(p))f)(NULL);
	case 3: // C_GetInfo
		return ((u(*)(p))f)(c->room);
	case 4: // C_GetSlotList
		return ((u(*)(unsigned char, p, u *))f)(c->flag, c->room, &c->room_length);
	case 5: // C_GetSlotInfo
	case 6: // C_GetTokenInfo
	case 13: // C_GetSessionInfo
		return ((u(*)(u, p))f)(n[0], c->room);
	case 7: // C_GetMechanismList
		return ((u(*)(u, p, u *))f)(n[0], c->room, &c->room_length);
	case 8: // C_GetMechanismInfo
		return ((u(*)(u, u, p))f)(n[0], n[1], c->room);
	case 9: // C_InitToken
		return ((u(*)(u, p, u, p))f)(n[0], d[0], dl[0], d[1]);
	case 10: // C_OpenSession
		return ((u(*)(u, u, p, p, u *))f)(n[0], n[1], NULL, NULL, &n[0]);
	case 11: // C_CloseSession
	case 12: // C_CloseAllSessions
	case 19: // C_Logout
	case 28: // C_FindObjectsFinal
		return ((u(*)(u))f)(n[0]);
	case 14: // C_InitPIN
	case 39: // C_DigestUpdate
	case 44: // C_SignUpdate
	case 50: // C_VerifyUpdate
	case 51: // C_VerifyFinal
	case 63: // C_SeedRandom
		return ((u(*)(u, p, u))f)(n[0], d[0], dl[0]);
	case 15: // C_SetPIN
	case 49: // C_Verify
		return ((u(*)(u, p, u, p, u))f)(n[0], d[0], dl[0], d[1], dl[1]);
	case 16: // C_GetOperationState
	case 32: // C_EncryptFinal
	case 36: // C_DecryptFinal
	case 41: // C_DigestFinal
	case 45: // C_SignFinal
		return ((u(*)(u, p, u *))f)(n[0], c->room, &c->room_length);
	case 17: // C_SetOperationState
		return ((u(*)(u, p, u, u, u))f)(n[0], d[0], dl[0], n[1], n[2]);
	case 18: // C_Login
		return ((u(*)(u, u, p, u))f)(n[0], n[1], d[0], dl[0]);
	case 20: // C_CreateObject
		return ((u(*)(u, p, u, u *))f)(n[0], t[0], tl[0], &n[0]);
	case 21: // C_CopyObject
		return ((u(*)(u, u, p, u, u *))f)(n[0], n[1], t[0], tl[0], &n[0]);
	case 22: // C_DestroyObject
	case 40: // C_DigestKey
		return ((u(*)(u, u))f)(n[0], n[1]);
	case 23: // C_GetObjectSize
		return ((u(*)(u, u, u *))f)(n[0], n[1], &n[0]);
	case 24: // C_GetAttributeValue
	case 25: // C_SetAttributeValue
		return ((u(*)(u, u, p, u))f)(n[0], n[1], t[0], tl[0]);
	case 26: // C_FindObjectsInit
		return ((u(*)(u, p, u))f)(n[0], t[0], tl[0]);
	case 27: // C_FindObjects
		return ((u(*)(u, p, u, u *))f)(n[0], c->room, c->room_length, &c->room_length);
	case 29: // C_EncryptInit
	case 33: // C_DecryptInit
	case 42: // C_SignInit
	case 46: // C_SignRecoverInit
	case 48: // C_VerifyInit
	case 52: // C_VerifyRecoverInit
		return ((u(*)(u, p, u))f)(n[0], m, n[1]);
	case 37: // C_DigestInit
		return ((u(*)(u, p))f)(n[0], m);
	case 30: // C_Encrypt
	case 31: // C_EncryptUpdate
	case 34: // C_Decrypt
	case 35: // C_DecryptUpdate
	case 38: // C_Digest
	case 43: // C_Sign
	case 47: // C_SignRecover
	case 53: // C_VerifyRecover
	case 54: // C_DigestEncryptUpdate
	case 55: // C_DecryptDigestUpdate
	case 56: // C_SignEncryptUpdate
	case 57: // C_DecryptVerifyUpdate
		return ((u(*)(u, p, u, p, u *))f)(n[0], d[0], dl[0], c->room, &c->room_length);
	case 58: // C_GenerateKey
		return ((u(*)(u, p, p, u, u *))f)(n[0], m, t[0], tl[0], &n[0]);
	case 59: // C_GenerateKeyPair
		return ((u(*)(u, p, p, u, p, u, u *, u *))f)(n[0], m, t[0], tl[0], t[1], tl[1], &n[0], &n[1]);
	case 60: // C_WrapKey
		return ((u(*)(u, p, u, u, p, u *))f)(n[0], m, n[1], n[2], c->room, &c->room_length);
	case 61: // C_UnwrapKey
		return ((u(*)(u, p, u, p, u, p, u, u *))f)(n[0], m, n[1], d[0], dl[0], t[0], tl[0], &n[0]);
	case 62: // C_DeriveKey
		return ((u(*)(u, p, u, p, u, u *))f)(n[0], m, n[1], t[0], tl[0], &n[0]);
	case 64: // C_GenerateRandom
		return ((u(*)(u, p, u))f)(n[0], c->room, c->room_length);
	case 65: // C_WaitForSlotEvent
		return ((u(*)(u, u *, p))f)(n[0], &n[0], NULL);
	}
	return not_supported;
}

void ck_legacy(ck_function_list *list, ck_ulong session, ck_ulong *status, ck_ulong *cancel)
{
	u (*f[2])(u) = {(u(*)(u))list->functions[65], (u(*)(u))list->functions[66]};
	*status = f[0] ? f[0](session) : not_supported;
	*cancel = f[1] ? f[1](session) : not_supported;
}
