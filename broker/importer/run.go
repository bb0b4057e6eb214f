package importer

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
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

// stepFunc does one step. earlier is the record of an attempt whose outcome is
// unknown, nil for the first.
type stepFunc func(r *run, ctx context.Context, earlier *keyring.ImportStep) (detail string, found func(*keyring.Import), err error)

var steps = []struct {
	name string
	run  stepFunc
	// doneBy names the step whose completion makes this one unnecessary.
	doneBy string
}{
	{stepGenerate, (*run).generate, stepGenerate},
	{stepCreate, (*run).create, stepCreate},
	{stepParameters, (*run).parameters, stepImport},
	{stepWrap, (*run).wrap, stepImport},
	{stepImport, (*run).importMaterial, stepImport},
	{stepVerify, (*run).verify, stepVerify},
	{stepAlias, (*run).alias, stepAlias},
}

// run is one attempt at an import.
type run struct {
	*Importer
	report  func(Progress)
	backend Backend
	imp     *keyring.Import

	// Held for the length of the attempt only.
	params  *kmsapi.ImportParameters
	wrapped []byte
}

func (r *run) importKey(ctx context.Context, req Request) (*keyring.Key, error) {
	if err := r.begin(ctx, req); err != nil {
		return nil, err
	}
	for _, s := range steps {
		if r.imp.Completed(s.doneBy) {
			r.report(Progress{Step: s.name, State: Skipped})
			continue
		}
		if err := r.journaled(ctx, s.name, s.run); err != nil {
			return nil, err
		}
	}
	key := r.key()
	if err := r.Keyring.FinishImport(r.imp.Name, key); err != nil {
		return nil, err
	}
	return key, nil
}

// begin plans, and opens the journal or takes up the one that is there.
func (r *run) begin(ctx context.Context, req Request) error {
	if _, err := r.Keyring.Key(req.Name); err == nil {
		return failure.New(failure.WrongState, "KEY_EXISTS", "key %q exists already", req.Name).
			WithHint("`kmsbrokerctl key show %s` shows it", req.Name)
	}
	begun, resumed := r.Keyring.Import(req.Name)
	var plan keyring.ImportPlan
	err := r.step(stepPlan, func() (string, error) {
		var err error
		plan, err = r.plan(ctx, req, begun)
		return fmt.Sprintf("%s into %s, %s", plan.WrappingAlgorithm, plan.Region, expiryText(plan.MaterialExpiresAt)), err
	})
	if err != nil {
		return err
	}
	if resumed {
		return r.takeUp(ctx, begun, plan)
	}
	r.imp = &keyring.Import{
		ID: rand.Text(), Name: req.Name, Plan: plan, StartedAt: r.Now().UTC(), HSMKeyID: hsm.NewKeyID(),
	}
	if err := r.recordPlan(ctx, audit.ImportBegin); err != nil {
		return err
	}
	return r.Keyring.BeginImport(r.imp)
}

// takeUp continues an interrupted import. Material that was imported with
// another expiry is imported once more.
func (r *run) takeUp(ctx context.Context, begun *keyring.Import, plan keyring.ImportPlan) error {
	r.imp = begun
	again := !plan.MaterialExpiresAt.Equal(begun.Plan.MaterialExpiresAt)
	imp, err := r.Keyring.UpdateImport(begun.Name, func(i *keyring.Import) {
		i.Plan = plan
		if step := i.Step(stepImport); again && step != nil {
			step.Done = time.Time{}
		}
	})
	if err != nil {
		return err
	}
	r.imp = imp
	return r.recordPlan(ctx, audit.ImportResume)
}

func (r *run) recordPlan(ctx context.Context, action string) error {
	details := map[string]string{
		audit.DetailHSMKeyID: string(r.imp.HSMKeyID), audit.DetailImportID: r.imp.ID,
		audit.DetailEndpoint: r.Endpoint.URL, audit.DetailAlgorithm: string(r.imp.Plan.WrappingAlgorithm),
	}
	if !r.Endpoint.Genuine {
		details[audit.DetailForeign] = "true"
	}
	return r.Record(ctx, audit.Event{
		Action: action, Outcome: audit.Allowed, Key: r.imp.Name, KeyID: r.imp.KeyID, Backend: r.imp.Plan.Backend, Details: details,
	})
}

// journaled runs a step between its two journal entries.
func (r *run) journaled(ctx context.Context, name string, f stepFunc) error {
	return r.step(name, func() (string, error) {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		earlier := r.imp.Step(name)
		imp, err := r.Keyring.BeginStep(r.imp.Name, name, r.Now().UTC())
		if err != nil {
			return "", err
		}
		r.imp = imp
		detail, found, err := f(r, ctx, earlier)
		if err != nil {
			return "", err
		}
		if found == nil {
			found = func(*keyring.Import) {}
		}
		imp, err = r.Keyring.EndStep(r.imp.Name, name, r.Now().UTC(), found)
		if err != nil {
			return "", err
		}
		r.imp = imp
		return detail, nil
	})
}

// key is what the finished journal says.
func (r *run) key() *keyring.Key {
	imp := r.imp
	return &keyring.Key{
		Name: imp.Name, Backend: imp.Plan.Backend, Alias: imp.Plan.Alias, Description: imp.Plan.Description,
		CreatedAt: imp.StartedAt,
		CMKs: []keyring.CMK{{
			KeyID: imp.KeyID, ARN: imp.ARN, Region: imp.Plan.Region,
			HSMKeyID: imp.HSMKeyID, CheckValue: imp.CheckValue, WrappingAlgorithm: imp.Plan.WrappingAlgorithm,
			MaterialExpiresAt: imp.Plan.MaterialExpiresAt, State: kmsapi.Enabled, CreatedAt: imp.CreatedAt,
		}},
	}
}

func expiryText(t time.Time) string {
	if t.IsZero() {
		return "material never expires"
	}
	return "material expires " + t.UTC().Format(time.RFC3339)
}

// fingerprint is the SHA-256 of a DER SubjectPublicKeyInfo.
func fingerprint(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}
