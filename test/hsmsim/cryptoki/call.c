/* What happens around each call: the log, the faults that a test ordered, and
 * the look-up of the slot or session that the call names. */
#include "sim.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static void crash_or_hang(struct call *call)
{
	if (control_take(&call->control, "crash", call->name, NULL)) {
		log_call(call, "crash");
		signal(SIGSEGV, SIG_DFL); /* the Go runtime would make an exit status of it */
		raise(SIGSEGV);
	}
	if (!control_has(&call->control, "hang", call->name))
		return;
	log_call(call, "hang");
	while (control_has(&call->control, "hang", call->name)) {
		sleep_ms(5);
		control_free(&call->control);
		control_read(&call->control);
	}
}

static CK_RV enter(struct call *call)
{
	pthread_mutex_lock(&sim.lock);
	bool ready = sim.initialised;
	if (ready) {
		sim.calls++;
		call->counted = true;
	}
	pthread_mutex_unlock(&sim.lock);
	return ready ? CKR_OK : CKR_CRYPTOKI_NOT_INITIALIZED;
}

static CK_RV look_up(struct call *call)
{
	CK_RV answer = CKR_OK;
	pthread_mutex_lock(&sim.lock);
	if (call->scope == SLOT) {
		call->slot = slot_find(call->subject);
		if (call->slot == NULL)
			answer = CKR_SLOT_ID_INVALID;
	} else {
		struct session *session = session_find(call->subject);
		if (session == NULL) {
			answer = CKR_SESSION_HANDLE_INVALID;
		} else {
			call->slot = session->slot;
			call->real = session->real;
		}
	}
	if (call->slot != NULL)
		call->partition = call->slot->partition;
	if (call->scope == ROLE && call->partition != NULL && call->partition->logged_in &&
	    call->partition->pin_expired)
		answer = CKR_PIN_EXPIRED;
	pthread_mutex_unlock(&sim.lock);
	return answer;
}

CK_RV call_begin(struct call *call)
{
	CK_RV answer = CKR_OK;
	control_read(&call->control);
	if (call->scope != LIFE)
		answer = enter(call);
	crash_or_hang(call);
	if (answer == CKR_OK && control_take(&call->control, "inject", call->name, &answer) && answer == CKR_OK)
		answer = CKR_DEVICE_ERROR;
	if (answer != CKR_OK || call->scope == LIFE || call->scope == LOCAL)
		return answer;
	answer = link_pass(call);
	return answer == CKR_OK ? look_up(call) : answer;
}

CK_RV call_end(struct call *call, CK_RV answer)
{
	CK_RV instead = CKR_DEVICE_ERROR;
	if (answer == CKR_OK && control_take(&call->control, "lose", call->name, &instead))
		answer = instead;
	if (call->counted) {
		pthread_mutex_lock(&sim.lock);
		sim.calls--;
		pthread_mutex_unlock(&sim.lock);
	}
	char code[24];
	snprintf(code, sizeof code, "0x%08lX", answer);
	log_call(call, code);
	control_free(&call->control);
	return answer;
}
