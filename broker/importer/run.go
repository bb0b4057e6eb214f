package importer

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/internal/fault"
	"github.com/kmsbroker/kmsbroker/internal/tracing"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// The steps after the plan, in order. KMS ties a wrapped blob to the parameters
// it was wrapped under, and neither is stored: until the import itself is
// done, an attempt repeats that group from its beginning.
const (
	stepPlan       = "plan"
	stepGenerate   = "generate"
	stepCreate     = "create"
	stepParameters = "parameters"
	stepWrap       = "wrap"
	stepImport     = "import"
	stepVerify     = "verify"
	stepAlias      = "alias"
)

// step is one row of the table. run does it; earlier is the record of an attempt
// whose outcome is unknown, nil for the first.
type step struct {
	name string
	run  func(r *run, ctx context.Context, earlier *keyring.ImportStep) (detail string, found func(*keyring.Import), err error)
	// doneBy names the step whose completion makes this one unnecessary.
	doneBy string
	calls  string // what it asks of whom, for --dry-run
}

var generateStep = step{stepGenerate, (*run).generate, stepGenerate, "HSM: generate AES-256, compute its check value"}

// regionSteps are taken in every region.
var regionSteps = []step{
	{stepCreate, (*run).create, stepCreate, "KMS: CreateKey, Origin EXTERNAL, KeySpec Aliyun_AES_256, tagged"},
	{stepParameters, (*run).parameters, stepImport, "KMS: GetParametersForImport, RSA_2048"},
	{stepWrap, (*run).wrap, stepImport, "HSM: import the wrapping key, wrap, remove it"},
	{stepImport, (*run).importMaterial, stepImport, "KMS: ImportKeyMaterial"},
	{stepVerify, (*run).verify, stepVerify, "KMS: DescribeKey, Encrypt, Decrypt"},
	{stepAlias, (*run).alias, stepAlias, "KMS: ListAliases, CreateAlias or UpdateAlias if an alias was asked for"},
}

// run is one attempt at an import.
type run struct {
	*Importer
	report  func(Progress)
	backend Backend
	imp     *keyring.Import

	// Of the region whose turn it is; the last two are held for the length of the
	// attempt only.
	endpoint Endpoint
	params   *kmsapi.ImportParameters
	wrapped  []byte
}

