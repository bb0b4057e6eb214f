package cryptoki

// Function is a C function of PKCS#11, by the number that p11-kit gave it.
type Function uint32

// The functions of PKCS#11 2.40 and, from LoginUser, of 3.0. InitToken2 and DeriveKey2 are
// other encodings of the functions that they are named after.
const (
	Initialize Function = 1 + iota
	Finalize
	GetInfo
	GetSlotList
	GetSlotInfo
	GetTokenInfo
	GetMechanismList
	GetMechanismInfo
	InitToken
	OpenSession
	CloseSession
	CloseAllSessions
	GetSessionInfo
	InitPIN
	SetPIN
	GetOperationState
	SetOperationState
	Login
	Logout
	CreateObject
	CopyObject
	DestroyObject
	GetObjectSize
	GetAttributeValue
	SetAttributeValue
	FindObjectsInit
	FindObjects
	FindObjectsFinal
	EncryptInit
	Encrypt
	EncryptUpdate
	EncryptFinal
	DecryptInit
	Decrypt
	DecryptUpdate
	DecryptFinal
	DigestInit
	Digest
	DigestUpdate
	DigestKey
	DigestFinal
	SignInit
	Sign
	SignUpdate
	SignFinal
	SignRecoverInit
	SignRecover
	VerifyInit
	Verify
	VerifyUpdate
	VerifyFinal
	VerifyRecoverInit
	VerifyRecover
	DigestEncryptUpdate
	DecryptDigestUpdate
	SignEncryptUpdate
	DecryptVerifyUpdate
	GenerateKey
	GenerateKeyPair
	WrapKey
	UnwrapKey
	DeriveKey
	SeedRandom
	GenerateRandom
	WaitForSlotEvent
	LoginUser
	SessionCancel
	MessageEncryptInit
	EncryptMessage
	EncryptMessageBegin
	EncryptMessageNext
	MessageEncryptFinal
	MessageDecryptInit
	DecryptMessage
	DecryptMessageBegin
	DecryptMessageNext
	MessageDecryptFinal
	MessageSignInit
	SignMessage
	SignMessageBegin
	SignMessageNext
	MessageSignFinal
	MessageVerifyInit
	VerifyMessage
	VerifyMessageBegin
	VerifyMessageNext
	MessageVerifyFinal
	InitToken2
	DeriveKey2
)

// functions is how many there are, and one more for the number 0, which is none.
const functions = Function(90)

// String is the name of the function in the standard.
func (f Function) String() string {
	if f == 0 || f >= functions {
		return "unknown function"
	}
	return functionNames[f]
}

var functionNames = [functions]string{ //nolint:gosec // C_InitPIN is no credential
	Initialize:          "C_Initialize",
	Finalize:            "C_Finalize",
	GetInfo:             "C_GetInfo",
	GetSlotList:         "C_GetSlotList",
	GetSlotInfo:         "C_GetSlotInfo",
	GetTokenInfo:        "C_GetTokenInfo",
	GetMechanismList:    "C_GetMechanismList",
	GetMechanismInfo:    "C_GetMechanismInfo",
	InitToken:           "C_InitToken",
	OpenSession:         "C_OpenSession",
	CloseSession:        "C_CloseSession",
	CloseAllSessions:    "C_CloseAllSessions",
	GetSessionInfo:      "C_GetSessionInfo",
	InitPIN:             "C_InitPIN",
	SetPIN:              "C_SetPIN",
	GetOperationState:   "C_GetOperationState",
	SetOperationState:   "C_SetOperationState",
	Login:               "C_Login",
	Logout:              "C_Logout",
	CreateObject:        "C_CreateObject",
	CopyObject:          "C_CopyObject",
	DestroyObject:       "C_DestroyObject",
	GetObjectSize:       "C_GetObjectSize",
	GetAttributeValue:   "C_GetAttributeValue",
	SetAttributeValue:   "C_SetAttributeValue",
	FindObjectsInit:     "C_FindObjectsInit",
	FindObjects:         "C_FindObjects",
	FindObjectsFinal:    "C_FindObjectsFinal",
	EncryptInit:         "C_EncryptInit",
	Encrypt:             "C_Encrypt",
	EncryptUpdate:       "C_EncryptUpdate",
	EncryptFinal:        "C_EncryptFinal",
	DecryptInit:         "C_DecryptInit",
	Decrypt:             "C_Decrypt",
	DecryptUpdate:       "C_DecryptUpdate",
	DecryptFinal:        "C_DecryptFinal",
	DigestInit:          "C_DigestInit",
	Digest:              "C_Digest",
	DigestUpdate:        "C_DigestUpdate",
	DigestKey:           "C_DigestKey",
	DigestFinal:         "C_DigestFinal",
	SignInit:            "C_SignInit",
	Sign:                "C_Sign",
	SignUpdate:          "C_SignUpdate",
	SignFinal:           "C_SignFinal",
	SignRecoverInit:     "C_SignRecoverInit",
	SignRecover:         "C_SignRecover",
	VerifyInit:          "C_VerifyInit",
	Verify:              "C_Verify",
	VerifyUpdate:        "C_VerifyUpdate",
	VerifyFinal:         "C_VerifyFinal",
	VerifyRecoverInit:   "C_VerifyRecoverInit",
	VerifyRecover:       "C_VerifyRecover",
	DigestEncryptUpdate: "C_DigestEncryptUpdate",
	DecryptDigestUpdate: "C_DecryptDigestUpdate",
	SignEncryptUpdate:   "C_SignEncryptUpdate",
	DecryptVerifyUpdate: "C_DecryptVerifyUpdate",
	GenerateKey:         "C_GenerateKey",
	GenerateKeyPair:     "C_GenerateKeyPair",
	WrapKey:             "C_WrapKey",
	UnwrapKey:           "C_UnwrapKey",
	DeriveKey:           "C_DeriveKey",
	SeedRandom:          "C_SeedRandom",
	GenerateRandom:      "C_GenerateRandom",
	WaitForSlotEvent:    "C_WaitForSlotEvent",
	LoginUser:           "C_LoginUser",
	SessionCancel:       "C_SessionCancel",
	MessageEncryptInit:  "C_MessageEncryptInit",
	EncryptMessage:      "C_EncryptMessage",
	EncryptMessageBegin: "C_EncryptMessageBegin",
	EncryptMessageNext:  "C_EncryptMessageNext",
	MessageEncryptFinal: "C_MessageEncryptFinal",
	MessageDecryptInit:  "C_MessageDecryptInit",
	DecryptMessage:      "C_DecryptMessage",
	DecryptMessageBegin: "C_DecryptMessageBegin",
	DecryptMessageNext:  "C_DecryptMessageNext",
	MessageDecryptFinal: "C_MessageDecryptFinal",
	MessageSignInit:     "C_MessageSignInit",
	SignMessage:         "C_SignMessage",
	SignMessageBegin:    "C_SignMessageBegin",
	SignMessageNext:     "C_SignMessageNext",
	MessageSignFinal:    "C_MessageSignFinal",
	MessageVerifyInit:   "C_MessageVerifyInit",
	VerifyMessage:       "C_VerifyMessage",
	VerifyMessageBegin:  "C_VerifyMessageBegin",
	VerifyMessageNext:   "C_VerifyMessageNext",
	MessageVerifyFinal:  "C_MessageVerifyFinal",
	InitToken2:          "C_InitToken",
	DeriveKey2:          "C_DeriveKey",
}
