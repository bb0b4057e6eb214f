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
}

// Caller is who asked, as the kernel reported it.
type Caller struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	PID int32  `json:"pid"`
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
// the operations in package authz.
const (
	DaemonStart  = "daemon.start"
	DaemonStop   = "daemon.stop"
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
)

// Keys of Event.Details.
const (
	DetailAlgorithm   = "wrapping_algorithm"
	DetailEndpoint    = "endpoint"
	DetailForeign     = "foreign_endpoint"
	DetailHSMKeyID    = "hsm_key_id"
	DetailImportID    = "import_id"
	DetailKind        = "kind"
	DetailRegion      = "region"
	DetailWrappingKey = "wrapping_key_sha256" // of the DER SubjectPublicKeyInfo
	DetailState       = "state"
	DetailSerial      = "serial"
	DetailVersion     = "version"
)
