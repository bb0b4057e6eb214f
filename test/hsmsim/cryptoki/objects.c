#include "sim.h"

#include <stdlib.h>
#include <string.h>

/* Ends the making of an object: its vendor attributes are kept apart, and the
 * application learns its handle. */
static CK_RV finish(const struct call *call, CK_RV answer, CK_OBJECT_HANDLE real, const struct template *split,
		    CK_OBJECT_HANDLE *shown)
{
	if (answer == CKR_OK)
		answer = attribute_keep(call, real, split);
	if (answer == CKR_OK)
		*shown = handle_out(real);
	return answer;
}

static void drop(struct template *split, CK_ATTRIBUTE_TYPE type)
{
	CK_ULONG kept = 0;
	for (CK_ULONG i = 0; i < split->standard_count; i++)
		if (split->standard[i].type != type)
			split->standard[kept++] = split->standard[i];
	split->standard_count = kept;
}

static bool has_exponent_3(const CK_ATTRIBUTE *attributes, CK_ULONG count)
{
	for (CK_ULONG i = 0; i < count; i++) {
		const unsigned char *value = attributes[i].pValue;
		CK_ULONG length = attributes[i].ulValueLen;
		if (attributes[i].type != CKA_PUBLIC_EXPONENT)
			continue;
		while (length > 1 && *value == 0)
			value++, length--;
		return length == 1 && *value == 3;
	}
	return false;
}

/* Luna takes data, certificates and public keys in clear, no other keys; and a
 * public key wraps only when it was made to. */
static CK_RV fit_for_import(struct template *split, CK_BBOOL *no)
{
	CK_ULONG class = template_ulong(split->standard, split->standard_count, CKA_CLASS);
	if (class == CKO_SECRET_KEY || class == CKO_PRIVATE_KEY)
		return CKR_TEMPLATE_INCONSISTENT;
	if (class != CKO_PUBLIC_KEY)
		return CKR_OK;
	if (sim.config.fips && has_exponent_3(split->standard, split->standard_count))
		return CKR_ATTRIBUTE_VALUE_INVALID;
	if (template_has(split->standard, split->standard_count, CKA_MODULUS_BITS) && sim.config.modulus_bits_code != 0)
		return sim.config.modulus_bits_code;
	drop(split, CKA_MODULUS_BITS);
	if (!template_has(split->standard, split->standard_count, CKA_WRAP))
		split->standard[split->standard_count++] = (CK_ATTRIBUTE){CKA_WRAP, no, sizeof *no};
	return CKR_OK;
}

CK_RV object_create(struct call *call, CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *object)
{
	struct template split;
	CK_OBJECT_HANDLE real = 0;
	CK_BBOOL no = CK_FALSE;
	if (object == NULL || !template_split(&split, template, count))
		return CKR_ARGUMENTS_BAD;
	CK_RV answer = fit_for_import(&split, &no);
	if (answer == CKR_OK) {
		answer = policy_make(call, template_bool(template, count, CKA_TOKEN, false));
		if (answer == CKR_OK)
			answer = sim.real->C_CreateObject(call->real, split.standard, split.standard_count, &real);
		policy_made();
	}
	answer = finish(call, answer, real, &split, object);
	template_free(&split);
	return answer;
}

CK_RV object_copy(struct call *call, CK_OBJECT_HANDLE from, CK_ATTRIBUTE *template, CK_ULONG count,
		  CK_OBJECT_HANDLE *object)
{
	struct template split;
	CK_OBJECT_HANDLE real = 0;
	if (object == NULL || !template_split(&split, template, count))
		return CKR_ARGUMENTS_BAD;
	CK_RV answer = policy_make(call, true);
	if (answer == CKR_OK)
		answer = sim.real->C_CopyObject(call->real, handle_in(from), split.standard, split.standard_count, &real);
	policy_made();
	answer = finish(call, answer, real, &split, object);
	template_free(&split);
	return answer;
}

CK_RV object_destroy(struct call *call, CK_OBJECT_HANDLE object)
{
	CK_OBJECT_HANDLE real = handle_in(object);
	CK_BBOOL on_token = CK_FALSE;
	CK_ATTRIBUTE where = {CKA_TOKEN, &on_token, sizeof on_token};
	CK_RV answer = sim.real->C_GetAttributeValue(call->real, real, &where, 1);
	if (answer == CKR_OK)
		answer = policy_change(call, on_token == CK_TRUE);
	return answer == CKR_OK ? sim.real->C_DestroyObject(call->real, real) : answer;
}

