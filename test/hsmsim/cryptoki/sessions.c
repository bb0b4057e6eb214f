#include "sim.h"

#include <stdlib.h>

/* Called with the lock held, as is every function here without a call. */
struct session *session_find(CK_SESSION_HANDLE shown)
{
	CK_SESSION_HANDLE real = handle_in(shown);
	for (unsigned long i = 0; real != 0 && i < sim.session_count; i++)
		if (sim.sessions[i].real == real)
			return &sim.sessions[i];
	return NULL;
}

static bool make_room(void)
{
	if (sim.session_count < sim.session_room)
		return true;
	unsigned long room = sim.session_room > 0 ? 2 * sim.session_room : 64;
	struct session *more = realloc(sim.sessions, room * sizeof *more);
	if (more == NULL)
		return false;
	sim.sessions = more;
	sim.session_room = room;
	return true;
}

static CK_RV open_locked(struct call *call, CK_FLAGS flags, CK_SESSION_HANDLE *session)
{
	struct partition *partition = call->partition;
	if (sim.config.max_sessions > 0 && partition->sessions >= sim.config.max_sessions)
		return CKR_SESSION_COUNT;
	if (!make_room())
		return CKR_HOST_MEMORY;
	CK_SESSION_HANDLE real;
	CK_RV answer = sim.real->C_OpenSession(partition->real, flags, NULL, NULL, &real);
	if (answer != CKR_OK)
		return answer;
	sim.sessions[sim.session_count++] =
		(struct session){.real = real, .slot = call->slot, .writes = (flags & CKF_RW_SESSION) != 0};
	partition->sessions++;
	*session = handle_out(real);
	return CKR_OK;
}

CK_RV session_open(struct call *call, CK_FLAGS flags, CK_SESSION_HANDLE *session)
{
	CK_RV answer = slot_present(call);
	if (answer != CKR_OK)
		return answer;
	if (session == NULL)
		return CKR_ARGUMENTS_BAD;
	pthread_mutex_lock(&sim.lock);
	answer = open_locked(call, flags, session);
	pthread_mutex_unlock(&sim.lock);
	return answer;
}

/* SoftHSM logs out with its last session, so the simulator's own goes too. */
static CK_RV close_one(struct session *session)
{
	struct partition *partition = session->slot->partition;
	CK_RV answer = sim.real->C_CloseSession(session->real);
	*session = sim.sessions[--sim.session_count];
	if (--partition->sessions > 0)
		return answer;
	if (partition->keeper != 0)
		sim.real->C_CloseSession(partition->keeper);
	partition->keeper = partition->wrapper = 0;
	partition->logged_in = false;
	return answer;
}

CK_RV session_close(struct call *call)
{
	pthread_mutex_lock(&sim.lock);
	struct session *session = session_find(call->subject);
	CK_RV answer = session != NULL ? close_one(session) : CKR_SESSION_HANDLE_INVALID;
	pthread_mutex_unlock(&sim.lock);
	return answer;
}

CK_RV session_close_all(struct call *call)
{
	CK_RV answer = slot_present(call);
	if (answer != CKR_OK)
		return answer;
	pthread_mutex_lock(&sim.lock);
	for (unsigned long i = sim.session_count; i > 0; i--)
		if (sim.sessions[i - 1].slot == call->slot)
			close_one(&sim.sessions[i - 1]);
	pthread_mutex_unlock(&sim.lock);
	return CKR_OK;
}

CK_RV session_info(struct call *call, CK_SESSION_INFO *info)
{
	CK_RV answer = sim.real->C_GetSessionInfo(call->real, info);
	pthread_mutex_lock(&sim.lock);
	if (answer == CKR_OK)
		info->slotID = call->slot->id;
	pthread_mutex_unlock(&sim.lock);
	return answer;
}
