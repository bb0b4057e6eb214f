#include "sim.h"

bool policy_on(unsigned number)
{
	return sim.config.policy[number] == 1;
}

CK_RV policy_change(const struct call *call, bool on_token)
{
	if (!policy_on(POLICY_KEY_MANAGEMENT))
		return CKR_LUNA_OPERATION_NOT_ALLOWED;
	CK_USER_TYPE user;
	bool limited = login_is(call->partition, &user) &&
		       (user == CKU_LUNA_CRYPTO_USER || user == CKU_LUNA_LIMITED_CRYPTO_OFFICER);
	return on_token && limited ? CKR_LUNA_USER_NOT_AUTHORIZED : CKR_OK;
}

/* Counts in a session of its own, because a session searches once at a time. */
static CK_RV count_objects(const struct partition *partition, unsigned long *count)
{
	CK_BBOOL yes = CK_TRUE;
	CK_ATTRIBUTE stored = {CKA_TOKEN, &yes, sizeof yes};
	CK_SESSION_HANDLE session;
	CK_OBJECT_HANDLE object;
	CK_ULONG found;
	CK_RV answer = sim.real->C_OpenSession(partition->real, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session);
	if (answer != CKR_OK)
		return answer;
	*count = 0;
	answer = sim.real->C_FindObjectsInit(session, &stored, 1);
	while (answer == CKR_OK && (answer = sim.real->C_FindObjects(session, &object, 1, &found)) == CKR_OK && found == 1)
		++*count;
	sim.real->C_CloseSession(session);
	return answer;
}

CK_RV policy_make(const struct call *call, bool on_token)
{
	unsigned long count;
	pthread_mutex_lock(&sim.making);
	CK_RV answer = policy_change(call, on_token);
	if (answer != CKR_OK || sim.config.max_objects == 0)
		return answer;
	answer = count_objects(call->partition, &count);
	return answer == CKR_OK && count >= sim.config.max_objects ? sim.config.object_limit_code : answer;
}

void policy_made(void)
{
	pthread_mutex_unlock(&sim.making);
}
