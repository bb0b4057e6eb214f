// Package importer turns a key born in an HSM into the material of an EXTERNAL
// CMK. It is a journal of small steps: what is decided or found out is on disk
// before the next outside call, so that an import that was killed at any moment
// continues to exactly one HSM key and one CMK.
//
// Import tokens and wrapped material are never stored; an interrupted import
// fetches new parameters and wraps again.
package importer

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// The tags that find a CMK again whose creation was not answered.
const (
	TagInstance = "broker-instance-id"
	TagImport   = "import-id"
)

// Backend is what an import needs to know of an HSM backend.
type Backend struct {
	Token                hsm.Token
	AllowForeignEndpoint bool
}

// Endpoint is what an import needs to know of the KMS it imports into.
type Endpoint struct {
	KMS    kmsapi.KMS
	URL    string // for messages
	Region string
	// Genuine: verified TLS to Alibaba Cloud. Whoever runs the endpoint
	// receives the HSM key, so nothing else is imported into without the
	// backend's explicit permission.
	Genuine bool
	// WrappingAlgorithms that the service accepts.
	WrappingAlgorithms []hsm.WrappingAlgorithm
}

// Config is what an Importer works with.
type Config struct {
	Keyring  *keyring.Keyring
	Endpoint Endpoint
	Backend  func(name string) (Backend, error)
	// Record writes to the audit trail; an error stops what was to be recorded.
	Record func(context.Context, audit.Event) error
	Now    func() time.Time
}

// Importer runs imports, at most one at a time for each key name.
type Importer struct {
	Config

	mu      sync.Mutex
	running map[string]bool
}

// New makes an Importer.
func New(config Config) *Importer {
	return &Importer{Config: config, running: map[string]bool{}}
}

// Progress tells that a step began or ended.
type Progress struct {
	Step    string
	State   StepState
	Detail  string        // for people; set when the step ended
	Elapsed time.Duration // set when the step ended
}

// StepState is how a step is.
type StepState int

// The states of a step. A Skipped step was done by an earlier attempt.
const (
	Started StepState = iota + 1
	Done
	Skipped
	Failed
)

// Request asks for an import. What is nil has its default in a new import; one
// that is continued keeps what it was begun with.
type Request struct {
	Name              string
	Backend           string
	Region            string  // empty: the endpoint's
	Alias             *string // with its prefix; default: none
	Description       *string
	WrappingAlgorithm *string // default "auto": the strongest OAEP that both ends accept
	Expires           *string // as package expiry reads it; default "never"
}

// Import imports a new key, or continues an interrupted import of that name,
// and reports each step. When it fails after the first step the journal stays,
// and the same call continues it.
func (i *Importer) Import(ctx context.Context, req Request, report func(Progress)) (*keyring.Key, error) {
	release, err := i.reserve(req.Name)
	if err != nil {
		return nil, err
	}
	defer release()
	r := &run{Importer: i, report: report}
	key, err := r.importKey(ctx, req)
	event := audit.Event{Action: audit.ImportFinish, Outcome: audit.Done, Key: req.Name, Backend: req.Backend}
	if err != nil {
		event.Outcome, event.Reason = audit.Failed, failure.From(err).Reason
	} else {
		event.KeyID = key.Current().KeyID
	}
	if auditErr := i.Record(context.WithoutCancel(ctx), event); err == nil && auditErr != nil {
		return nil, auditErr
	}
	return key, err
}

// Abandon forgets an unfinished import and returns its journal, which names the
// HSM key and the CMK that it leaves behind.
func (i *Importer) Abandon(ctx context.Context, name string) (*keyring.Import, error) {
	release, err := i.reserve(name)
	if err != nil {
		return nil, err
	}
	defer release()
	imp, ok := i.Keyring.Import(name)
	if !ok {
		return nil, failure.New(failure.NotFound, "IMPORT_NOT_FOUND", "there is no unfinished import of %.80q", name)
	}
	err = i.Record(ctx, audit.Event{
		Action: audit.ImportDrop, Outcome: audit.Allowed, Key: name, KeyID: imp.KeyID, Backend: imp.Plan.Backend,
		Details: map[string]string{audit.DetailHSMKeyID: string(imp.HSMKeyID), audit.DetailImportID: imp.ID},
	})
	if err != nil {
		return nil, err
	}
	return imp, i.Keyring.AbandonImport(name)
}

// reserve makes the caller the only one that works on a name.
func (i *Importer) reserve(name string) (release func(), err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.running[name] {
		return nil, failure.New(failure.WrongState, "IMPORT_RUNNING", "an import of %q is running already", name).
			WithHint("wait for it to end; `kmsbrokerctl key list` shows how far it is")
	}
	i.running[name] = true
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		delete(i.running, name)
	}, nil
}

// step runs f between two reports.
func (r *run) step(name string, f func() (detail string, err error)) error {
	r.report(Progress{Step: name, State: Started})
	start := r.Now()
	detail, err := f()
	p := Progress{Step: name, State: Done, Detail: detail, Elapsed: r.Now().Sub(start)}
	if err != nil {
		p.State, p.Detail = Failed, ""
		err = inStep(name, err)
	}
	r.report(p)
	return err
}

// inStep says in which step a failure happened and keeps its kind and hint.
func inStep(step string, err error) error {
	f := *failure.From(err)
	f.Message = fmt.Sprintf("import step %s: %s", step, f.Message)
	f.Err = err
	return &f
}
