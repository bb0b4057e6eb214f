#include "sim.h"

#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "chrystoki.h"

/* SoftHSM always locks with the operating system's primitives: the threads are
 * the application's whatever it says in its arguments. */
static CK_RV start(const struct control *control, CK_C_INITIALIZE_ARGS *args)
{
	CK_C_INITIALIZE_ARGS own = {.flags = CKF_OS_LOCKING_OK};
	if (args != NULL && args->pReserved != NULL)
		return CKR_ARGUMENTS_BAD;
	if (sim.real == NULL || !config_load(&sim.config))
		return CKR_GENERAL_ERROR;
	if (sim.emulation_key == NULL && (sim.emulation_key = EVP_RSA_gen(2048)) == NULL)
		return CKR_HOST_MEMORY;
	CK_RV answer = sim.real->C_Initialize(&own);
	if (answer != CKR_OK)
		return answer;
	link_reset(control);
	sim.no_cloud = sim.config.cloud && !chrystoki_has_cloud();
	answer = slots_build(control);
	if (answer != CKR_OK)
		sim.real->C_Finalize(NULL);
	return answer;
}

CK_RV life_initialize(struct call *call, CK_C_INITIALIZE_ARGS *args)
{
	pthread_mutex_lock(&sim.lock);
	CK_RV answer = CKR_CRYPTOKI_ALREADY_INITIALIZED;
	if (!sim.initialised) {
		answer = start(&call->control, args);
		sim.initialised = answer == CKR_OK;
		sim.epoch++;
	}
	pthread_mutex_unlock(&sim.lock);
	return answer;
}

/* PKCS#11 leaves C_Finalize under a running call undefined and SoftHSM crashes
 * now and then; here it always ends the process and says why. */
CK_RV life_finalize(struct call *call, void *reserved)
{
	pthread_mutex_lock(&sim.lock);
	if (sim.calls > 0) {
		log_call(call, "abort");
		fprintf(stderr, "hsmsim: C_Finalize while %lu calls are in the library\n", sim.calls);
		signal(SIGABRT, SIG_DFL); /* the Go runtime would make an exit status of it */
		abort();
	}
	CK_RV answer = CKR_CRYPTOKI_NOT_INITIALIZED;
	if (sim.initialised && (answer = sim.real->C_Finalize(reserved)) == CKR_OK) {
		sim.initialised = false;
		free(sim.sessions);
		sim.sessions = NULL;
		sim.session_count = sim.session_room = 0;
	}
	pthread_mutex_unlock(&sim.lock);
	return answer;
}

CK_RV life_info(CK_INFO *info)
{
	if (info == NULL)
		return CKR_ARGUMENTS_BAD;
	*info = (CK_INFO){.cryptokiVersion = {2, 20}, .libraryVersion = {10, 9}};
	pad(info->manufacturerID, sizeof info->manufacturerID, "SafeNet");
	pad(info->libraryDescription, sizeof info->libraryDescription, "Chrystoki");
	return CKR_OK;
}
