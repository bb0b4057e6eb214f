/*
 * C_WrapKey with Luna's rules, and OAEP with every hash that Luna has.
 *
 * SoftHSM wraps with SHA-1 only. For another hash it is first asked to wrap
 * with SHA-1 under the application's key, so that permissions and sizes are
 * judged as always; then under a key pair of the simulator, whose private half
 * opens the value here, to be encrypted as was asked.
 */
#include "sim.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>

#include "oaep.h"

enum { MAX_MODULUS = 1024 }; /* bytes: RSA-8192 */

struct rsa_public {
	unsigned char n[MAX_MODULUS], e[MAX_MODULUS];
	CK_ATTRIBUTE parts[2];
};

static bool read_public(const struct call *call, CK_OBJECT_HANDLE real, struct rsa_public *key)
{
	key->parts[0] = (CK_ATTRIBUTE){CKA_MODULUS, key->n, sizeof key->n};
	key->parts[1] = (CK_ATTRIBUTE){CKA_PUBLIC_EXPONENT, key->e, sizeof key->e};
	return sim.real->C_GetAttributeValue(call->real, real, key->parts, 2) == CKR_OK;
}

static CK_RV import_emulation_key(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *object)
{
	CK_OBJECT_CLASS class = CKO_PUBLIC_KEY;
	CK_KEY_TYPE type = CKK_RSA;
	CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
	unsigned char n[MAX_MODULUS], e[] = {1, 0, 1};
	BIGNUM *modulus = NULL;
	if (!EVP_PKEY_get_bn_param(sim.emulation_key, OSSL_PKEY_PARAM_RSA_N, &modulus))
		return CKR_HOST_MEMORY;
	CK_ULONG length = (CK_ULONG)BN_bn2bin(modulus, n);
	BN_free(modulus);
	CK_ATTRIBUTE template[] = {
		{CKA_CLASS, &class, sizeof class}, {CKA_KEY_TYPE, &type, sizeof type},
		{CKA_TOKEN, &no, sizeof no},       {CKA_PRIVATE, &no, sizeof no},
		{CKA_WRAP, &yes, sizeof yes},      {CKA_MODULUS, n, length},
		{CKA_PUBLIC_EXPONENT, e, sizeof e},
	};
	return sim.real->C_CreateObject(session, template, sizeof template / sizeof *template, object);
}

/* The emulation's public key lives in a session that the application does not
 * see, until the application closes its last one. */
static CK_RV emulation_key(struct partition *partition, CK_OBJECT_HANDLE *object)
{
	CK_RV answer = CKR_OK;
	pthread_mutex_lock(&sim.lock);
	if (partition->keeper == 0)
		answer = sim.real->C_OpenSession(partition->real, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL,
						 &partition->keeper);
	if (answer == CKR_OK && partition->wrapper == 0)
		answer = import_emulation_key(partition->keeper, &partition->wrapper);
	*object = partition->wrapper;
	pthread_mutex_unlock(&sim.lock);
	return answer;
}

/* Wraps under the emulation's key and opens the result. */
static CK_RV value_of(struct call *call, CK_OBJECT_HANDLE key, unsigned char *value, size_t *length)
{
	CK_RSA_PKCS_OAEP_PARAMS parameters = {CKM_SHA_1, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, NULL, 0};
	CK_MECHANISM sha1 = {CKM_RSA_PKCS_OAEP, &parameters, sizeof parameters};
	unsigned char blob[MAX_MODULUS];
	CK_ULONG size = sizeof blob;
	CK_OBJECT_HANDLE wrapper;
	CK_RV answer = emulation_key(call->partition, &wrapper);
	if (answer == CKR_OK)
		answer = sim.real->C_WrapKey(call->real, &sha1, wrapper, key, blob, &size);
	if (answer == CKR_OK && !oaep_open(sim.emulation_key, blob, size, value, length))
		answer = CKR_FUNCTION_FAILED;
	return answer;
}

