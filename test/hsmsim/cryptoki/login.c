#include "roles.h"

#include <string.h>

enum { PIN_MIN = 7, PIN_MAX = 255 };

static int role_of(CK_USER_TYPE user)
{
	switch (user) {
	case CKU_SO:
		return SO;
	case CKU_USER:
		return CO;
	case CKU_LUNA_CRYPTO_USER:
		return CU;
	case CKU_LUNA_LIMITED_CRYPTO_OFFICER:
		return LCO;
	default:
		return ROLES;
	}
}

bool login_is(const struct partition *partition, CK_USER_TYPE *user)
{
	pthread_mutex_lock(&sim.lock);
	bool logged_in = partition->logged_in;
	*user = partition->user;
	pthread_mutex_unlock(&sim.lock);
	return logged_in;
}

/* SoftHSM's own PINs never change, whatever the roles' do. */
static CK_RV real_login(CK_SESSION_HANDLE session, int which)
{
	const char *pin = which == SO ? sim.config.so_pin : sim.config.co_pin;
	return sim.real->C_Login(session, which == SO ? CKU_SO : CKU_USER, (unsigned char *)pin, strlen(pin));
}

/* The tenth wrong PIN of the security officer: nothing of the partition is left. */
static void zeroize(struct call *call, struct roles *roles)
{
	CK_OBJECT_HANDLE object;
	CK_ULONG found = 0;
	if (real_login(call->real, CO) == CKR_OK) {
		do {
			if (sim.real->C_FindObjectsInit(call->real, NULL, 0) != CKR_OK)
				break;
			if (sim.real->C_FindObjects(call->real, &object, 1, &found) != CKR_OK)
				found = 0;
			sim.real->C_FindObjectsFinal(call->real);
		} while (found == 1 && sim.real->C_DestroyObject(call->real, object) == CKR_OK);
		sim.real->C_Logout(call->real);
	}
	pthread_mutex_lock(&sim.lock);
	call->partition->wrapper = 0; /* destroyed with the rest */
	pthread_mutex_unlock(&sim.lock);
	for (int i = 0; i < ROLES; i++)
		roles->role[i] = (struct role){.hash = "-"};
}

/* Compares a PIN and counts: the answer is that of C_Login before SoftHSM is asked. */
static CK_RV judge(struct call *call, struct roles *roles, int which, const unsigned char *pin, CK_ULONG length)
{
	if (!role_has_pin(&roles->role[which]))
		return CKR_USER_PIN_NOT_INITIALIZED;
	if (role_locked(roles, which))
		return sim.config.locked_code;
	if (role_matches(call->partition, roles, which, pin, length)) {
		roles->role[which].failures = 0;
		return CKR_OK;
	}
	roles->role[which].failures++;
	if (!role_locked(roles, which))
		return CKR_PIN_INCORRECT;
	if (which != SO)
		return sim.config.locked_code;
	zeroize(call, roles);
	return CKR_LUNA_SO_LOGIN_FAILURE_THRESHOLD;
}

CK_RV login(struct call *call, CK_USER_TYPE user, const unsigned char *pin, CK_ULONG length)
{
	struct partition *partition = call->partition;
	int which = role_of(user);
	if (which == ROLES)
		return CKR_USER_TYPE_INVALID;
	struct roles roles;
	roles_begin(partition, &roles);
	CK_RV answer;
	CK_USER_TYPE present;
	if (login_is(partition, &present))
		answer = present == user ? CKR_USER_ALREADY_LOGGED_IN : CKR_USER_ANOTHER_ALREADY_LOGGED_IN;
	else
		answer = judge(call, &roles, which, pin, length);
	if (answer == CKR_OK)
		answer = real_login(call->real, which);
	if (answer == CKR_OK) {
		pthread_mutex_lock(&sim.lock);
		partition->user = user;
		partition->logged_in = true;
		partition->pin_expired = roles.role[which].expired;
		pthread_mutex_unlock(&sim.lock);
	}
	roles_end(partition, &roles);
	return answer;
}

CK_RV logout(struct call *call)
{
	pthread_mutex_lock(&sim.lock);
	CK_RV answer = CKR_USER_NOT_LOGGED_IN;
	if (call->partition->logged_in) {
		answer = sim.real->C_Logout(call->real);
		call->partition->logged_in = false;
	}
	pthread_mutex_unlock(&sim.lock);
	return answer;
}

static bool writes(const struct call *call)
{
	pthread_mutex_lock(&sim.lock);
	const struct session *session = session_find(call->subject);
	bool may = session != NULL && session->writes;
	pthread_mutex_unlock(&sim.lock);
	return may;
}

/* Changes the PIN of the role that is logged in, else the Crypto Officer's. */
CK_RV set_pin(struct call *call, const unsigned char *old, CK_ULONG old_length, const unsigned char *new,
	      CK_ULONG new_length)
{
	struct partition *partition = call->partition;
	if (!writes(call))
		return CKR_SESSION_READ_ONLY;
	if (new == NULL || new_length < PIN_MIN || new_length > PIN_MAX)
		return CKR_PIN_LEN_RANGE;
	CK_USER_TYPE user;
	int which = login_is(partition, &user) ? role_of(user) : CO;
	struct roles roles;
	roles_begin(partition, &roles);
	CK_RV answer = judge(call, &roles, which, old, old_length);
	if (answer == CKR_OK) {
		role_set_pin(partition, &roles, which, new, new_length);
		pthread_mutex_lock(&sim.lock);
		partition->pin_expired = false;
		pthread_mutex_unlock(&sim.lock);
	}
	roles_end(partition, &roles);
	return answer;
}

/* The security officer gives the Crypto Officer a PIN that has to be changed. */
CK_RV init_pin(struct call *call, const unsigned char *pin, CK_ULONG length)
{
	struct partition *partition = call->partition;
	CK_USER_TYPE user;
	if (!login_is(partition, &user))
		return CKR_USER_NOT_LOGGED_IN;
	if (user != CKU_SO)
		return CKR_LUNA_OPERATION_NOT_ALLOWED;
	if (pin == NULL || length < PIN_MIN || length > PIN_MAX)
		return CKR_PIN_LEN_RANGE;
	struct roles roles;
	roles_begin(partition, &roles);
	CK_RV answer = CKR_LUNA_OPERATION_NOT_ALLOWED;
	if (!role_locked(&roles, CO) || sim.config.hsm_policy[HSM_POLICY_SO_RESETS_PIN] == 1) {
		role_set_pin(partition, &roles, CO, pin, length);
		roles.role[CO].expired = true;
		answer = CKR_OK;
	}
	roles_end(partition, &roles);
	return answer;
}
