/* What the simulator is: a dress, and a file of options that change it. */
#ifndef CONFIG_H
#define CONFIG_H

#include <limits.h>
#include <stdbool.h>

#define MAX_POLICY 64

/* Every option with its meaning and default is in README.md. */
#define CONFIG_NUMBERS(X)                                                     \
	X(fips) X(sha1_oaep_only)                                             \
	X(firmware_major) X(firmware_minor) X(firmware_sub)                   \
	X(max_sessions) X(max_objects) X(object_limit_code)                   \
	X(locked_code) X(lost_code) X(offline_code)                           \
	X(modulus_bits_code) X(co_pin_expired) X(cu_pin_expired)              \
	X(latency_min_ms) X(latency_max_ms)                                   \
	X(receive_timeout_ms) X(failover_ms) X(jwt_refresh_ms)                \
	X(first_slot) X(empty_slots) X(ha_members) X(ha_only) X(cloud) X(banner)
#define CONFIG_TEXTS(X) \
	X(softhsm) X(model) X(co_pin) X(so_pin) X(cu_pin) X(lco_pin) X(ha_label) X(hybrid_label)

struct config {
#define MEMBER(name) unsigned long name;
	CONFIG_NUMBERS(MEMBER)
#undef MEMBER
#define MEMBER(name) char name[256];
	CONFIG_TEXTS(MEMBER)
#undef MEMBER
	/* By number; -1 for a policy that the device does not have. */
	int policy[MAX_POLICY], hsm_policy[MAX_POLICY];
	char token_dir[PATH_MAX]; /* of SoftHSM */
};

/* Reads HSMSIM_DRESS, then Chrystoki.conf, then HSMSIM_CONF or hsmsim.conf
 * beside it, then SoftHSM's own file. Says what is wrong on stderr and returns
 * false when the device must refuse to work. */
bool config_load(struct config *config);

#endif
