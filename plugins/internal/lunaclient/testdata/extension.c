/*
 * The functions beside PKCS#11 that a Luna client exports, with the answers
 * that the test expects. -D LACKS_HSM_POLICY leaves one function out, -D REFUSES
 * makes all of them fail.
 */
#ifdef REFUSES
#define END return 0x54
#else
#define END return 0
#endif

unsigned long CA_GetFirmwareVersion(unsigned long slot, unsigned long *major, unsigned long *minor, unsigned long *subminor)
{
	*major = slot;
	*minor = 7;
	*subminor = 1;
	END;
}

static unsigned long list(unsigned long n, const unsigned long *numbers, const unsigned long *settings,
	unsigned long *ids, unsigned long *id_count, unsigned long *values, unsigned long *value_count)
{
	if (*id_count < n || *value_count < n)
		return 0x150;
	for (unsigned long i = 0; i < n; i++) {
		ids[i] = numbers[i];
		values[i] = settings[i];
	}
	*id_count = *value_count = n;
	END;
}

#ifndef LACKS_HSM_POLICY
unsigned long CA_GetHSMPolicySet(unsigned long slot, unsigned long *ids, unsigned long *id_count, unsigned long *values, unsigned long *value_count)
{
	unsigned long numbers[] = { 6, 12, 15 }, settings[] = { 1, 0, 1 };
	return list(3, numbers, settings, ids, id_count, values, value_count);
}
#endif

unsigned long CA_GetTokenPolicies(unsigned long slot, unsigned long *ids, unsigned long *id_count, unsigned long *values, unsigned long *value_count)
{
	unsigned long numbers[] = { 43, 5, 11, 20, 99 }, settings[] = { 1, 1, 0, 10, 1 };
	return list(5, numbers, settings, ids, id_count, values, value_count);
}