/* An answer of no objects ends a search, so one that has only the simulator's
 * own key is asked again. */
CK_RV object_find(struct call *call, CK_OBJECT_HANDLE *objects, CK_ULONG room, CK_ULONG *count)
{
	CK_ULONG found, kept;
	pthread_mutex_lock(&sim.lock);
	CK_OBJECT_HANDLE own = call->partition->wrapper;
	pthread_mutex_unlock(&sim.lock);
	do {
		CK_RV answer = sim.real->C_FindObjects(call->real, objects, room, &found);
		if (answer != CKR_OK)
			return answer;
		kept = 0;
		for (CK_ULONG i = 0; i < found; i++)
			if (objects[i] != own)
				objects[kept++] = handle_out(objects[i]);
	} while (found > 0 && kept == 0);
	*count = kept;
	return CKR_OK;
}

CK_RV key_generate(struct call *call, CK_MECHANISM *mechanism, CK_ATTRIBUTE *template, CK_ULONG count,
		   CK_OBJECT_HANDLE *key)
{
	struct template split;
	CK_OBJECT_HANDLE real = 0;
	if (key == NULL || !template_split(&split, template, count))
		return CKR_ARGUMENTS_BAD;
	CK_RV answer = policy_make(call, true);
	if (answer == CKR_OK)
		answer = sim.real->C_GenerateKey(call->real, mechanism, split.standard, split.standard_count, &real);
	policy_made();
	answer = finish(call, answer, real, &split, key);
	template_free(&split);
	return answer;
}

CK_RV key_pair_generate(struct call *call, CK_MECHANISM *mechanism, CK_ATTRIBUTE *public, CK_ULONG public_count,
			CK_ATTRIBUTE *private, CK_ULONG private_count, CK_OBJECT_HANDLE *public_key,
			CK_OBJECT_HANDLE *private_key)
{
	/* Private keys never wrap on Luna. */
	if (template_bool(private, private_count, CKA_WRAP, false))
		return CKR_TEMPLATE_INCONSISTENT;
	CK_OBJECT_HANDLE real_public, real_private;
	CK_RV answer = policy_make(call, true);
	if (answer == CKR_OK)
		answer = sim.real->C_GenerateKeyPair(call->real, mechanism, public, public_count, private,
						     private_count, &real_public, &real_private);
	policy_made();
	if (answer != CKR_OK)
		return answer;
	*public_key = handle_out(real_public);
	*private_key = handle_out(real_private);
	return CKR_OK;
}

CK_RV key_unwrap(struct call *call, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key, unsigned char *wrapped,
		 CK_ULONG length, CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *unwrapped)
{
	struct template split;
	CK_OBJECT_HANDLE real = 0;
	CK_RV answer = mechanism_allowed(mechanism);
	if (answer != CKR_OK)
		return answer;
	if (unwrapped == NULL || !template_split(&split, template, count))
		return CKR_ARGUMENTS_BAD;
	CK_MECHANISM known = mechanism_real(mechanism);
	bool wraps = template_ulong(template, count, CKA_CLASS) == CKO_PRIVATE_KEY &&
		     template_bool(template, count, CKA_WRAP, false);
	answer = policy_make(call, true);
	if (answer == CKR_OK && wraps)
		answer = CKR_TEMPLATE_INCONSISTENT;
	if (answer == CKR_OK)
		answer = sim.real->C_UnwrapKey(call->real, &known, handle_in(key), wrapped, length, split.standard,
					       split.standard_count, &real);
	policy_made();
	answer = finish(call, answer, real, &split, unwrapped);
	template_free(&split);
	return answer;
}

CK_RV key_derive(struct call *call, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE base, CK_ATTRIBUTE *template,
		 CK_ULONG count, CK_OBJECT_HANDLE *key)
{
	struct template split;
	CK_OBJECT_HANDLE real = 0;
	if (key == NULL || !template_split(&split, template, count))
		return CKR_ARGUMENTS_BAD;
	CK_RV answer = policy_make(call, true);
	if (answer == CKR_OK)
		answer = sim.real->C_DeriveKey(call->real, mechanism, handle_in(base), split.standard,
					       split.standard_count, &real);
	policy_made();
	answer = finish(call, answer, real, &split, key);
	template_free(&split);
	return answer;
}
