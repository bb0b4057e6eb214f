/*
 * The OUID and the fingerprint of an object. Luna derives the fingerprint from
 * the key's value; here it is derived from what SoftHSM tells of the value, its
 * check value or its modulus (SoftHSM has none of an unwrapped key). The OUID
 * adds class, serial and CKA_ID. Both are therefore the same in every process,
 * and an OUID changes with CKA_ID.
 */
#include "sim.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

/* Adds an attribute to the digest; one that the object lacks adds nothing. */
static void absorb(EVP_MD_CTX *digest, const struct call *call, CK_OBJECT_HANDLE real, CK_ATTRIBUTE_TYPE type)
{
	unsigned char value[1024];
	CK_ATTRIBUTE attribute = {type, value, sizeof value};
	if (sim.real->C_GetAttributeValue(call->real, real, &attribute, 1) == CKR_OK &&
	    !EVP_DigestUpdate(digest, value, attribute.ulValueLen))
		abort();
}

static void identify(const struct call *call, CK_OBJECT_HANDLE real, const char *purpose,
		     const CK_ATTRIBUTE_TYPE *types, size_t count, unsigned char digest[32])
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	if (context == NULL || !EVP_DigestInit_ex(context, EVP_sha256(), NULL) ||
	    !EVP_DigestUpdate(context, purpose, strlen(purpose)))
		abort();
	for (size_t i = 0; i < count; i++)
		absorb(context, call, real, types[i]);
	if (!EVP_DigestFinal_ex(context, digest, NULL))
		abort();
	EVP_MD_CTX_free(context);
}

void identity_fingerprint(const struct call *call, CK_OBJECT_HANDLE real, unsigned char print[FINGERPRINT_BYTES])
{
	static const CK_ATTRIBUTE_TYPE types[] = {CKA_KEY_TYPE, CKA_CHECK_VALUE, CKA_MODULUS};
	identify(call, real, "fingerprint", types, sizeof types / sizeof *types, print);
}

void identity_ouid(const struct call *call, CK_OBJECT_HANDLE real, unsigned char ouid[OUID_BYTES])
{
	static const CK_ATTRIBUTE_TYPE types[] = {CKA_CLASS, CKA_KEY_TYPE, CKA_CHECK_VALUE, CKA_MODULUS, CKA_ID};
	unsigned char digest[32];
	identify(call, real, call->partition->serial, types, sizeof types / sizeof *types, digest);
	memcpy(ouid, digest, OUID_BYTES);
}

CK_ULONG identity_class(const struct call *call, CK_OBJECT_HANDLE real)
{
	CK_ULONG class;
	CK_ATTRIBUTE attribute = {CKA_CLASS, &class, sizeof class};
	CK_RV answer = sim.real->C_GetAttributeValue(call->real, real, &attribute, 1);
	return answer == CKR_OK ? class : CK_UNAVAILABLE_INFORMATION;
}
