package broker

import (
	"context"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/broker/datakey"
	"github.com/kmsbroker/kmsbroker/broker/evidence"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/broker/proxy"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/conformance"
	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/reliable"
)

// Status is how the broker is, for administrators.
type Status struct {
	At         time.Time // of this picture
	Version    string
	StartedAt  time.Time
	InstanceID string
	Regions    []RegionStatus
	Backends   []backend.Status
	Proxy      []proxy.Status // of the same tokens, nil if there is no PKCS#11 proxy
	Keys       int
	CMKs       map[CMKState]int // how many there are, of all generations
	Expiring   []Expiry         // the soonest first
	Renewals   Renewals
	Unfinished []*keyring.Import
	AuditSeq   uint64
	AuditHead  string
	AuditErr   error // set while the trail cannot be written
	Audit      audit.Stats
	// EvidenceFingerprint is of the key that signs evidence.
	EvidenceFingerprint string
	DataKeys            datakey.Status
}

// CMKState is the state of a CMK, as KMS last reported it, and where it is.
type CMKState struct {
	Region string
	State  kmsapi.KeyState
}

// Renewals counts what the daemon tried since it was started.
type Renewals struct {
	Done   uint64
	Failed uint64
}

// RegionStatus is one region's KMS.
type RegionStatus struct {
	Region  string
	URL     string
	Genuine bool
	Default bool
	// Addresses behind URL and how they are doing.
	Addresses []reliable.EndpointStatus
}

func (b *Broker) regionStatus() []RegionStatus {
	var regions []RegionStatus
	for _, name := range b.Regions.Regions() {
		e := b.Regions.ByRegion[name]
		status := RegionStatus{Region: name, URL: e.URL, Genuine: e.Genuine, Default: name == b.Regions.Default}
		if e.Health != nil {
			status.Addresses = e.Health()
		}
		regions = append(regions, status)
	}
	return regions
}

// Status gathers what is known without asking anybody outside.
func (b *Broker) Status() Status {
	head := b.Audit.Head()
	keys := b.Keyring.Keys()
	return Status{
		At: b.Now(), Version: b.Version, StartedAt: b.startedAt, InstanceID: b.Keyring.InstanceID(),
		Regions: b.regionStatus(), Backends: b.Backends.Status(), Proxy: b.proxyStatus(),
		Keys: len(keys), CMKs: countCMKs(keys), Expiring: b.expiring(keys), Unfinished: b.Keyring.Imports(),
		Renewals: Renewals{Done: b.renewals.done.Load(), Failed: b.renewals.failed.Load()},
		AuditSeq: head.Seq, AuditHead: head.Hash, AuditErr: b.Audit.Err(), Audit: b.Audit.Stats(),
		EvidenceFingerprint: evidence.Fingerprint(b.Evidence.Public()), DataKeys: b.dataKeys.Status(),
	}
}

func countCMKs(keys []*keyring.Key) map[CMKState]int {
	count := map[CMKState]int{}
	for _, key := range keys {
		for _, cmk := range key.CMKs {
			count[CMKState{cmk.Region, cmk.State}]++
		}
	}
	return count
}

// BackendKey is a key in an HSM and, when it is the material of one of ours,
// the name of that.
type BackendKey struct {
	hsm.Key
	Name string
}

// BackendKeys lists the keys that a backend's role can see.
func (b *Broker) BackendKeys(ctx context.Context, name string) ([]BackendKey, error) {
	token, err := b.token(name)
	if err != nil {
		return nil, err
	}
	found, err := token.Keys(ctx)
	if err != nil {
		return nil, err
	}
	ours := b.Keyring.Keys()
	keys := make([]BackendKey, len(found))
	for i, key := range found {
		keys[i].Key = key
		for _, k := range ours {
			if k.UsesHSMKey(name, key.ID) {
				keys[i].Name = k.Name
			}
		}
	}
	return keys, nil
}

// CheckBackend runs the conformance suite against a backend.
func (b *Broker) CheckBackend(ctx context.Context, call Call, name string, req backend.CheckRequest) (*conformance.Report, error) {
	found, err := b.Backends.Get(name)
	if err != nil {
		return nil, err
	}
	ctx = withCall(ctx, call)
	event := audit.Event{Action: audit.BackendCheck, Outcome: audit.Allowed, Backend: name}
	if err := b.record(ctx, event); err != nil {
		return nil, err
	}
	req.RunBy = append([]string{"kmsbrokerd " + b.Version}, req.RunBy...)
	report, err := found.Check(ctx, req)
	if err == nil && report.Verdict != conformance.VerdictPassed {
		event.Reason = string(report.Verdict)
	}
	return report, b.finish(ctx, event, err)
}

// InitToken makes a new token for development, with the settings of a backend.
func (b *Broker) InitToken(ctx context.Context, call Call, name, label string, soPIN, pin []byte) (serial string, err error) {
	found, err := b.Backends.Get(name)
	if err != nil {
		return "", err
	}
	ctx = withCall(ctx, call)
	event := audit.Event{Action: audit.BackendInit, Outcome: audit.Allowed, Backend: name}
	if err := b.record(ctx, event); err != nil {
		return "", err
	}
	serial, err = found.MakeToken(ctx, label, soPIN, pin)
	if err == nil {
		event.Details = map[string]string{audit.DetailSerial: serial}
	}
	return serial, b.finish(ctx, event, err)
}

// LoginBackend gives a backend the PIN that it waits for, and returns how the
// backend is after its login. The caller wipes pin.
func (b *Broker) LoginBackend(ctx context.Context, call Call, name string, pin []byte) (backend.Status, error) {
	found, err := b.Backends.Get(name)
	if err != nil {
		return backend.Status{}, err
	}
	ctx = withCall(ctx, call)
	event := audit.Event{Action: audit.BackendLogin, Outcome: audit.Allowed, Backend: name}
	if err := b.record(ctx, event); err != nil {
		return backend.Status{}, err
	}
	err = found.Login(ctx, pin)
	return found.Status(), b.finish(ctx, event, err)
}

// RetryLogin allows one more login of a backend.
func (b *Broker) RetryLogin(ctx context.Context, call Call, name string) (backend.Status, error) {
	found, err := b.Backends.Get(name)
	if err != nil {
		return backend.Status{}, err
	}
	err = found.RetryLogin()
	event := audit.Event{Action: audit.BackendRetry, Backend: name}
	return found.Status(), b.finish(withCall(ctx, call), event, err)
}

// Backend returns the status of one backend.
func (b *Broker) Backend(name string) (backend.Status, error) {
	found, err := b.Backends.Get(name)
	if err != nil {
		return backend.Status{}, err
	}
	return found.Status(), nil
}
