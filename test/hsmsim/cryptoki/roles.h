/*
 * The roles of a partition: their PINs and how often each was missed.
 *
 * SoftHSM has one user and never locks, so the simulator judges PINs itself and
 * keeps what it knows in a file beside the tokens, TOKENDIR.SERIAL.roles, where
 * it outlives the process. A line is `role failures expired hash`, in the order
 * so, co, cu, lco; the hash is SHA-256 of serial, role and PIN, or - for a role
 * without a PIN.
 */
#ifndef ROLES_H
#define ROLES_H

#include <stdbool.h>

#include "sim.h"

enum { SO, CO, CU, LCO, ROLES };

struct role {
	unsigned long failures;
	bool expired;
	char hash[65];
};

struct roles {
	int lock;
	char *text; /* of the file, NULL when there is none yet */
	struct role role[ROLES];
};

/* Reads the file, or makes the roles from the options when there is none yet.
 * Nobody else can change them until roles_end. */
void roles_begin(const struct partition *partition, struct roles *roles);
/* Writes the roles back if they changed. */
void roles_end(const struct partition *partition, struct roles *roles);

bool role_has_pin(const struct role *role);
bool role_locked(const struct roles *roles, int which);
bool role_matches(const struct partition *partition, const struct roles *roles, int which, const unsigned char *pin,
		  CK_ULONG length);
void role_set_pin(const struct partition *partition, struct roles *roles, int which, const unsigned char *pin,
		  CK_ULONG length);

#endif
