/*
 * The function list. An entry says where the call goes (enum scope), which slot
 * or session it names, and what answers it; sim.h explains the rest.
 */
#include "sim.h"

#include <dlfcn.h>
#include <stdio.h>

#define EXPORT __attribute__((visibility("default")))

#define ENTRY(function, where, names, parameters, answer)                                     \
	static CK_RV entry_##function parameters                                               \
	{                                                                                      \
		struct call call = {.name = #function, .scope = (where), .subject = (names)};  \
		CK_RV rv = call_begin(&call);                                                  \
		if (rv == CKR_OK)                                                              \
			rv = (answer);                                                         \
		return call_end(&call, rv);                                                    \
	}

static CK_RV begin_cipher(struct call *call, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key, CK_C_EncryptInit begin)
{
	CK_RV answer = mechanism_allowed(mechanism);
	return answer == CKR_OK ? begin(call->real, mechanism, handle_in(key)) : answer;
}

/* Answered by the simulator. */
ENTRY(C_Initialize, LIFE, 0, (void *args), life_initialize(&call, args))
ENTRY(C_Finalize, LIFE, 0, (void *reserved), life_finalize(&call, reserved))
ENTRY(C_GetInfo, LOCAL, 0, (CK_INFO *info), life_info(info))
ENTRY(C_GetSlotList, LOCAL, 0,
      (CK_BBOOL with_token, CK_SLOT_ID *list, CK_ULONG *count),
      slot_list(&call, with_token, list, count))
ENTRY(C_GetSlotInfo, SLOT, slot, (CK_SLOT_ID slot, CK_SLOT_INFO *info), slot_info(&call, info))
ENTRY(C_GetTokenInfo, SLOT, slot, (CK_SLOT_ID slot, CK_TOKEN_INFO *info), token_info(&call, info))
ENTRY(C_GetMechanismList, SLOT, slot,
      (CK_SLOT_ID slot, CK_MECHANISM_TYPE *list, CK_ULONG *count),
      mechanism_list(&call, list, count))
ENTRY(C_GetMechanismInfo, SLOT, slot,
      (CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info),
      mechanism_info(&call, type, info))

ENTRY(C_OpenSession, SLOT, slot,
      (CK_SLOT_ID slot, CK_FLAGS flags, void *application, CK_NOTIFY notify, CK_SESSION_HANDLE *session),
      ((void)application, (void)notify, session_open(&call, flags, session)))
ENTRY(C_CloseSession, SESSION, session, (CK_SESSION_HANDLE session), session_close(&call))
ENTRY(C_CloseAllSessions, SLOT, slot, (CK_SLOT_ID slot), session_close_all(&call))
ENTRY(C_GetSessionInfo, SESSION, session,
      (CK_SESSION_HANDLE session, CK_SESSION_INFO *info),
      session_info(&call, info))
ENTRY(C_Login, SESSION, session,
      (CK_SESSION_HANDLE session, CK_USER_TYPE user, unsigned char *pin, CK_ULONG length),
      login(&call, user, pin, length))
ENTRY(C_Logout, SESSION, session, (CK_SESSION_HANDLE session), logout(&call))
ENTRY(C_SetPIN, SESSION, session,
      (CK_SESSION_HANDLE session, unsigned char *old, CK_ULONG old_length, unsigned char *new, CK_ULONG
       new_length),
      set_pin(&call, old, old_length, new, new_length))
ENTRY(C_InitPIN, SESSION, session,
      (CK_SESSION_HANDLE session, unsigned char *pin, CK_ULONG length),
      init_pin(&call, pin, length))

ENTRY(C_CreateObject, ROLE, session,
      (CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *object),
      object_create(&call, template, count, object))
ENTRY(C_CopyObject, ROLE, session,
      (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE from, CK_ATTRIBUTE *template, CK_ULONG count,
       CK_OBJECT_HANDLE *object),
      object_copy(&call, from, template, count, object))
ENTRY(C_DestroyObject, ROLE, session,
      (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object),
      object_destroy(&call, object))
ENTRY(C_GetAttributeValue, ROLE, session,
      (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *template, CK_ULONG count),
      attribute_get(&call, object, template, count))
ENTRY(C_SetAttributeValue, ROLE, session,
      (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *template, CK_ULONG count),
      attribute_set(&call, object, template, count))
ENTRY(C_FindObjects, ROLE, session,
      (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *objects, CK_ULONG room, CK_ULONG *count),
      object_find(&call, objects, room, count))
ENTRY(C_GenerateKey, ROLE, session,
      (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *template, CK_ULONG count,
       CK_OBJECT_HANDLE *key),
      key_generate(&call, mechanism, template, count, key))
ENTRY(C_GenerateKeyPair, ROLE, session,
      (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *public, CK_ULONG public_count,
       CK_ATTRIBUTE *private, CK_ULONG private_count, CK_OBJECT_HANDLE *public_key, CK_OBJECT_HANDLE
       *private_key),
      key_pair_generate(&call, mechanism, public, public_count, private, private_count, public_key,
       private_key))
ENTRY(C_WrapKey, ROLE, session,
      (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE wrapping, CK_OBJECT_HANDLE key,
       unsigned char *wrapped, CK_ULONG *length),
      key_wrap(&call, mechanism, wrapping, key, wrapped, length))
ENTRY(C_UnwrapKey, ROLE, session,
      (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key, unsigned char *wrapped,
       CK_ULONG length, CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *unwrapped),
      key_unwrap(&call, mechanism, key, wrapped, length, template, count, unwrapped))
ENTRY(C_DeriveKey, ROLE, session,
      (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE base, CK_ATTRIBUTE *template,
       CK_ULONG count, CK_OBJECT_HANDLE *key),
      key_derive(&call, mechanism, base, template, count, key))
ENTRY(C_EncryptInit, ROLE, session,
      (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key),
      begin_cipher(&call, mechanism, key, sim.real->C_EncryptInit))
ENTRY(C_DecryptInit, ROLE, session,
      (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key),
      begin_cipher(&call, mechanism, key, sim.real->C_DecryptInit))

/* Answered by SoftHSM. */
ENTRY(C_GetOperationState, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *out, CK_ULONG *out_length),
      sim.real->C_GetOperationState(call.real, out, out_length))
