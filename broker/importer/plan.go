package importer

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/internal/expiry"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// plan checks everything that can be checked before anything is made, and
// decides the wrapping algorithm. begun is the journal of an earlier attempt,
// nil for a new import.
func (r *run) plan(ctx context.Context, req Request, begun *keyring.Import) (keyring.ImportPlan, error) {
	none := keyring.ImportPlan{}
	plan, err := r.asked(req, begun)
	if err != nil {
		return none, err
	}
	backend, err := r.Backend(plan.Backend)
	if err != nil {
		return none, err
	}
	r.backend = backend
	if err := r.checkEndpoint(plan.Backend, backend); err != nil {
		return none, err
	}
	if begun == nil || !begun.Completed(stepImport) {
		info, err := backend.Token.Describe(ctx)
		if err != nil {
			return none, err
		}
		plan.WrappingAlgorithm, err = ChooseAlgorithm(plan.AskedAlgorithm, info.WrappingAlgorithms, r.Endpoint.WrappingAlgorithms)
		if err != nil {
			return none, err
		}
	}
	return plan, r.checkCloud(ctx, plan.Alias, begun)
}

// asked is what the administrator wants, now or when the import was begun.
func (r *run) asked(req Request, begun *keyring.Import) (keyring.ImportPlan, error) {
	none := keyring.ImportPlan{}
	if err := keyring.CheckName(req.Name); err != nil {
		return none, err
	}
	if req.Region != "" && req.Region != r.Endpoint.Region {
		return none, failure.New(failure.Invalid, "REGION", "region %.40q is not configured", req.Region).
			WithHint("this kmsbrokerd serves %s", r.Endpoint.Region)
	}
	plan := keyring.ImportPlan{
		Backend: req.Backend, Region: r.Endpoint.Region, AskedAlgorithm: automatic, AskedExpiry: expiry.Never,
	}
	if begun != nil {
		if err := r.checkResume(req, begun); err != nil {
			return none, err
		}
		backend := plan.Backend
		plan = begun.Plan
		plan.Backend = backend
	}
	set(&plan.Alias, req.Alias)
	set(&plan.Description, req.Description)
	set(&plan.AskedAlgorithm, req.WrappingAlgorithm)
	if err := checkAlias(plan.Alias); err != nil {
		return none, err
	}
	if len(plan.Description) > kmsapi.MaxDescription {
		return none, failure.New(failure.Invalid, "DESCRIPTION", "the description is longer than %d bytes", kmsapi.MaxDescription)
	}
	// "90d" is counted from the first attempt, so that repeating it changes nothing.
	if begun == nil || (req.Expires != nil && *req.Expires != plan.AskedExpiry) {
		set(&plan.AskedExpiry, req.Expires)
		at, err := expiry.Parse(plan.AskedExpiry, r.Now())
		if err != nil {
			return none, failure.New(failure.Invalid, "EXPIRY", "%v", err)
		}
		plan.MaterialExpiresAt = at
	}
	return plan, r.checkExpiry(plan.MaterialExpiresAt)
}

func set(to, from *string) {
	if from != nil {
		*to = *from
	}
}

// checkResume refuses to change what exists already: the HSM key has its backend,
// the CMK its region and description, an alias its name. Another expiry is fine
// at any time, the material is then imported once more.
func (r *run) checkResume(req Request, begun *keyring.Import) error {
	differs := func(asked *string, was string) bool { return asked != nil && *asked != was }
	old := begun.Plan
	var was string
	switch {
	case req.Backend != old.Backend && begun.Begun(stepGenerate):
		was = "backend " + old.Backend
	case r.Endpoint.Region != old.Region && begun.Begun(stepCreate):
		was = "region " + old.Region
	case differs(req.Description, old.Description) && begun.Begun(stepCreate):
		was = fmt.Sprintf("description %q", old.Description)
	case differs(req.WrappingAlgorithm, old.AskedAlgorithm) && begun.Completed(stepImport):
		was = "wrapping algorithm " + old.AskedAlgorithm
	case differs(req.Alias, old.Alias) && begun.Begun(stepAlias):
		was = fmt.Sprintf("alias %q", old.Alias)
	default:
		return nil
	}
	return failure.New(failure.WrongState, "IMPORT_DIFFERS",
		"an import of %q was begun with %s and is not finished", begun.Name, was).
		WithHint("leave that flag out to finish it, or give it up with `kmsbrokerctl key abandon %s`", begun.Name)
}

var aliasName = regexp.MustCompile(`^[A-Za-z0-9/_-]+$`)

// checkAlias applies the rules of CreateAlias.
func checkAlias(alias string) error {
	if alias == "" {
		return nil
	}
	name, ok := strings.CutPrefix(alias, kmsapi.AliasPrefix)
	if !ok || !aliasName.MatchString(name) || len(alias) > 255 || strings.HasPrefix(name, "acs") {
		return failure.New(failure.Invalid, "ALIAS",
			"alias %.80q is not alias/NAME of at most 255 letters, digits, slashes, dashes and underscores whose NAME does not begin with acs", alias)
	}
	return nil
}

func (r *run) checkEndpoint(name string, backend Backend) error {
	if r.Endpoint.Genuine || backend.AllowForeignEndpoint {
		return nil
	}
	return failure.New(failure.Denied, "FOREIGN_ENDPOINT",
		"%s is not verified TLS to Alibaba Cloud KMS, and whoever runs it would receive the HSM key", r.Endpoint.URL).
		WithHint("for an emulator set allow_foreign_endpoint = true in [backend.%s]", name)
}

func (i *Importer) checkExpiry(t time.Time) error {
	if t.IsZero() || t.After(i.Now()) {
		return nil
	}
	return failure.New(failure.Invalid, "EXPIRY", "the expiry %s has passed", t.UTC().Format(time.RFC3339)).
		WithHint("give a later one with --expires, or never")
}

// checkCloud asks KMS something harmless, so that a wrong access key, endpoint
// or alias is known before a key exists.
func (r *run) checkCloud(ctx context.Context, alias string, begun *keyring.Import) error {
	if alias == "" {
		_, err := r.Endpoint.KMS.ListKeys(ctx, kmsapi.Page{Number: 1, Size: 1})
		return err
	}
	owner, err := r.aliasOwner(ctx, alias)
	if err != nil {
		return err
	}
	if owner == "" || (begun != nil && begun.KeyID == owner) {
		return nil
	}
	return failure.New(failure.WrongState, "ALIAS_TAKEN", "%s belongs to CMK %s already", alias, owner).
		WithHint("choose another alias, or delete the old one")
}

// aliasOwner returns the CMK that an alias stands for, or "".
func (r *run) aliasOwner(ctx context.Context, alias string) (string, error) {
	for page := 1; ; page++ {
		answer, err := r.Endpoint.KMS.ListAliases(ctx, kmsapi.Page{Number: page, Size: kmsapi.MaxPageSize})
		if err != nil {
			return "", err
		}
		for _, a := range answer.Aliases {
			if a.Name == alias {
				return a.KeyID, nil
			}
		}
		if len(answer.Aliases) == 0 || page*kmsapi.MaxPageSize >= answer.Total {
			return "", nil
		}
	}
}
