/*
 * What stands between a call and the device: the time it takes, and the loss of
 * the link. A link that is lost stays lost for this process until C_Finalize,
 * even when the device is back (documented for the loss of all HA members, and
 * assumed for a single appliance).
 */
#include "sim.h"

#include <errno.h>
#include <time.h>

void sleep_ms(unsigned long ms)
{
	struct timespec left = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		;
}

static unsigned long latency(void)
{
	unsigned long low = sim.config.latency_min_ms, high = sim.config.latency_max_ms;
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return high > low ? low + (unsigned long)now.tv_nsec / 1000 % (high - low + 1) : low;
}

bool link_member_up(const struct control *control, unsigned member)
{
	return (control_number(control, "members_down") >> (member - 1) & 1) == 0;
}

static bool is_down(const struct control *control)
{
	if (control_has(control, "link", "down"))
		return true;
	for (unsigned member = 1; member <= sim.config.ha_members; member++)
		if (link_member_up(control, member))
			return false;
	return sim.config.ha_members > 0;
}

static void lose(CK_RV sessions, CK_RV slots)
{
	pthread_mutex_lock(&sim.lock);
	if (!sim.lost) {
		sim.lost = true;
		sim.lost_sessions = sessions;
		sim.lost_slots = slots;
	}
	pthread_mutex_unlock(&sim.lock);
}

/* Called by C_Initialize: what is down then is lost from the start. */
void link_reset(const struct control *control)
{
	sim.lost = is_down(control);
	sim.lost_sessions = sim.config.lost_code;
	sim.lost_slots = CKR_TOKEN_NOT_PRESENT;
	sim.drops = control_number(control, "drops");
	sim.members_down = control_number(control, "members_down");
}

/* The call that finds the link down waits as long as the client does before it
 * believes it; one after a loss that nobody noticed is told at once. */
static CK_RV check_network(struct call *call)
{
	bool down = is_down(&call->control);
	if (down)
		sleep_ms(sim.config.receive_timeout_ms);
	if (!down && control_number(&call->control, "drops") == sim.drops)
		return CKR_OK;
	lose(sim.config.lost_code, CKR_TOKEN_NOT_PRESENT);
	return CKR_DEVICE_ERROR;
}

/* The session of an appliance that was idle too long. */
static CK_RV check_idle(struct call *call)
{
	if (!control_take(&call->control, "idle_drop", call->name, NULL))
		return CKR_OK;
	sleep_ms(sim.config.receive_timeout_ms);
	lose(CKR_CRYPTOKI_NOT_INITIALIZED, CKR_CRYPTOKI_NOT_INITIALIZED);
	return CKR_CRYPTOKI_NOT_INITIALIZED;
}

/* The token of the identity service that lets a DPoD client in. */
static CK_RV check_token(struct call *call)
{
	if (!sim.config.cloud)
		return CKR_OK;
	if (control_has(&call->control, "jwt", "offline")) {
		sleep_ms(sim.config.receive_timeout_ms);
		lose(sim.config.offline_code, sim.config.offline_code);
		return sim.config.offline_code;
	}
	if (control_take(&call->control, "jwt", "expired", NULL))
		sleep_ms(sim.config.jwt_refresh_ms);
	return CKR_OK;
}

/* Failover to another member takes time and no call fails. */
static void check_members(struct call *call)
{
	unsigned long down = control_number(&call->control, "members_down");
	pthread_mutex_lock(&sim.lock);
	bool failover = (down & ~sim.members_down) != 0;
	sim.members_down = down;
	pthread_mutex_unlock(&sim.lock);
	if (failover)
		sleep_ms(sim.config.failover_ms);
}

CK_RV link_pass(struct call *call)
{
	pthread_mutex_lock(&sim.lock);
	CK_RV answer = CKR_OK;
	if (sim.lost)
		answer = call->scope == SLOT ? sim.lost_slots : sim.lost_sessions;
	pthread_mutex_unlock(&sim.lock);
	if (answer != CKR_OK)
		return answer;

	unsigned long delay = latency() + control_number(&call->control, "slow");
	if (delay > 0) {
		sleep_ms(delay);
		control_free(&call->control);
		control_read(&call->control);
	}
	if ((answer = check_network(call)) == CKR_OK && (answer = check_idle(call)) == CKR_OK)
		answer = check_token(call);
	if (answer == CKR_OK)
		check_members(call);
	return answer;
}
