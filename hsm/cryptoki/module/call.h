// The part of PKCS#11's C interface that call.c needs: the types as they are on 64-bit
// Unix, where structures are not packed (PKCS#11 2.40, section 2.1), and the function
// list as an array.
#ifndef KMSBROKER_CALL_H
#define KMSBROKER_CALL_H

typedef unsigned long ck_ulong;

typedef struct {
	ck_ulong type;
	void *value;
	ck_ulong length;
} ck_attribute;

typedef struct {
	ck_ulong type;
	void *parameter;
	ck_ulong length;
} ck_mechanism;

typedef struct {
	ck_ulong hash, mgf, salt;
} ck_pss;

typedef struct {
	ck_ulong hash, mgf, source;
	void *data;
	ck_ulong length;
} ck_oaep;

typedef struct {
	ck_ulong kdf;
	ck_ulong shared_length;
	void *shared;
	ck_ulong public_length;
	void *public_data;
} ck_ecdh1;

typedef struct {
	ck_ulong bits;
	unsigned char counter[16];
} ck_ctr;

typedef struct {
	void *iv;
	ck_ulong iv_length, iv_bits;
	void *aad;
	ck_ulong aad_length, tag_bits;
} ck_gcm;

typedef struct {
	unsigned char major, minor;
} ck_version;

typedef struct {
	ck_version cryptoki;
	unsigned char manufacturer[32];
	ck_ulong flags;
	unsigned char description[32];
	ck_version library;
} ck_info;

typedef struct {
	unsigned char description[64], manufacturer[32];
	ck_ulong flags;
	ck_version hardware, firmware;
} ck_slot_info;

typedef struct {
	unsigned char label[32], manufacturer[32], model[16], serial[16];
	ck_ulong flags;
	ck_ulong counts[10];
	ck_version hardware, firmware;
	unsigned char utc_time[16];
} ck_token_info;

// CK_FUNCTION_LIST of 2.x.
typedef struct {
	ck_version version;
	void *functions[68];
} ck_function_list;

// A call with everything that goes in, and room for everything that comes out.
typedef struct {
	ck_ulong numbers[4]; // in and out
	unsigned char flag;
	void *data[2];
	ck_ulong data_length[2];
	ck_mechanism *mechanism;
	ck_attribute *templates[2];
	ck_ulong template_length[2];
	void *room; // for bytes, numbers or a structure
	ck_ulong room_length;
} ck_call;

// Loads a library. On failure it returns NULL and a text to be freed.
ck_function_list *ck_load(const char *path, char **why);

// Makes a call of the function with that number, which is p11-kit's.
ck_ulong ck_do(ck_function_list *list, unsigned int function, ck_call *c);

// Makes the two calls about functions that run in parallel.
void ck_legacy(ck_function_list *list, ck_ulong session, ck_ulong *status, ck_ulong *cancel);

#endif