ENTRY(C_SetOperationState, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length, CK_OBJECT_HANDLE key, CK_OBJECT_HANDLE
       auth),
      sim.real->C_SetOperationState(call.real, in, in_length, handle_in(key), handle_in(auth)))
ENTRY(C_GetObjectSize, ROLE, session,
      (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ULONG *size),
      sim.real->C_GetObjectSize(call.real, handle_in(object), size))
ENTRY(C_FindObjectsInit, ROLE, session,
      (CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count),
      sim.real->C_FindObjectsInit(call.real, template, count))
ENTRY(C_FindObjectsFinal, ROLE, session, (CK_SESSION_HANDLE session), sim.real->C_FindObjectsFinal(call.real))
ENTRY(C_Encrypt, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length, unsigned char *out, CK_ULONG
       *out_length),
      sim.real->C_Encrypt(call.real, in, in_length, out, out_length))
ENTRY(C_EncryptUpdate, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length, unsigned char *out, CK_ULONG
       *out_length),
      sim.real->C_EncryptUpdate(call.real, in, in_length, out, out_length))
ENTRY(C_EncryptFinal, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *out, CK_ULONG *out_length),
      sim.real->C_EncryptFinal(call.real, out, out_length))
ENTRY(C_Decrypt, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length, unsigned char *out, CK_ULONG
       *out_length),
      sim.real->C_Decrypt(call.real, in, in_length, out, out_length))
ENTRY(C_DecryptUpdate, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length, unsigned char *out, CK_ULONG
       *out_length),
      sim.real->C_DecryptUpdate(call.real, in, in_length, out, out_length))
ENTRY(C_DecryptFinal, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *out, CK_ULONG *out_length),
      sim.real->C_DecryptFinal(call.real, out, out_length))
ENTRY(C_DigestInit, ROLE, session,
      (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism),
      sim.real->C_DigestInit(call.real, mechanism))
