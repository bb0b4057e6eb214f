// Package importer turns a key born in an HSM into the material of EXTERNAL
// CMKs, one in each region. It is a journal of small steps: what is decided or
// found out is on disk before the next outside call, so that an import that was
// killed at any moment continues to exactly one HSM key and one CMK a region.
//
// A new key, its rotation and its extension to more regions are one procedure: an
// HSM key is made or taken, and then every region has its own steps.
//
// Import tokens and wrapped material are never stored; an interrupted import
// fetches new parameters and wraps again.
package importer

import (
	"context"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
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

// Config is what an Importer works with.
type Config struct {
	Keyring   *keyring.Keyring
	Endpoints Endpoints
	Backend   func(name string) (Backend, error)
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

// Request asks for an import. What is nil has its default in a new import; one
// that is continued keeps what it was begun with.
type Request struct {
	Kind              keyring.ImportKind
	Name              string
	Backend           string   // of a new key; others have theirs
	Regions           []string // new: empty is the default region; rotation: the key's
	Alias             *string  // with its prefix; default: none, or the key's
	Description       *string
	WrappingAlgorithm *string // default "auto": the strongest OAEP that both ends accept
	Expires           *string // as package expiry reads it; default "never"
	Renew             *string // how long before the expiry the daemon imports again, "14d"; default: it does not
}

// Import makes a new key, rotates one or brings one to more regions; or it
// continues an interrupted import of that name. It reports each step. When it
// fails after the first step the journal stays, and the same call continues it.
// A region that fails does not keep the others from being finished.
func (i *Importer) Import(ctx context.Context, req Request, report func(Progress)) (*keyring.Key, error) {
	release, err := i.Reserve(req.Name)
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

// Plan does what Import does before it makes anything, and returns the steps that
// would follow with the calls that each would make.
func (i *Importer) Plan(ctx context.Context, req Request) ([]Progress, error) {
	release, err := i.Reserve(req.Name)
	if err != nil {
		return nil, err
	}
	defer release()
	var planned []Progress
	r := &run{Importer: i, report: func(p Progress) { planned = append(planned, p) }}
	imp, err := r.prepare(ctx, req)
	if err != nil {
		return nil, err
	}
	if imp.Kind != keyring.Extension {
		planned = append(planned, Progress{Step: stepGenerate, State: stateOf(imp, "", generateStep), Detail: generateStep.calls})
	}
	for _, region := range imp.RegionNames() {
		for _, s := range regionSteps {
			planned = append(planned, Progress{Step: s.name, Region: region, State: stateOf(imp, region, s), Detail: s.calls})
		}
	}
	return planned, nil
}

func stateOf(imp *keyring.Import, region string, s step) StepState {
	if imp.Completed(region, s.doneBy) {
		return Skipped
	}
	return Planned
}

// Abandon forgets an unfinished import and returns its journal, which names the
// HSM key and the CMKs that it leaves behind.
func (i *Importer) Abandon(ctx context.Context, name string) (*keyring.Import, error) {
	release, err := i.Reserve(name)
	if err != nil {
		return nil, err
	}
	defer release()
	imp, ok := i.Keyring.Import(name)
	if !ok {
		return nil, failure.New(failure.NotFound, "IMPORT_NOT_FOUND", "there is no unfinished import of %.80q", name)
	}
	event := audit.Event{
		Action: audit.ImportDrop, Outcome: audit.Allowed, Key: name, Backend: imp.Plan.Backend,
		Details: map[string]string{audit.DetailHSMKeyID: string(imp.HSMKeyID), audit.DetailImportID: imp.ID},
	}
	if ids := imp.KeyIDs(); len(ids) > 0 {
		event.KeyID = ids[0]
	}
	if err := i.Record(ctx, event); err != nil {
		return nil, err
	}
	return imp, i.Keyring.AbandonImport(name)
}

// Reserve makes the caller the only one that works on a name.
func (i *Importer) Reserve(name string) (release func(), err error) {
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