static CK_RV wrap_oaep(struct call *call, const struct oaep *oaep, CK_OBJECT_HANDLE wrapping, CK_OBJECT_HANDLE key,
		       unsigned char *wrapped, CK_ULONG *length)
{
	CK_RSA_PKCS_OAEP_PARAMS parameters = {CKM_SHA_1, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, NULL, 0};
	CK_MECHANISM sha1 = {CKM_RSA_PKCS_OAEP, &parameters, sizeof parameters};
	if (oaep_is_plain(oaep))
		return sim.real->C_WrapKey(call->real, &sha1, wrapping, key, wrapped, length);

	unsigned char probe[MAX_MODULUS], value[MAX_MODULUS], blob[MAX_MODULUS];
	CK_ULONG size = sizeof probe;
	CK_RV answer = sim.real->C_WrapKey(call->real, &sha1, wrapping, key, probe, &size);
	if (answer != CKR_OK)
		return answer;
	if (wrapped == NULL || *length < size) {
		answer = wrapped == NULL ? CKR_OK : CKR_BUFFER_TOO_SMALL;
		*length = size;
		return answer;
	}
	struct rsa_public public;
	size_t value_length = sizeof value, blob_length = sizeof blob;
	answer = value_of(call, key, value, &value_length);
	if (answer != CKR_OK)
		return answer;
	if (!read_public(call, wrapping, &public) ||
	    !oaep_encrypt(oaep, &public.parts[0], &public.parts[1], value, value_length, blob, &blob_length))
		answer = CKR_KEY_SIZE_RANGE;
	OPENSSL_cleanse(value, sizeof value);
	if (answer != CKR_OK)
		return answer;
	*length = blob_length;
	for (size_t i = 0; i < blob_length; i++)
		wrapped[i] = blob[i];
	return CKR_OK;
}

/* Private keys and secret keys leave a partition under a policy each. */
static CK_RV check_policy(const struct call *call, CK_OBJECT_HANDLE key)
{
	CK_ULONG class = identity_class(call, key);
	if ((class == CKO_SECRET_KEY && !policy_on(POLICY_SECRET_KEY_WRAPPING)) ||
	    (class == CKO_PRIVATE_KEY && !policy_on(POLICY_PRIVATE_KEY_WRAPPING)))
		return CKR_KEY_NOT_WRAPPABLE;
	return CKR_OK;
}

static CK_RV check_size(const struct call *call, CK_OBJECT_HANDLE wrapping)
{
	struct rsa_public public;
	bool known = read_public(call, wrapping, &public);
	return known && sim.config.fips && public.parts[0].ulValueLen < 2048 / 8 ? CKR_KEY_SIZE_RANGE : CKR_OK;
}

CK_RV key_wrap(struct call *call, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE wrapping, CK_OBJECT_HANDLE key,
	       unsigned char *wrapped, CK_ULONG *length)
{
	CK_OBJECT_HANDLE real_wrapping = handle_in(wrapping), real_key = handle_in(key);
	if (mechanism == NULL || length == NULL)
		return CKR_ARGUMENTS_BAD;
	CK_RV answer = mechanism_allowed(mechanism);
	if (answer == CKR_OK)
		answer = check_size(call, real_wrapping);
	if (answer == CKR_OK)
		answer = check_policy(call, real_key);
	if (answer != CKR_OK)
		return answer;
	if (mechanism->mechanism == CKM_RSA_PKCS_OAEP) {
		struct oaep oaep;
		if (!oaep_read(&oaep, mechanism) || (sim.config.sha1_oaep_only && oaep.hash != EVP_sha1()))
			return CKR_MECHANISM_PARAM_INVALID;
		return wrap_oaep(call, &oaep, real_wrapping, real_key, wrapped, length);
	}
	CK_MECHANISM known = mechanism_real(mechanism);
	return sim.real->C_WrapKey(call->real, &known, real_wrapping, real_key, wrapped, length);
}
