#include "sim.h"

static const CK_MECHANISM_TYPE added[] = {CKM_LUNA_AES_KW, CKM_LUNA_AES_KWP};

enum { ADDED = sizeof added / sizeof *added };

CK_RV mechanism_allowed(const CK_MECHANISM *mechanism)
{
	if (mechanism == NULL)
		return CKR_ARGUMENTS_BAD;
	return sim.config.fips && mechanism->mechanism == CKM_RSA_PKCS ? CKR_MECHANISM_INVALID : CKR_OK;
}

CK_MECHANISM mechanism_real(const CK_MECHANISM *mechanism)
{
	switch (mechanism->mechanism) {
	case CKM_LUNA_AES_KW:
		return (CK_MECHANISM){.mechanism = CKM_AES_KEY_WRAP};
	case CKM_LUNA_AES_KWP:
		return (CK_MECHANISM){.mechanism = CKM_AES_KEY_WRAP_PAD};
	default:
		return *mechanism;
	}
}

/* A list of NULL is answered with CKR_BUFFER_TOO_SMALL, as Luna does and the
 * standard does not. */
CK_RV mechanism_list(struct call *call, CK_MECHANISM_TYPE *list, CK_ULONG *count)
{
	CK_RV answer = slot_present(call);
	if (answer != CKR_OK)
		return answer;
	if (count == NULL)
		return CKR_ARGUMENTS_BAD;
	CK_ULONG room = *count, real = 0;
	answer = sim.real->C_GetMechanismList(call->partition->real, NULL, &real);
	if (answer != CKR_OK)
		return answer;
	*count = real + ADDED;
	if (list == NULL || room < *count)
		return CKR_BUFFER_TOO_SMALL;
	answer = sim.real->C_GetMechanismList(call->partition->real, list, &real);
	for (CK_ULONG i = 0; i < ADDED; i++)
		list[real + i] = added[i];
	return answer;
}

CK_RV mechanism_info(struct call *call, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info)
{
	CK_RV answer = slot_present(call);
	if (answer != CKR_OK)
		return answer;
	if (info == NULL)
		return CKR_ARGUMENTS_BAD;
	if (type == CKM_LUNA_AES_KW || type == CKM_LUNA_AES_KWP) {
		*info = (CK_MECHANISM_INFO){16, 32, CKF_HW | CKF_WRAP | CKF_UNWRAP};
		return CKR_OK;
	}
	answer = sim.real->C_GetMechanismInfo(call->partition->real, type, info);
	if (answer != CKR_OK || !sim.config.fips)
		return answer;
	if (type == CKM_RSA_PKCS)
		info->flags &= ~(CK_FLAGS)(CKF_WRAP | CKF_UNWRAP | CKF_ENCRYPT | CKF_DECRYPT);
	if ((type == CKM_RSA_PKCS || type == CKM_RSA_PKCS_OAEP) && info->ulMinKeySize < 2048)
		info->ulMinKeySize = 2048;
	return CKR_OK;
}
