#include "oaep.h"

#include <openssl/core_names.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <string.h>

static const EVP_MD *hash_of(CK_MECHANISM_TYPE type)
{
	switch (type) {
	case 0:
	case CKM_SHA_1:
		return EVP_sha1();
	case CKM_SHA224:
		return EVP_sha224();
	case CKM_SHA256:
		return EVP_sha256();
	case CKM_SHA384:
		return EVP_sha384();
	case CKM_SHA512:
		return EVP_sha512();
	default:
		return NULL;
	}
}

static const EVP_MD *mgf_of(CK_ULONG type)
{
	switch (type) {
	case CKG_MGF1_SHA1:
		return EVP_sha1();
	case CKG_MGF1_SHA224:
		return EVP_sha224();
	case CKG_MGF1_SHA256:
		return EVP_sha256();
	case CKG_MGF1_SHA384:
		return EVP_sha384();
	case CKG_MGF1_SHA512:
		return EVP_sha512();
	default:
		return NULL;
	}
}

bool oaep_read(struct oaep *oaep, const CK_MECHANISM *mechanism)
{
	CK_RSA_PKCS_OAEP_PARAMS parameters;
	if (mechanism->pParameter == NULL || mechanism->ulParameterLen != sizeof parameters)
		return false;
	memcpy(&parameters, mechanism->pParameter, sizeof parameters);
	*oaep = (struct oaep){
		.hash = hash_of(parameters.hashAlg),
		.mgf = mgf_of(parameters.mgf),
		.label = parameters.pSourceData,
		.label_length = parameters.ulSourceDataLen,
	};
	return oaep->hash != NULL && oaep->mgf != NULL && parameters.source == CKZ_DATA_SPECIFIED &&
	       (oaep->label_length == 0 || oaep->label != NULL);
}

bool oaep_is_plain(const struct oaep *oaep)
{
	return oaep->hash == EVP_sha1() && oaep->mgf == EVP_sha1() && oaep->label_length == 0;
}

static EVP_PKEY *public_key(const CK_ATTRIBUTE *modulus, const CK_ATTRIBUTE *exponent)
{
	EVP_PKEY *key = NULL;
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
	BIGNUM *n = BN_bin2bn(modulus->pValue, (int)modulus->ulValueLen, NULL);
	BIGNUM *e = BN_bin2bn(exponent->pValue, (int)exponent->ulValueLen, NULL);
	OSSL_PARAM *parameters = NULL;
	if (context != NULL && builder != NULL && OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_N, n) &&
	    OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_E, e) &&
	    (parameters = OSSL_PARAM_BLD_to_param(builder)) != NULL && EVP_PKEY_fromdata_init(context) > 0 &&
	    EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, parameters) <= 0)
		key = NULL;
	OSSL_PARAM_free(parameters);
	OSSL_PARAM_BLD_free(builder);
	EVP_PKEY_CTX_free(context);
	BN_free(n);
	BN_free(e);
	return key;
}

static bool set_padding(EVP_PKEY_CTX *context, const struct oaep *oaep)
{
	if (EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_OAEP_PADDING) <= 0 ||
	    EVP_PKEY_CTX_set_rsa_oaep_md(context, oaep->hash) <= 0 ||
	    EVP_PKEY_CTX_set_rsa_mgf1_md(context, oaep->mgf) <= 0)
		return false;
	if (oaep->label_length == 0)
		return true;
	unsigned char *label = OPENSSL_memdup(oaep->label, oaep->label_length);
	if (label != NULL && EVP_PKEY_CTX_set0_rsa_oaep_label(context, label, (int)oaep->label_length) > 0)
		return true;
	OPENSSL_free(label);
	return false;
}

bool oaep_encrypt(const struct oaep *oaep, const CK_ATTRIBUTE *modulus, const CK_ATTRIBUTE *exponent,
		  const unsigned char *input, size_t length, unsigned char *output, size_t *output_length)
{
	EVP_PKEY *key = public_key(modulus, exponent);
	EVP_PKEY_CTX *context = key != NULL ? EVP_PKEY_CTX_new(key, NULL) : NULL;
	bool done = context != NULL && EVP_PKEY_encrypt_init(context) > 0 && set_padding(context, oaep) &&
		    EVP_PKEY_encrypt(context, output, output_length, input, length) > 0;
	EVP_PKEY_CTX_free(context);
	EVP_PKEY_free(key);
	return done;
}

bool oaep_open(EVP_PKEY *key, const unsigned char *input, size_t length, unsigned char *output, size_t *output_length)
{
	const struct oaep sha1 = {.hash = EVP_sha1(), .mgf = EVP_sha1()};
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(key, NULL);
	bool done = context != NULL && EVP_PKEY_decrypt_init(context) > 0 && set_padding(context, &sha1) &&
		    EVP_PKEY_decrypt(context, output, output_length, input, length) > 0;
	EVP_PKEY_CTX_free(context);
	return done;
}
