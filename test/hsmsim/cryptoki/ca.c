/*
 * Thales' extension functions that a program may look up by name; luna.h says
 * where each is documented. They go through the same gate as PKCS#11 calls and
 * are in the call log. Our choice: a device that does not have what is asked
 * for answers CKR_FUNCTION_NOT_SUPPORTED, and so does a DPoD service for the
 * policies of an HSM that its tenant never sees.
 */
#include "sim.h"

#include <stdio.h>

#define EXPORT __attribute__((visibility("default")))

/* Numbers and values as two arrays; NULL for both asks how many there are. */
static CK_RV answer_policies(const int *policies, CK_ULONG *ids, CK_ULONG *id_count, CK_ULONG *values,
			     CK_ULONG *value_count)
{
	if (id_count == NULL || value_count == NULL || (ids == NULL) != (values == NULL))
		return CKR_ARGUMENTS_BAD;
	CK_ULONG n = 0, room = *id_count < *value_count ? *id_count : *value_count;
	for (CK_ULONG i = 0; i < MAX_POLICY; i++) {
		if (policies[i] < 0)
			continue;
		if (ids != NULL && n < room) {
			ids[n] = i;
			values[n] = (CK_ULONG)policies[i];
		}
		n++;
	}
	*id_count = *value_count = n;
	if (n == 0)
		return CKR_FUNCTION_NOT_SUPPORTED;
	return ids != NULL && n > room ? CKR_BUFFER_TOO_SMALL : CKR_OK;
}

EXPORT CK_RV CA_GetTokenPolicies(CK_SLOT_ID slot, CK_ULONG_PTR ids, CK_ULONG_PTR id_count, CK_ULONG_PTR values,
				 CK_ULONG_PTR value_count)
{
	struct call call = {.name = "CA_GetTokenPolicies", .scope = SLOT, .subject = slot};
	CK_RV answer = call_begin(&call);
	if (answer == CKR_OK)
		answer = slot_present(&call);
	if (answer == CKR_OK)
		answer = answer_policies(sim.config.policy, ids, id_count, values, value_count);
	return call_end(&call, answer);
}

EXPORT CK_RV CA_GetHSMPolicySet(CK_SLOT_ID slot, CK_ULONG_PTR ids, CK_ULONG_PTR id_count, CK_ULONG_PTR values,
				CK_ULONG_PTR value_count)
{
	struct call call = {.name = "CA_GetHSMPolicySet", .scope = SLOT, .subject = slot};
	CK_RV answer = call_begin(&call);
	if (answer == CKR_OK)
		answer = slot_present(&call);
	if (answer == CKR_OK)
		answer = answer_policies(sim.config.hsm_policy, ids, id_count, values, value_count);
	return call_end(&call, answer);
}

EXPORT CK_RV CA_GetFirmwareVersion(CK_SLOT_ID slot, CK_ULONG_PTR major, CK_ULONG_PTR minor, CK_ULONG_PTR sub_minor)
{
	struct call call = {.name = "CA_GetFirmwareVersion", .scope = SLOT, .subject = slot};
	CK_RV answer = call_begin(&call);
	if (answer == CKR_OK)
		answer = slot_present(&call);
	if (answer == CKR_OK && (major == NULL || minor == NULL || sub_minor == NULL))
		answer = CKR_ARGUMENTS_BAD;
	if (answer == CKR_OK) {
		*major = sim.config.firmware_major;
		*minor = sim.config.firmware_minor;
		*sub_minor = sim.config.firmware_sub;
	}
	return call_end(&call, answer);
}

static CK_RV answer_group(const struct call *call, CK_HA_STATUS *status)
{
	if (call->slot->kind != HA_GROUP)
		return CKR_FUNCTION_NOT_SUPPORTED;
	if (status == NULL)
		return CKR_ARGUMENTS_BAD;
	char serial[17];
	*status = (CK_HA_STATUS){.listSize = 0};
	slot_serial(call->slot, serial);
	snprintf((char *)status->groupSerial, sizeof status->groupSerial, "%s", serial);
	for (unsigned member = 1; member <= sim.config.ha_members && member <= CK_HA_MAX_MEMBERS; member++) {
		struct slot slot = {.kind = HA_MEMBER, .partition = call->partition, .member = member};
		CK_HA_MEMBER *entry = &status->memberList[status->listSize++];
		slot_serial(&slot, serial);
		snprintf((char *)entry->memberSerial, sizeof entry->memberSerial, "%s", serial);
		entry->memberStatus = link_member_up(&call->control, member) ? CKR_OK : CKR_DEVICE_ERROR;
	}
	return CKR_OK;
}

EXPORT CK_RV CA_GetHAState(CK_SLOT_ID slot, CK_HA_STATUS *status)
{
	struct call call = {.name = "CA_GetHAState", .scope = SLOT, .subject = slot};
	CK_RV answer = call_begin(&call);
	if (answer == CKR_OK)
		answer = answer_group(&call, status);
	return call_end(&call, answer);
}
