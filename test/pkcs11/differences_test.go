package pkcs11

import (
	"path"
	"strings"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki/rpc"
)

// difference is between what a step gives directly and what it gives another way.
type difference struct {
	step   string // a pattern
	result string // the other way, a pattern
	reason string
}

func (d difference) is(step, result string) bool {
	return matches(d.step, step) && matches(d.result, result)
}

// matches reports whether a pattern, in which * is any text, matches all of a text.
func matches(pattern, text string) bool {
	// In path.Match no star crosses a slash.
	flat := strings.NewReplacer("/", "|", "[", "(", "]", ")", "\\", "|")
	ok, err := path.Match(flat.Replace(pattern), flat.Replace(text))
	return ok && err == nil
}

// functionOf is the function that a step is about.
func functionOf(step string) string {
	_, rest, _ := strings.Cut(step, ": ")
	function, _, _ := strings.Cut(rest, ": ")
	return function
}

// clientDiffers are differences that p11-kit-client.so makes, whatever server it talks to:
// what it cannot carry. They are those of release 0.24.1, which Debian 12 has.
var clientDiffers = []difference{
	{"attributes: C_GetAttributeValue: none", deadly, "it asserts that a template has attributes"},
	{"attributes: C_GetAttributeValue: NULL", deadly, "the same"},
	{"objects: C_CreateObject: NULL", "CKR_TEMPLATE_INCOMPLETE", "it sends an array without attributes in the place of NULL, and SoftHSM refuses NULL"},
	{"objects: C_CopyObject: NULL", "CKR_OK a handle", "the same"},
	{"objects: C_SetAttributeValue: NULL", "CKR_OK", "the same"},
	{"*: value of a wrong length", "CKR_HOST_MEMORY", "it sends one byte for a CK_BBOOL, or nothing"},
	{"find: C_FindObjects: no room", "CKR_ARGUMENTS_BAD", "it has no use for a buffer without room"},
	{"random: C_GenerateRandom: nothing", "CKR_ARGUMENTS_BAD", "it takes a buffer of no bytes for NULL"},
	{"sign: C_SignUpdate: *, empty part", "CKR_ARGUMENTS_BAD", "it sends NULL for what is empty, and SoftHSM refuses NULL"},
	{"general: C_*Function*: no session", "CKR_FUNCTION_NOT_PARALLEL", "it answers these functions by itself"},

	// What comes of clientRefuses.
	{"digest: C_DigestInit: SHA224*", "CKR_MECHANISM_INVALID", "it refuses the mechanism"},
	{"digest: C_Digest*: SHA224*", "CKR_OPERATION_NOT_INITIALIZED", "the same"},
	{"encrypt: C_*Init: AES-CBC*", "CKR_MECHANISM_INVALID", "it refuses the mechanism"},
	{"encrypt: C_*Init: AES-CTR*", "CKR_MECHANISM_INVALID", "it refuses the mechanism"},
	{"encrypt: C_*Init: AES-GCM*", "CKR_MECHANISM_INVALID", "it refuses the mechanism"},
	{"encrypt: C_*: AES-CBC*", "CKR_OPERATION_NOT_INITIALIZED", "the same"},
	{"encrypt: C_*: AES-CTR*", "CKR_OPERATION_NOT_INITIALIZED", "the same"},
	{"encrypt: C_*: AES-GCM*", "CKR_OPERATION_NOT_INITIALIZED", "the same"},
	{"encrypt: AES-CBC* comes back", "false", "the same"},
	{"encrypt: AES-CTR comes back", "false", "the same"},
	{"encrypt: AES-GCM comes back", "false", "the same"},
	{"sign: C_*Init: SHA224-RSA-PKCS*", "CKR_MECHANISM_INVALID", "it refuses the mechanism"},
	{"sign: C_*Init: AES-CMAC*", "CKR_MECHANISM_INVALID", "it refuses the mechanism"},
	{"sign: C_*Init: SHA256-RSA-PKCS-PSS*", "CKR_MECHANISM_INVALID", "it refuses the mechanism"},
	{"sign: C_SignInit: PSS *", "CKR_MECHANISM_INVALID", "it refuses the mechanism"},
	{"sign: C_*: SHA224-RSA-PKCS*", "CKR_OPERATION_NOT_INITIALIZED", "the same"},
	{"sign: C_*: AES-CMAC*", "CKR_OPERATION_NOT_INITIALIZED", "the same"},
	{"sign: C_*: SHA256-RSA-PKCS-PSS*", "CKR_OPERATION_NOT_INITIALIZED", "the same"},
	{"sign: SHA256-RSA-PKCS-PSS is right", "false", "the same"},
	{"wrap: C_*: AES-KEY-WRAP*", "CKR_MECHANISM_INVALID", "it refuses the mechanism"},
	{"wrap: C_GetAttributeValue: AES-KEY-WRAP* comes back", "CKR_OBJECT_HANDLE_INVALID", "the same"},
	{"derive: C_DeriveKey: *", "CKR_MECHANISM_INVALID", "it refuses the mechanism"},
	{"derive: ECDH1 is right", "false", "the same"},
	{"parameters: C_EncryptInit: CBC without an IV", "CKR_MECHANISM_INVALID", "it refuses the mechanism"},
	{"parameters: C_EncryptInit: CTR *", "CKR_MECHANISM_INVALID", "it refuses the mechanism"},
	{"parameters: C_EncryptInit: GCM *", "CKR_MECHANISM_INVALID", "it refuses the mechanism"},
	{"parameters: C_DecryptInit: OAEP, nothing", "CKR_HOST_MEMORY", "it encodes the parameter of OAEP and finds none"},
}

