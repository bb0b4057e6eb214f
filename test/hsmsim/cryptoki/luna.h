/*
 * What a Luna or DPoD client library has beyond PKCS#11 2.40.
 *
 * Documented: the numbers, by ThalesGroup/pycryptoki (defines.py) and
 * larskanis/pkcs11 (pkcs11_luna); the prototypes of the CA_ functions and
 * CK_HA_STATUS, by pycryptoki (_ck_func_list.py, ck_defs.py), which looks each
 * of them up by name in the library; that CA_GetHAState lists the members of a
 * group, by "Managing and Troubleshooting Your HA Groups" of Luna 7.1.
 *
 * Our choice: everything about their failures, said at each function in ca.c.
 *
 * Left out: CA_GetFunctionList, whose table of 200 entries differs between
 * client versions, and CA_GetConfigurationElementDescription, of which
 * pycryptoki and luna-samples show different prototypes.
 */
#ifndef LUNA_H
#define LUNA_H

#include <p11-kit/pkcs11.h>

#define CKU_LUNA_CRYPTO_USER            0x80000001UL
#define CKU_LUNA_LIMITED_CRYPTO_OFFICER 0x80000003UL

#define CKA_LUNA_OUID               0x80000005UL /* 12 bytes */
#define CKA_LUNA_EKM_UID            0x80000008UL
#define CKA_LUNA_GENERIC_1          0x80001000UL
#define CKA_LUNA_GENERIC_2          0x80001001UL
#define CKA_LUNA_GENERIC_3          0x80001002UL
#define CKA_LUNA_FINGERPRINT_SHA256 0x80001003UL /* 32 bytes */

#define CKM_LUNA_AES_KW  0x80000170UL
#define CKM_LUNA_AES_KWP 0x80000171UL

#define CKR_LUNA_USER_NOT_AUTHORIZED        0x8000001AUL
#define CKR_LUNA_SO_LOGIN_FAILURE_THRESHOLD 0x8000001CUL
#define CKR_LUNA_OPERATION_NOT_ALLOWED      0x80000030UL

/* Partition policies. */
#define POLICY_PRIVATE_KEY_WRAPPING 1
#define POLICY_SECRET_KEY_WRAPPING  5
#define POLICY_CHANGE_ATTRIBUTES    11
#define POLICY_MAX_FAILED_LOGINS    20
#define POLICY_KEY_MANAGEMENT       28
#define POLICY_NON_FIPS_ALGORITHMS  43
/* HSM policies. */
#define HSM_POLICY_NON_FIPS_ALGORITHMS 12
#define HSM_POLICY_SO_RESETS_PIN       15

#define CK_HA_MAX_MEMBERS 32

typedef struct CK_HA_MEMBER {
	CK_CHAR memberSerial[20];
	CK_RV memberStatus;
} CK_HA_MEMBER;

typedef struct CK_HA_STATUS {
	CK_CHAR groupSerial[20];
	CK_HA_MEMBER memberList[CK_HA_MAX_MEMBERS];
	CK_ULONG listSize;
} CK_HA_STATUS;

CK_RV CA_GetTokenPolicies(CK_SLOT_ID slot, CK_ULONG_PTR ids, CK_ULONG_PTR id_count,
			  CK_ULONG_PTR values, CK_ULONG_PTR value_count);
CK_RV CA_GetHSMPolicySet(CK_SLOT_ID slot, CK_ULONG_PTR ids, CK_ULONG_PTR id_count,
			 CK_ULONG_PTR values, CK_ULONG_PTR value_count);
CK_RV CA_GetFirmwareVersion(CK_SLOT_ID slot, CK_ULONG_PTR major, CK_ULONG_PTR minor, CK_ULONG_PTR sub_minor);
CK_RV CA_GetHAState(CK_SLOT_ID slot, CK_HA_STATUS *status);

#endif