func (r *run) importKey(ctx context.Context, req Request) (*keyring.Key, error) {
	imp, err := r.prepare(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := r.open(ctx, imp); err != nil {
		return nil, err
	}
	if r.imp.Kind != keyring.Extension {
		if err := r.journaled(ctx, "", generateStep); err != nil {
			return nil, err
		}
	}
	var failed []error
	for _, region := range r.imp.RegionNames() {
		if r.imp.In(region).Finished {
			continue
		}
		if err := r.importInto(ctx, region); err != nil {
			failed = append(failed, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if err := unfinishedRegions(failed, len(r.imp.Regions)); err != nil {
		return nil, err
	}
	return r.Keyring.Key(req.Name)
}

// unfinishedRegions makes one failure of those of several regions, of the kind of
// the first.
func unfinishedRegions(failed []error, regions int) error {
	switch {
	case len(failed) == 0:
		return nil
	case regions == 1:
		return failed[0]
	}
	f := failure.Several(fmt.Sprintf("%d of %d regions are not finished", len(failed), regions), failed)
	f.Hint = strings.TrimPrefix(f.Hint+"; the same command continues in the regions that are missing", "; ")
	return f
}

// importInto takes the steps of one region and gives the key its CMK there.
func (r *run) importInto(ctx context.Context, region string) (err error) {
	if r.endpoint, err = r.Endpoints.In(region); err != nil {
		return err
	}
	r.params, r.wrapped = nil, nil
	defer func() { r.params, r.wrapped = nil, nil }()
	for _, s := range regionSteps {
		if err := r.journaled(ctx, region, s); err != nil {
			return err
		}
	}
	fault.Point("import/finish/before")
	if _, err := r.Keyring.FinishRegion(r.imp.Name, region); err != nil {
		return err
	}
	fault.Point("import/finish/after")
	return nil
}

// open opens the journal, or takes up the one that is there.
func (r *run) open(ctx context.Context, imp *keyring.Import) error {
	if _, resumed := r.Keyring.Import(imp.Name); resumed {
		fault.Point("import/resume/before")
		updated, err := r.Keyring.UpdateImport(imp.Name, func(i *keyring.Import) { *i = *imp })
		fault.Point("import/resume/after")
		if err != nil {
			return err
		}
		r.imp = updated
		return r.recordPlan(ctx, audit.ImportResume)
	}
	r.imp = imp
	if err := r.recordPlan(ctx, audit.ImportBegin); err != nil {
		return err
	}
	fault.Point("import/open/before")
	err := r.Keyring.BeginImport(imp)
	fault.Point("import/open/after")
	return err
}

func (r *run) recordPlan(ctx context.Context, action string) error {
	for _, region := range r.imp.RegionNames() {
		endpoint, err := r.Endpoints.In(region)
		if err != nil {
			continue // nothing can be done there
		}
		details := map[string]string{
			audit.DetailHSMKeyID: string(r.imp.HSMKeyID), audit.DetailImportID: r.imp.ID, audit.DetailRegion: region,
			audit.DetailEndpoint: endpoint.URL, audit.DetailAlgorithm: string(r.imp.In(region).WrappingAlgorithm),
			audit.DetailKind: string(r.imp.Kind),
		}
		if !endpoint.Genuine {
			details[audit.DetailForeign] = "true"
		}
		err = r.Record(ctx, audit.Event{
			Action: action, Outcome: audit.Allowed, Key: r.imp.Name, KeyID: r.imp.In(region).KeyID,
			Backend: r.imp.Plan.Backend, Details: details,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// journaled runs a step between its two journal entries, unless it was done.
// Around each entry a fault may be injected.
func (r *run) journaled(ctx context.Context, region string, s step) error {
	if r.imp.Completed(region, s.doneBy) {
		r.report(Progress{Step: s.name, Region: region, State: Skipped})
		return nil
	}
	point := func(where string) { fault.Point("import/" + s.name + "/" + where) }
	return r.step(region, s.name, func() (string, error) {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		earlier := r.imp.Step(region, s.name)
		point("before-begin")
		imp, err := r.Keyring.BeginStep(r.imp.Name, region, s.name, r.Now().UTC())
		point("after-begin")
		if err != nil {
			return "", err
		}
		r.imp = imp
		traced, end := tracing.Start(ctx, "import "+s.name, tracing.Key, r.imp.Name, tracing.Region, region)
		detail, found, err := s.run(r, traced, earlier)
		end(err)
		if err != nil {
			return "", err
		}
		if found == nil {
			found = func(*keyring.Import) {}
		}
		point("before-end")
		imp, err = r.Keyring.EndStep(r.imp.Name, region, s.name, r.Now().UTC(), found)
		point("after-end")
		if err != nil {
			return "", err
		}
		r.imp = imp
		return detail, nil
	})
}

// here is the journal of the region whose turn it is.
func (r *run) here() *keyring.RegionImport { return r.imp.In(r.endpoint.Region) }

// note is found for what belongs to the region whose turn it is.
func (r *run) note(change func(*keyring.RegionImport)) func(*keyring.Import) {
	region := r.endpoint.Region
	return func(i *keyring.Import) { change(i.In(region)) }
}

func expiryText(t time.Time) string {
	if t.IsZero() {
		return "material never expires"
	}
	return "material expires " + t.UTC().Format(time.RFC3339)
}

// usable refuses a key that cannot be imported.
func usable(key *hsm.Key) error {
	if !key.Sensitive || !key.Extractable || key.Bits != 256 {
		return hsm.Errorf(hsm.Corrupt, "the HSM key is not AES-256, sensitive and extractable: %+v", *key)
	}
	return nil
}