ENTRY(C_Digest, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length, unsigned char *out, CK_ULONG
       *out_length),
      sim.real->C_Digest(call.real, in, in_length, out, out_length))
ENTRY(C_DigestUpdate, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length),
      sim.real->C_DigestUpdate(call.real, in, in_length))
ENTRY(C_DigestKey, ROLE, session,
      (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key),
      sim.real->C_DigestKey(call.real, handle_in(key)))
ENTRY(C_DigestFinal, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *out, CK_ULONG *out_length),
      sim.real->C_DigestFinal(call.real, out, out_length))
ENTRY(C_SignInit, ROLE, session,
      (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key),
      sim.real->C_SignInit(call.real, mechanism, handle_in(key)))
ENTRY(C_Sign, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length, unsigned char *out, CK_ULONG
       *out_length),
      sim.real->C_Sign(call.real, in, in_length, out, out_length))
ENTRY(C_SignUpdate, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length),
      sim.real->C_SignUpdate(call.real, in, in_length))
ENTRY(C_SignFinal, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *out, CK_ULONG *out_length),
      sim.real->C_SignFinal(call.real, out, out_length))
ENTRY(C_SignRecoverInit, ROLE, session,
      (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key),
      sim.real->C_SignRecoverInit(call.real, mechanism, handle_in(key)))
ENTRY(C_SignRecover, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length, unsigned char *out, CK_ULONG
       *out_length),
      sim.real->C_SignRecover(call.real, in, in_length, out, out_length))
ENTRY(C_VerifyInit, ROLE, session,
      (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key),
      sim.real->C_VerifyInit(call.real, mechanism, handle_in(key)))
ENTRY(C_Verify, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length, unsigned char *signature, CK_ULONG
       length),
      sim.real->C_Verify(call.real, in, in_length, signature, length))
ENTRY(C_VerifyUpdate, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length),
      sim.real->C_VerifyUpdate(call.real, in, in_length))
ENTRY(C_VerifyFinal, ROLE, session,
      (CK_SESSION_HANDLE session, unsigned char *signature, CK_ULONG length),
      sim.real->C_VerifyFinal(call.real, signature, length))
ENTRY(C_SeedRandom, SESSION, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length),
      sim.real->C_SeedRandom(call.real, in, in_length))
ENTRY(C_GenerateRandom, SESSION, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length),
      sim.real->C_GenerateRandom(call.real, in, in_length))
ENTRY(C_GetFunctionStatus, SESSION, session,
      (CK_SESSION_HANDLE session),
      sim.real->C_GetFunctionStatus(call.real))
ENTRY(C_CancelFunction, SESSION, session, (CK_SESSION_HANDLE session), sim.real->C_CancelFunction(call.real))

/* Refused by Luna, as the tests of larskanis/pkcs11_luna show. */
ENTRY(C_WaitForSlotEvent, LOCAL, 0,
      (CK_FLAGS flags, CK_SLOT_ID *slot, void *reserved),
      ((void)flags, (void)slot, (void)reserved, CKR_FUNCTION_NOT_SUPPORTED))
ENTRY(C_InitToken, SLOT, slot,
      (CK_SLOT_ID slot, unsigned char *pin, CK_ULONG length, unsigned char *label),
      ((void)pin, (void)length, (void)label, CKR_LUNA_OPERATION_NOT_ALLOWED))
ENTRY(C_DigestEncryptUpdate, SESSION, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length, unsigned char *out, CK_ULONG
       *out_length),
      ((void)in, (void)in_length, (void)out, (void)out_length, CKR_FUNCTION_NOT_SUPPORTED))
ENTRY(C_DecryptDigestUpdate, SESSION, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length, unsigned char *out, CK_ULONG
       *out_length),
      ((void)in, (void)in_length, (void)out, (void)out_length, CKR_FUNCTION_NOT_SUPPORTED))
ENTRY(C_SignEncryptUpdate, SESSION, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length, unsigned char *out, CK_ULONG
       *out_length),
      ((void)in, (void)in_length, (void)out, (void)out_length, CKR_FUNCTION_NOT_SUPPORTED))
