/*
 * The simulator's state, and what happens around each call.
 *
 * Every function of the list that C_GetFunctionList hands out (entry.c) is
 * call_begin, the answer, call_end. call_begin decides whether the call gets as
 * far as the device; the answer is SoftHSM's own or comes from the file named
 * after the idea: slots.c, sessions.c, login.c, objects.c, attributes.c,
 * wrap.c, mechanisms.c.
 */
#ifndef SIM_H
#define SIM_H

#include <p11-kit/pkcs11.h>
#include <pthread.h>
#include <stdbool.h>

#include "config.h"
#include "control.h"
#include "luna.h"

enum { MAX_PARTITIONS = 16, MAX_SLOTS = 64, OUID_BYTES = 12, FINGERPRINT_BYTES = 32 };

/* A SoftHSM token in the clothes of a partition. */
struct partition {
	CK_SLOT_ID real;
	char label[33], serial[17];
	const char *model;
	bool hybrid; /* a Luna partition in a DPoD client */

	bool logged_in, pin_expired;
	CK_USER_TYPE user;
	unsigned long sessions;

	/* The key pair that SHA-2 OAEP is emulated with: its public half is an
	 * object of a session that the application does not see. */
	CK_SESSION_HANDLE keeper;
	CK_OBJECT_HANDLE wrapper;
};

enum slot_kind { PLACEHOLDER, PARTITION, HA_GROUP, HA_MEMBER };

struct slot {
	enum slot_kind kind;
	struct partition *partition; /* NULL for a placeholder */
	unsigned member;             /* counts from 1 */
	bool numbered;               /* has been seen by the application as id */
	CK_SLOT_ID id;
};

struct session {
	CK_SESSION_HANDLE real;
	struct slot *slot;
	bool writes;
};

struct simulator {
	/* Set once, when the library is loaded. */
	pthread_once_t load_once;
	CK_FUNCTION_LIST list, *real;

	pthread_mutex_t lock; /* guards everything below it */

	struct config config;
	bool initialised;
	unsigned long calls; /* in the library, C_Initialize and C_Finalize apart */
	unsigned long epoch; /* of C_Initialize: handles of an earlier one mean nothing */

	/* Once the link is lost, calls answer these until C_Finalize. */
	bool lost;
	CK_RV lost_sessions, lost_slots;
	unsigned long drops, members_down; /* as the control file had them */
	bool no_cloud;

	struct partition partitions[MAX_PARTITIONS];
	struct slot slots[MAX_SLOTS];
	unsigned long partition_count, slot_count, next_slot_id;
	struct session *sessions;
	unsigned long session_count, session_room;

	pthread_mutex_t making;          /* held while objects are counted and one is made */
	struct evp_pkey_st *emulation_key; /* made once, for wrap.c */
};

extern struct simulator sim;

enum scope {
	LIFE,    /* C_Initialize and C_Finalize */
	LOCAL,   /* answered by the client library itself */
	SLOT,    /* asks the device, names a slot */
	SESSION, /* asks the device, names a session */
	ROLE,    /* the same, and needs a role whose PIN has not expired */
};

struct call {
	const char *name;
	enum scope scope;
	CK_ULONG subject; /* slot or session handle as the application has it */

	struct control control;
	bool counted;
	struct slot *slot;
	struct partition *partition;
	CK_SESSION_HANDLE real; /* SoftHSM's handle of the session */
};

CK_RV call_begin(struct call *call);
CK_RV call_end(struct call *call, CK_RV answer);

/* link.c: what stands between a call and the device. */
CK_RV link_pass(struct call *call);
void link_reset(const struct control *control);
bool link_member_up(const struct control *control, unsigned member);
void sleep_ms(unsigned long ms);

/* log.c */
void log_call(const struct call *call, const char *answer);

/* handles.c: session and object handles as the application sees them. */
CK_ULONG handle_out(CK_ULONG real);
CK_ULONG handle_in(CK_ULONG shown);

/* life.c */
CK_RV life_initialize(struct call *call, CK_C_INITIALIZE_ARGS *args);
CK_RV life_finalize(struct call *call, void *reserved);
CK_RV life_info(CK_INFO *info);

/* slots.c */
CK_RV slots_build(const struct control *control);
struct slot *slot_find(CK_SLOT_ID id);
CK_RV slot_present(const struct call *call);
void slot_serial(const struct slot *slot, char serial[17]);
CK_RV slot_list(struct call *call, CK_BBOOL with_token, CK_SLOT_ID *list, CK_ULONG *count);
CK_RV slot_info(struct call *call, CK_SLOT_INFO *info);

/* tokens.c */
CK_RV token_info(struct call *call, CK_TOKEN_INFO *info);

