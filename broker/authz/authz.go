// Package authz decides who may do what. A [Caller] is a local process as the
// kernel reports it or an application as its access key tells, a [Grant] lets
// callers do operations with keys or forbids it, and a [Policy] is the list of
// grants: what no grant allows is denied, and what one denies no other allows.
//
// What is not known never helps the caller: when its unit could not be
// established, or a template has no value, a grant that allows does not match
// and one that denies does.
//
// Administration is not decided here but by the control socket's directory and
// mode; administering a key is not a grant to decrypt with it.
package authz

// Operation is something a grant can allow on a key.
type Operation string

// The operations of the application doors.
const (
	Encrypt                         Operation = "encrypt"
	Decrypt                         Operation = "decrypt"
	GenerateDataKey                 Operation = "generate-data-key"
	GenerateDataKeyWithoutPlaintext Operation = "generate-data-key-without-plaintext"
)

// Operations lists every operation a grant can name.
func Operations() []Operation {
	return []Operation{Encrypt, Decrypt, GenerateDataKey, GenerateDataKeyWithoutPlaintext}
}

// ReservedContext begins the names in encryption contexts that are the broker's
// own. Requests that have such entries are refused whatever the grants say.
const ReservedContext = "kmsbroker."

// Request is what a caller wants to do.
type Request struct {
	Caller    Caller
	Operation Operation
	Key       string            // the broker's name, which need not exist
	Context   map[string]string // the encryption context
}
