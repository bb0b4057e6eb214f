/* RSA-OAEP outside SoftHSM, which can do it with SHA-1 only. */
#ifndef OAEP_H
#define OAEP_H

#include <openssl/evp.h>
#include <p11-kit/pkcs11.h>
#include <stdbool.h>

struct oaep {
	const EVP_MD *hash, *mgf;
	const unsigned char *label;
	CK_ULONG label_length;
};

/* Reads CK_RSA_PKCS_OAEP_PARAMS; false when they make no sense. A hash of 0
 * means the firmware's default, SHA-1. */
bool oaep_read(struct oaep *oaep, const CK_MECHANISM *mechanism);

/* Reports whether SoftHSM can do this itself. */
bool oaep_is_plain(const struct oaep *oaep);

/* Encrypts under an RSA public key; output has room for the modulus. */
bool oaep_encrypt(const struct oaep *oaep, const CK_ATTRIBUTE *modulus, const CK_ATTRIBUTE *exponent,
		  const unsigned char *input, size_t length, unsigned char *output, size_t *output_length);

/* Opens what SoftHSM wrapped, which is SHA-1 without a label. */
bool oaep_open(EVP_PKEY *key, const unsigned char *input, size_t length, unsigned char *output, size_t *output_length);

#endif