// clientCannotRead is what p11-kit-client.so 0.24.1 cannot read, which p11-kit's server of
// that release never sends.
var clientCannotRead = []difference{
	{"attributes: C_GetAttributeValue: template*", "CKR_DEVICE_ERROR", "it refuses an attribute that is a template"},
}

// clientRefuses are mechanisms of SoftHSM that p11-kit-client.so 0.24.1 refuses by itself
// and leaves out of C_GetMechanismList: of those with a parameter it encodes no others
// than CKM_RSA_PKCS_OAEP and CKM_RSA_PKCS_PSS, and not all that have none are in its list.
var clientRefuses = []string{
	"CKM_AES_CBC",
	"CKM_AES_CBC_ENCRYPT_DATA",
	"CKM_AES_CBC_PAD",
	"CKM_AES_CMAC",
	"CKM_AES_CTR",
	"CKM_AES_ECB_ENCRYPT_DATA",
	"CKM_AES_GCM",
	"CKM_AES_KEY_WRAP",
	"CKM_AES_KEY_WRAP_PAD",
	"CKM_DES3_CBC",
	"CKM_DES3_CBC_ENCRYPT_DATA",
	"CKM_DES3_CBC_PAD",
	"CKM_DES3_CMAC",
	"CKM_DES3_ECB_ENCRYPT_DATA",
	"CKM_DES_CBC",
	"CKM_DES_CBC_ENCRYPT_DATA",
	"CKM_DES_CBC_PAD",
	"CKM_DES_ECB_ENCRYPT_DATA",
	"CKM_DH_PKCS_DERIVE",
	"CKM_DSA_SHA224",
	"CKM_DSA_SHA256",
	"CKM_DSA_SHA384",
	"CKM_DSA_SHA512",
	"CKM_ECDH1_DERIVE",
	"CKM_EC_EDWARDS_KEY_PAIR_GEN",
	"CKM_EDDSA",
	"CKM_SHA1_RSA_PKCS_PSS",
	"CKM_SHA224",
	"CKM_SHA224_HMAC",
	"CKM_SHA224_RSA_PKCS",
	"CKM_SHA224_RSA_PKCS_PSS",
	"CKM_SHA256_RSA_PKCS_PSS",
	"CKM_SHA384_RSA_PKCS_PSS",
	"CKM_SHA512_RSA_PKCS_PSS",
}

// refused is what comes of that.
func refused(mechanisms []string) (all []difference) {
	for _, m := range mechanisms {
		all = append(all,
			difference{"mechanisms: C_GetMechanismInfo: " + m, "CKR_MECHANISM_INVALID", "it refuses the mechanism"},
			difference{"mechanisms: " + m + " is listed", "false", "it refuses the mechanism"})
	}
	return all
}

// p11KitDiffers are differences that p11-kit's server makes.
var p11KitDiffers = []difference{
	{"general: C_GetInfo: of the library", "CKR_OK {2 40} \"PKCS#11 Kit\" *", "its own"},
	{"general: C_GetSlotList: *", "* 1 *", "it was told to offer one token; SoftHSM has a slot more, for a token to be made in"},
	{"general: C_WaitForSlotEvent: no event", "CKR_FUNCTION_NOT_SUPPORTED", "it does not ask the module"},
	{"sessions: C_CloseAllSessions: of no slot", "CKR_OK", "it does not look at the slot"},
	{"attributes: C_CreateObject: with a template in it", "CKR_DEVICE_ERROR", "0.24 cannot read it"},
	{"attributes: C_GetAttributeValue: template*", "CKR_OBJECT_HANDLE_INVALID", "the same"},
	{"mechanisms: C_GetMechanismInfo: CKM_*_ECB", "* flags 0x302", "SoftHSM adds its flags to what the caller's memory had, which p11-kit does not clear"},
}