ENTRY(C_DecryptVerifyUpdate, SESSION, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length, unsigned char *out, CK_ULONG
       *out_length),
      ((void)in, (void)in_length, (void)out, (void)out_length, CKR_FUNCTION_NOT_SUPPORTED))
ENTRY(C_VerifyRecoverInit, SESSION, session,
      (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key),
      ((void)mechanism, (void)key, CKR_FUNCTION_NOT_SUPPORTED))
ENTRY(C_VerifyRecover, SESSION, session,
      (CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length, unsigned char *out, CK_ULONG
       *out_length),
      ((void)in, (void)in_length, (void)out, (void)out_length, CKR_FUNCTION_NOT_SUPPORTED))

#define ENTRIES(X) \
	X(C_Initialize) X(C_Finalize) X(C_GetInfo) X(C_GetSlotList) X(C_GetSlotInfo) X(C_GetTokenInfo) \
	X(C_GetMechanismList) X(C_GetMechanismInfo) X(C_OpenSession) X(C_CloseSession) \
	X(C_CloseAllSessions) X(C_GetSessionInfo) X(C_Login) X(C_Logout) X(C_SetPIN) X(C_InitPIN) \
	X(C_CreateObject) X(C_CopyObject) X(C_DestroyObject) X(C_GetAttributeValue) X(C_SetAttributeValue) \
	X(C_FindObjects) X(C_GenerateKey) X(C_GenerateKeyPair) X(C_WrapKey) X(C_UnwrapKey) X(C_DeriveKey) \
	X(C_EncryptInit) X(C_DecryptInit) X(C_GetOperationState) X(C_SetOperationState) X(C_GetObjectSize) \
	X(C_FindObjectsInit) X(C_FindObjectsFinal) X(C_Encrypt) X(C_EncryptUpdate) X(C_EncryptFinal) \
	X(C_Decrypt) X(C_DecryptUpdate) X(C_DecryptFinal) X(C_DigestInit) X(C_Digest) X(C_DigestUpdate) \
	X(C_DigestKey) X(C_DigestFinal) X(C_SignInit) X(C_Sign) X(C_SignUpdate) X(C_SignFinal) \
	X(C_SignRecoverInit) X(C_SignRecover) X(C_VerifyInit) X(C_Verify) X(C_VerifyUpdate) \
	X(C_VerifyFinal) X(C_SeedRandom) X(C_GenerateRandom) X(C_GetFunctionStatus) X(C_CancelFunction) \
	X(C_WaitForSlotEvent) X(C_InitToken) X(C_DigestEncryptUpdate) X(C_DecryptDigestUpdate) \
	X(C_SignEncryptUpdate) X(C_DecryptVerifyUpdate) X(C_VerifyRecoverInit) X(C_VerifyRecover) \
	X(C_GetFunctionList)

struct simulator sim = {
	.load_once = PTHREAD_ONCE_INIT,
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.making = PTHREAD_MUTEX_INITIALIZER,
};

EXPORT CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list);

static CK_RV entry_C_GetFunctionList(CK_FUNCTION_LIST **list)
{
	return C_GetFunctionList(list);
}

/* The options are read here for what matters before C_Initialize, which reads
 * them again and reports what is wrong with them. */
static void load(void)
{
	sim.list = (CK_FUNCTION_LIST){
		.version = {2, 20},
#define FIELD(name) .name = entry_##name,
		ENTRIES(FIELD)
#undef FIELD
	};
	config_load(&sim.config);
	if (sim.config.banner) {
		printf("Luna HSM client library\n");
		fflush(stdout);
	}
	void *softhsm = dlopen(sim.config.softhsm, RTLD_NOW | RTLD_LOCAL);
	CK_C_GetFunctionList get = NULL;
	if (softhsm != NULL)
		*(void **)&get = dlsym(softhsm, "C_GetFunctionList");
	if (get == NULL || get(&sim.real) != CKR_OK)
		fprintf(stderr, "hsmsim: cannot load SoftHSM from \"%s\"\n", sim.config.softhsm);
}

EXPORT CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
	if (list == NULL)
		return CKR_ARGUMENTS_BAD;
	pthread_once(&sim.load_once, load);
	*list = &sim.list;
	return CKR_OK;
}