/* Fills a field with the text and blanks. */
void pad(unsigned char *field, size_t room, const char *text);

/* sessions.c */
struct session *session_find(CK_SESSION_HANDLE shown);
CK_RV session_open(struct call *call, CK_FLAGS flags, CK_SESSION_HANDLE *session);
CK_RV session_close(struct call *call);
CK_RV session_close_all(struct call *call);
CK_RV session_info(struct call *call, CK_SESSION_INFO *info);

/* login.c */
/* Reports whether a role is logged in, and which. */
bool login_is(const struct partition *partition, CK_USER_TYPE *user);
CK_RV login(struct call *call, CK_USER_TYPE user, const unsigned char *pin, CK_ULONG length);
CK_RV logout(struct call *call);
CK_RV set_pin(struct call *call, const unsigned char *old, CK_ULONG old_length, const unsigned char *new,
	      CK_ULONG new_length);
CK_RV init_pin(struct call *call, const unsigned char *pin, CK_ULONG length);

/* policy.c: whether the partition and the role allow a change. */
bool policy_on(unsigned number);
CK_RV policy_change(const struct call *call, bool on_token);
/* The same for a new object, within the limit; policy_made goes with it. */
CK_RV policy_make(const struct call *call, bool on_token);
void policy_made(void);

/* objects.c */
CK_RV object_create(struct call *call, CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *object);
CK_RV object_copy(struct call *call, CK_OBJECT_HANDLE from, CK_ATTRIBUTE *template, CK_ULONG count,
		  CK_OBJECT_HANDLE *object);
CK_RV object_destroy(struct call *call, CK_OBJECT_HANDLE object);
CK_RV object_find(struct call *call, CK_OBJECT_HANDLE *objects, CK_ULONG room, CK_ULONG *count);
CK_RV key_generate(struct call *call, CK_MECHANISM *mechanism, CK_ATTRIBUTE *template, CK_ULONG count,
		   CK_OBJECT_HANDLE *key);
CK_RV key_pair_generate(struct call *call, CK_MECHANISM *mechanism, CK_ATTRIBUTE *public, CK_ULONG public_count,
			CK_ATTRIBUTE *private, CK_ULONG private_count, CK_OBJECT_HANDLE *public_key,
			CK_OBJECT_HANDLE *private_key);
CK_RV key_unwrap(struct call *call, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key, unsigned char *wrapped,
		 CK_ULONG length, CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *unwrapped);
CK_RV key_derive(struct call *call, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE base, CK_ATTRIBUTE *template,
		 CK_ULONG count, CK_OBJECT_HANDLE *key);

/* attributes.c */
struct template {
	CK_ATTRIBUTE *standard, *vendor;
	CK_ULONG standard_count, vendor_count;
};
bool template_split(struct template *split, const CK_ATTRIBUTE *attributes, CK_ULONG count);
void template_free(struct template *split);
bool template_bool(const CK_ATTRIBUTE *attributes, CK_ULONG count, CK_ATTRIBUTE_TYPE type, bool otherwise);
bool template_has(const CK_ATTRIBUTE *attributes, CK_ULONG count, CK_ATTRIBUTE_TYPE type);
CK_ULONG template_ulong(const CK_ATTRIBUTE *attributes, CK_ULONG count, CK_ATTRIBUTE_TYPE type);
CK_RV attribute_get(struct call *call, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *attributes, CK_ULONG count);
CK_RV attribute_set(struct call *call, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *attributes, CK_ULONG count);
/* Stores the vendor attributes of an object that was just made. */
CK_RV attribute_keep(const struct call *call, CK_OBJECT_HANDLE real, const struct template *split);

/* identity.c: what Luna would know an object by. */
void identity_ouid(const struct call *call, CK_OBJECT_HANDLE real, unsigned char ouid[OUID_BYTES]);
void identity_fingerprint(const struct call *call, CK_OBJECT_HANDLE real, unsigned char print[FINGERPRINT_BYTES]);
CK_ULONG identity_class(const struct call *call, CK_OBJECT_HANDLE real);

/* wrap.c */
CK_RV key_wrap(struct call *call, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE wrapping, CK_OBJECT_HANDLE key,
	       unsigned char *wrapped, CK_ULONG *length);

/* mechanisms.c */
CK_RV mechanism_list(struct call *call, CK_MECHANISM_TYPE *list, CK_ULONG *count);
CK_RV mechanism_info(struct call *call, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info);
/* Reports whether FIPS mode refuses to encrypt, decrypt, wrap or unwrap with it. */
CK_RV mechanism_allowed(const CK_MECHANISM *mechanism);
/* Returns the mechanism in SoftHSM's words. */
CK_MECHANISM mechanism_real(const CK_MECHANISM *mechanism);

#endif