// brokerDiffers are differences that the broker makes.
var brokerDiffers = []difference{
	{"general: C_GetInfo: of the library", "CKR_OK {2 40} \"kmsbroker\" *", "its own"},
	{"general: C_GetSlotList: *", "* 1 *", "a slot for each backend, and none to make tokens in"},
	{"general: C_GetSlotInfo: slot", "CKR_OK \"kmsbroker\" 0x7 *", "its own: a token that may go away, in hardware as far as the client is concerned"},
	{"*: C_GetTokenInfo: *", "CKR_OK * flags 0x52d, counts (0 * 0 * 255 4 *",
		"no PIN is needed (CKF_PROTECTED_AUTHENTICATION_PATH), how PINs were mistaken is not told, and the sessions are those of the client"},

	{"objects: C_CreateObject: attribute twice", "CKR_TEMPLATE_INCONSISTENT", "which of the two counts has to be certain to decide on the object"},

	// Login is answered by who the client is.
	{"login: C_Login: wrong PIN", "CKR_OK", "PINs are not looked at"},
	{"login: C_Login: empty PIN", "CKR_OK", "the same"},
	{"login: C_Login: no PIN", "CKR_OK", "the same"},
	{"login: C_Login: officer*", "CKR_USER_TYPE_INVALID", "nobody is the security officer"},
	{"login: C_Login: another", "CKR_USER_TYPE_INVALID", "the same"},
	{"login: C_GetSessionInfo: officer", "CKR_OK state 2, *", "the same"},
	{"login: C_OpenSession: read-only beside the officer", "CKR_OK a handle", "the same"},
	{"login: C_Logout: officer", "CKR_USER_NOT_LOGGED_IN", "the same"},
	{"login: C_Logout: nobody", "CKR_USER_NOT_LOGGED_IN", "as the standard has it; SoftHSM does not mind"},
	{"administration: C_InitToken: *", "CKR_FUNCTION_NOT_SUPPORTED", "tokens are initialised by administrators"},
	{"administration: C_InitPIN: *", "CKR_FUNCTION_NOT_SUPPORTED", "the token's PIN is the broker's"},
	{"administration: C_SetPIN: *", "CKR_FUNCTION_NOT_SUPPORTED", "the same"},

	// What is active in a session the broker knows by itself.
	{"dual: C_*Update: *", "CKR_OPERATION_NOT_INITIALIZED", "without an operation it does not ask the token whether it has the function"},
	{"recover: C_*Recover: *", "CKR_OPERATION_NOT_INITIALIZED", "the same"},
	{"find: C_DigestInit: beside a search", "CKR_OK", "a search is over for the token when it has begun for the client; the standard allows both"},
}

// cancelDiffers are differences that the broker makes for clients that can carry a
// mechanism that is NULL.
var cancelDiffers = []difference{
	{"*: C_*Init: no mechanism ends it", "CKR_OK", "as PKCS#11 3.0 has it; the token is not asked, because its library may not expect NULL"},
	{"*: C_*Update: after no mechanism", "CKR_OPERATION_NOT_INITIALIZED", "the same"},
}

// laterDiffers are differences that later releases of p11-kit-client.so make.
var laterDiffers = []difference{
	{"parameters: C_EncryptInit: CBC *", "CKR_HOST_MEMORY", "it wants a whole IV"},
	{"parameters: C_EncryptInit: GCM without", "CKR_HOST_MEMORY", "up to 0.25.5 it encodes the parameter and finds none"},
	{"sign: C_SignInit: PSS without a parameter", "CKR_HOST_MEMORY", "the same"},
}

// bareDiffers are differences that a client makes that carries everything that the
// protocol has a place for.
func bareDiffers(version rpc.Version) []difference {
	all := append(cancelDiffers,
		difference{"objects: C_CreateObject: NULL", "CKR_TEMPLATE_INCOMPLETE", "an array of attributes is not NULL"},
		difference{"objects: C_CopyObject: NULL", "CKR_OK a handle", "the same"},
		difference{"objects: C_SetAttributeValue: NULL", "CKR_OK", "the same"},
		difference{"attributes: C_GetAttributeValue: NULL", "CKR_OK", "the same"},
		difference{"*: value of a wrong length", "CKR_HOST_MEMORY", "a CK_BBOOL is one byte"},
		difference{"find: C_FindObjects: no room", "CKR_ARGUMENTS_BAD", "a buffer for no objects is NULL"},
		difference{"general: C_*Function*: no session", "CKR_FUNCTION_NOT_PARALLEL", "these functions have no number"},
	)
	if version < 2 {
		all = append(all,
			difference{"parameters: C_EncryptInit: ECB with an IV", "CKR_MECHANISM_PARAM_INVALID", "the broker passes no parameter on that a mechanism does not have"},
			difference{"parameters: C_DecryptInit: OAEP, nothing", "CKR_HOST_MEMORY", "a mechanism comes with its parameter"},
			difference{"parameters: C_EncryptInit: GCM without", "CKR_HOST_MEMORY", "the same"},
			difference{"sign: C_SignInit: PSS without a parameter", "CKR_HOST_MEMORY", "the same"})
	}
	return all
}
