#include "roles.h"

/* What CK_TOKEN_INFO tells of the roles. */
static CK_FLAGS role_flags(const struct partition *partition)
{
	struct roles roles;
	roles_begin(partition, &roles);
	CK_FLAGS flags = 0;
	unsigned long limit = (unsigned long)sim.config.policy[POLICY_MAX_FAILED_LOGINS];
	if (role_has_pin(&roles.role[SO]))
		flags |= CKF_TOKEN_INITIALIZED;
	if (role_has_pin(&roles.role[CO]))
		flags |= CKF_USER_PIN_INITIALIZED;
	if (roles.role[CO].failures > 0)
		flags |= CKF_USER_PIN_COUNT_LOW;
	if (roles.role[CO].failures + 1 == limit)
		flags |= CKF_USER_PIN_FINAL_TRY;
	if (role_locked(&roles, CO))
		flags |= CKF_USER_PIN_LOCKED;
	if (roles.role[CO].expired)
		flags |= CKF_USER_PIN_TO_BE_CHANGED;
	roles_end(partition, &roles);
	return flags;
}

static CK_ULONG writing_sessions(const struct partition *partition)
{
	CK_ULONG n = 0;
	for (unsigned long i = 0; i < sim.session_count; i++)
		n += sim.sessions[i].slot->partition == partition && sim.sessions[i].writes;
	return n;
}

/* The firmware's second and third number share one byte, tens and ones, as
 * pycryptoki's get_firmware_version takes them apart again. */
CK_RV token_info(struct call *call, CK_TOKEN_INFO *info)
{
	CK_RV answer = slot_present(call);
	if (answer != CKR_OK)
		return answer;
	if (info == NULL)
		return CKR_ARGUMENTS_BAD;
	struct partition *partition = call->partition;
	CK_ULONG most = sim.config.max_sessions > 0 ? sim.config.max_sessions : CK_EFFECTIVELY_INFINITE;
	*info = (CK_TOKEN_INFO){
		.flags = CKF_RNG | CKF_LOGIN_REQUIRED | role_flags(partition),
		.ulMaxSessionCount = most,
		.ulMaxRwSessionCount = most,
		.ulMaxPinLen = 255,
		.ulMinPinLen = 7,
		.ulTotalPublicMemory = CK_UNAVAILABLE_INFORMATION,
		.ulFreePublicMemory = CK_UNAVAILABLE_INFORMATION,
		.ulTotalPrivateMemory = CK_UNAVAILABLE_INFORMATION,
		.ulFreePrivateMemory = CK_UNAVAILABLE_INFORMATION,
		.firmwareVersion = {(unsigned char)sim.config.firmware_major,
				    (unsigned char)(sim.config.firmware_minor * 10 + sim.config.firmware_sub)},
	};
	pthread_mutex_lock(&sim.lock);
	info->ulSessionCount = partition->sessions;
	info->ulRwSessionCount = writing_sessions(partition);
	pthread_mutex_unlock(&sim.lock);

	char serial[17];
	bool group = call->slot->kind == HA_GROUP;
	slot_serial(call->slot, serial);
	pad(info->serialNumber, sizeof info->serialNumber, serial);
	pad(info->label, sizeof info->label,
	    group && sim.config.ha_label[0] != '\0' ? sim.config.ha_label : partition->label);
	pad(info->manufacturerID, sizeof info->manufacturerID, "SafeNet");
	pad(info->model, sizeof info->model, group ? "LunaVirtual" : partition->model);
	return CKR_OK;
}
