/*
 * Handles as the application sees them: large and without an order, as in
 * Thales' guide, so that nobody counts on small ones. Multiplication by an odd
 * number permutes the 32 bit numbers, so no table is needed. Each C_Initialize
 * shifts what is multiplied: SoftHSM counts from 1 again, and a handle from
 * before must not hit an object of now.
 */
#include "sim.h"

#include <stdint.h>

#define SPREAD  UINT32_C(0x9E3779B1)
#define INVERSE UINT32_C(244002641) /* SPREAD * INVERSE == 1 modulo 2^32 */

static uint32_t shift(void)
{
	return (uint32_t)sim.epoch << 24;
}

CK_ULONG handle_out(CK_ULONG real)
{
	return real == 0 ? 0 : (uint32_t)((uint32_t)real + shift()) * SPREAD;
}

CK_ULONG handle_in(CK_ULONG shown)
{
	if (shown == 0 || shown > UINT32_MAX)
		return 0;
	return (uint32_t)((uint32_t)shown * INVERSE - shift());
}
