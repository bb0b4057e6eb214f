package audit

// Event is one thing that happened. It names things and never carries them: no
// plaintext, ciphertext, PIN, key, token or encryption context.
type Event struct {
	Action    string            `json:"action"`
	Outcome   Outcome           `json:"outcome"`
	Caller    *Caller           `json:"caller,omitempty"` // nil: the daemon itself
	Door      string            `json:"door,omitempty"`
	Key       string            `json:"key,omitempty"`    // the broker's name
	KeyID     string            `json:"key_id,omitempty"` // the CMK
	Backend   string            `json:"backend,omitempty"`
	RequestID string            `json:"request_id,omitempty"` // Alibaba Cloud's
	Reason    string            `json:"reason,omitempty"`     // of a refusal or failure
	Details   map[string]string `json:"details,omitempty"`    // keys are the Detail constants

	// Application: the event is an application's use of a key. Such records are
	// committed in groups, and give way to administrative ones when space is short.
	Application bool `json:"-"`
}

// Caller is who asked: a process as the kernel reported it, or an application, of
// which there is its name alone.
type Caller struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	PID int32  `json:"pid"`
	// Unit is the systemd system unit, "" if there is none or it is not known.
	Unit string `json:"unit,omitempty"`
	App  string `json:"app,omitempty"`
}

// MarshalJSON leaves out of an application what the kernel says of a process: its
// zeros would read as root's.
func (c Caller) MarshalJSON() ([]byte, error) {
	if c.App != "" {
		return marshal(struct {
			App string `json:"app"`
		}{c.App})
	}
	type process Caller // which has no MarshalJSON
	return marshal(process(c))
}

// Outcome is how it ended.
type Outcome string

// The outcomes. Allowed is recorded before something is done that must not
// happen unrecorded.
const (
	Allowed Outcome = "allowed"
	Denied  Outcome = "denied"
	Failed  Outcome = "failed"
	Done    Outcome = "done"
)

// Actions of administration. Those of the application doors are the names of
// the operations in package authz, with PKCS11 before those on objects.
const (
	DaemonStart  = "daemon.start"
	DaemonStop   = "daemon.stop"
	PolicyReload = "policy.reload"
	BackendState = "backend.state"
	BackendLogin = "backend.login"
	BackendRetry = "backend.retry-login"
	BackendCheck = "backend.check"
	BackendInit  = "backend.init-token"
	ImportBegin  = "import.begin"
	ImportResume = "import.resume"
	ImportFinish = "import.finish"
	ImportDrop   = "import.abandon"
	KeyAdopt     = "key.adopt"
	KeyForget    = "key.forget"
	KeySeal      = "key.seal"
	KeyEvidence  = "key.evidence"
	KeyExport    = "key.export" // key material leaves the HSM, wrapped
	KeyReimport  = "key.reimport"
	KeyVerify    = "key.verify"
	KeyDescribe  = "key.describe" // by an application
	AppIssue     = "app.issue"
	Backup       = "backup.snapshot"
	AppRevoke    = "app.revoke"
)

// Actions of the trail itself. Nobody else can record them.
const (
	ownActions = "audit."

	// LogOpen is the first record of each segment. Its outcome is Failed when the
	// segment does not continue the one before it.
	LogOpen = ownActions + "open"
	// LogSeal is the last record of a segment that has a successor, signed.
	LogSeal = ownActions + "seal"
	// LogRepair follows an unfinished line that a crash left.
	LogRepair = ownActions + "repair"
	// LogGap is the first record after a time in which none could be written.
	LogGap = ownActions + "gap"
	// LogDenials counts the calls of one user that came to nothing and have no
	// records of their own.
	LogDenials = ownActions + "denials"
)

// Reasons of a LogOpen record with the outcome Failed.
const (
	ReasonMissing = "RECORDS_MISSING" // the registry knows of records that are not there
	ReasonChanged = "RECORDS_CHANGED" // the registry knows another record of that number
	ReasonKeyLost = "EPOCH_KEY_LOST"  // so the epoch before can never be signed
)

// Keys of Event.Details.
const (
	DetailAccessKey    = "access_key_id" // of an application
	DetailAlgorithm    = "wrapping_algorithm"
	DetailEndpoint     = "endpoint"
	DetailEnvelope     = "envelope"   // EnvelopeKey or EnvelopeMessage
	DetailMessage      = "message_id" // of an envelope, hex
	DetailForeign      = "foreign_endpoint"
	DetailGrants       = "grants"        // how many there are, on keys
	DetailObjectGrants = "pkcs11_grants" // how many there are
	DetailHSMKeyID     = "hsm_key_id"
	DetailImportID     = "import_id"
	DetailKind         = "kind"
	DetailProvider     = "provider" // of a Kubernetes cluster
	DetailRequest      = "request"  // the caller's own name for what it asked
	DetailRegion       = "region"
	DetailWrappingKey  = "wrapping_key_sha256" // of the DER SubjectPublicKeyInfo
	DetailState        = "state"
	DetailSerial       = "serial"
	DetailVersion      = "version"
)

// What left the daemon when an envelope was sealed or opened.
const (
	EnvelopeKey     = "message-key" // the key of that one message
	EnvelopeMessage = "message"
)

// Keys of Event.Details in the trail's own records.
const (
	DetailFormat        = "format"          // of the trail
	DetailPublicKey     = "public_key"      // of this epoch: Ed25519, hex
	DetailNextPublicKey = "next_public_key" // of the epoch that follows
	DetailMissingFrom   = "missing_from"    // sequence numbers
	DetailMissingUntil  = "missing_until"
	DetailTornBytes     = "torn_bytes"
	DetailTornSHA256    = "torn_sha256"
	DetailFrom          = "from" // times
	DetailUntil         = "until"
	DetailRefused       = "refused"    // calls that were not answered for want of a record
	DetailUnrecorded    = "unrecorded" // calls that were answered all the same
	DetailUID           = "uid"        // of a user whose calls are counted
	DetailApp           = "app"        // or of an application; neither when several share a count
	DetailDenied        = "denied"     // counts
	DetailFailed        = "failed"
)
