package importer

import (
	"context"
	"crypto/rand"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/internal/expiry"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// prepare is the plan step: it checks everything that can be checked before
// anything is made and decides the wrapping algorithms. It returns the journal as
// it shall be, and stores nothing.
func (r *run) prepare(ctx context.Context, req Request) (*keyring.Import, error) {
	var imp *keyring.Import
	err := r.step("", stepPlan, func() (string, error) {
		begun, err := r.journal(req)
		if err != nil {
			return "", err
		}
		if imp, err = r.plan(req, begun); err != nil {
			return "", err
		}
		if err := r.checkBackend(ctx, imp); err != nil {
			return "", err
		}
		return planText(imp), r.planRegions(ctx, imp)
	})
	return imp, err
}

// journal is the journal to begin with: that of an earlier attempt, or a new one.
func (r *run) journal(req Request) (*keyring.Import, error) {
	if err := keyring.CheckName(req.Name); err != nil {
		return nil, err
	}
	begun, resumed := r.Keyring.Import(req.Name)
	if resumed && begun.Kind != req.Kind {
		return nil, failure.New(failure.WrongState, "IMPORT_DIFFERS", "%s of %q is unfinished", kindText(begun.Kind), req.Name).
			WithHint("finish it with `kmsbrokerctl key %s %s`, or give it up with `kmsbrokerctl key abandon %s`", Verb(begun.Kind), req.Name, req.Name)
	}
	if resumed {
		return begun, nil
	}
	imp := &keyring.Import{
		ID: rand.Text(), Name: req.Name, Kind: req.Kind, StartedAt: r.Now().UTC(), HSMKeyID: hsm.NewKeyID(),
		Plan: keyring.ImportPlan{Backend: req.Backend, AskedAlgorithm: automatic, AskedExpiry: expiry.Never},
	}
	key, err := r.Keyring.Key(req.Name)
	if req.Kind == keyring.NewKey {
		if err == nil {
			return nil, failure.New(failure.WrongState, "KEY_EXISTS", "key %q exists already", req.Name).
				WithHint("`kmsbrokerctl key show %s` shows it", req.Name)
		}
		regions := req.Regions
		if len(regions) == 0 {
			regions = []string{r.Endpoints.Default}
		}
		return imp, r.addRegions(imp, regions)
	}
	if err != nil {
		return nil, err
	}
	return imp, r.fromKey(imp, key, req)
}

// fromKey plans the rotation or the extension of a key.
func (r *run) fromKey(imp *keyring.Import, key *keyring.Key, req Request) error {
	current := key.Current()
	if current.HSMKeyID == "" {
		return failure.New(failure.WrongState, "NO_HSM_KEY", "key %q was adopted without an HSM key", key.Name).
			WithHint("import a new key with `kmsbrokerctl key import`")
	}
	imp.Plan = keyring.ImportPlan{
		Backend: key.Backend, Alias: key.Alias, Description: key.Description, Renewal: key.Renewal,
		AskedAlgorithm: automatic, AskedExpiry: expiry.Never,
	}
	if lifetime := lifetimeOf(key, current); lifetime > 0 {
		imp.Plan.MaterialExpiresAt = r.Now().Add(lifetime).UTC().Truncate(time.Second)
		imp.Plan.AskedExpiry = asAsked(imp.Plan.MaterialExpiresAt)
	}
	if imp.Kind == keyring.Rotation {
		if req.Alias != nil && key.Alias != "" && *req.Alias != key.Alias {
			return failure.New(failure.Invalid, "ALIAS", "a rotation moves %s to the new generation, and cannot give another", key.Alias)
		}
		return r.addRegions(imp, key.Regions())
	}
	if err := notSealed(key.Name, current); err != nil {
		return err
	}
	imp.HSMKeyID, imp.CheckValue = current.HSMKeyID, current.CheckValue
	imp.Plan.MaterialExpiresAt, imp.Plan.AskedExpiry = current.MaterialExpiresAt, asAsked(current.MaterialExpiresAt)
	for _, region := range req.Regions {
		if _, there := key.CurrentIn(region); there {
			return failure.New(failure.WrongState, "REGION_TAKEN", "key %q has a CMK in %s already", key.Name, region)
		}
	}
	return r.addRegions(imp, req.Regions)
}

// lifetimeOf is how long the material of a CMK lives, from its import to its expiry;
// 0 is for ever.
func lifetimeOf(key *keyring.Key, cmk *keyring.CMK) time.Duration {
	switch {
	case cmk.MaterialExpiresAt.IsZero():
		return 0
	case key.Renewal.Lifetime > 0:
		return key.Renewal.Lifetime
	default:
		return cmk.MaterialExpiresAt.Sub(key.ImportedAt(cmk)).Round(time.Minute)
	}
}

// asAsked is how an administrator would have put an expiry.
func asAsked(at time.Time) string {
	if at.IsZero() {
		return expiry.Never
	}
	return at.UTC().Format(time.RFC3339)
}

func (r *run) addRegions(imp *keyring.Import, regions []string) error {
	for _, region := range regions {
		if _, err := r.Endpoints.In(region); err != nil {
			return err
		}
		if imp.In(region) != nil {
			return failure.New(failure.Invalid, "REGION", "region %s is named twice", region)
		}
		imp.Regions = append(imp.Regions, keyring.RegionImport{Region: region})
	}
	if len(imp.Regions) == 0 {
		return failure.New(failure.Invalid, "REGION", "no region is named").
			WithHint("this kmsbrokerd serves %s", strings.Join(r.Endpoints.Regions(), ", "))
	}
	return nil
}

// plan is what the administrator wants, now or when the import was begun.
func (r *run) plan(req Request, begun *keyring.Import) (*keyring.Import, error) {
	_, resumed := r.Keyring.Import(req.Name)
	if resumed {
		if err := r.checkResume(req, begun); err != nil {
			return nil, err
		}
	}
	if req.Kind == keyring.Extension && (req.Alias != nil || req.Description != nil || req.Renew != nil) {
		return nil, failure.New(failure.Invalid, "FLAG", "the alias, the description and the renewal of %q are those of the key in every region", req.Name).
			WithHint("leave these flags out")
	}
	imp, plan := begun, &begun.Plan
	if req.Kind == keyring.NewKey && req.Backend != "" {
		plan.Backend = req.Backend
	}
	if plan.Backend == "" {
		return nil, failure.New(failure.Invalid, "BACKEND", "no backend is named: which HSM shall generate the key?").
			WithHint("`kmsbrokerctl backend list` shows them; give one with --backend")
	}
	set(&plan.Alias, req.Alias)
	set(&plan.Description, req.Description)
	set(&plan.AskedAlgorithm, req.WrappingAlgorithm)
	if err := checkAlias(plan.Alias); err != nil {
		return nil, err
	}
	if len(plan.Description) > kmsapi.MaxDescription {
		return nil, failure.New(failure.Invalid, "DESCRIPTION", "the description is longer than %d bytes", kmsapi.MaxDescription)
	}
	return imp, r.planExpiry(req, imp)
}

// planExpiry decides until when the material lives. Material that was imported
// with another expiry is imported once more. "90d" is counted from the first
// attempt, so that repeating it changes nothing.
func (r *run) planExpiry(req Request, imp *keyring.Import) error {
	plan := &imp.Plan
	lifetime := plan.Renewal.Lifetime
	if lifetime == 0 {
		lifetime = plan.MaterialExpiresAt.Sub(imp.StartedAt)
	}
	if req.Expires != nil && *req.Expires != plan.AskedExpiry {
		plan.AskedExpiry = *req.Expires
		at, err := expiry.Parse(plan.AskedExpiry, r.Now())
		if err != nil {
			return failure.New(failure.Invalid, "EXPIRY", "%v", err)
		}
		if err := reimportWith(imp, at); err != nil {
			return err
		}
		plan.MaterialExpiresAt, lifetime = at, at.Sub(r.Now())
	}
	if err := r.checkExpiry(plan.MaterialExpiresAt); err != nil {
		return err
	}
	if req.Renew == nil {
		return nil
	}
	renewal, err := r.readRenewal(*req.Renew, plan.MaterialExpiresAt, lifetime)
	plan.Renewal = renewal
	return err
}

// reimportWith has the material imported once more where it was with another
// expiry. A region that is finished is no longer this import's to change.
func reimportWith(imp *keyring.Import, at time.Time) error {
	if at.Equal(imp.Plan.MaterialExpiresAt) {
		return nil
	}
	for n := range imp.Regions {
		region := imp.Regions[n].Region
		if imp.Regions[n].Finished {
			return failure.New(failure.WrongState, "IMPORT_DIFFERS", "%s is finished, where the %s", region, expiryText(imp.Plan.MaterialExpiresAt)).
				WithHint("finish the import without --expires, and then `kmsbrokerctl key reimport %s --expires %s`", imp.Name, imp.Plan.AskedExpiry)
		}
		if s := imp.Step(region, stepImport); s != nil {
			s.Done = time.Time{}
		}
	}
	return nil
}

// readRenewal reads how long before its end the daemon imports material again. The
// new material has the lifetime of the first.
func (i *Importer) readRenewal(ahead string, expires time.Time, lifetime time.Duration) (keyring.Renewal, error) {
	none := keyring.Renewal{}
	if ahead == expiry.Never {
		return none, nil
	}
	until, err := expiry.Parse(ahead, i.Now())
	if err != nil || !strings.HasSuffix(ahead, "d") {
		return none, failure.New(failure.Invalid, "RENEWAL", "renewal %.40q is not never or a number of days such as 14d", ahead)
	}
	lifetime = lifetime.Round(time.Minute)
	switch before := until.Sub(i.Now()).Round(time.Hour); {
	case expires.IsZero():
		return none, failure.New(failure.Invalid, "RENEWAL", "material that never expires needs no renewal").
			WithHint("give --expires too")
	case before >= lifetime:
		return none, failure.New(failure.Invalid, "RENEWAL", "renewal %s ahead is not within the material's life of %s", ahead, lifetime)
	default:
		return keyring.Renewal{Ahead: before, Lifetime: lifetime}, nil
	}
}

func set(to, from *string) {
	if from != nil {
		*to = *from
	}
}

// checkResume refuses to change what exists already: the HSM key has its backend,
// a CMK its region and description, an alias its name. Another expiry is fine at
// any time.
func (r *run) checkResume(req Request, begun *keyring.Import) error {
	differs := func(asked *string, was string) bool { return asked != nil && *asked != was }
	old := begun.Plan
	var was string
	switch {
	case req.Kind == keyring.NewKey && req.Backend != "" && req.Backend != old.Backend && begun.Begun("", stepGenerate):
		was = "backend " + old.Backend
	case len(req.Regions) > 0 && !slices.Equal(req.Regions, begun.RegionNames()):
		was = "region " + strings.Join(begun.RegionNames(), ", ")
	case differs(req.Description, old.Description) && begun.BegunAnywhere(stepCreate):
		was = fmt.Sprintf("description %q", old.Description)
	case differs(req.WrappingAlgorithm, old.AskedAlgorithm) && begun.CompletedAnywhere(stepImport):
		was = "wrapping algorithm " + old.AskedAlgorithm
	case differs(req.Alias, old.Alias) && begun.BegunAnywhere(stepAlias):
		was = fmt.Sprintf("alias %q", old.Alias)
	default:
		return nil
	}
	return failure.New(failure.WrongState, "IMPORT_DIFFERS",
		"%s of %q was begun with %s and is not finished", kindText(begun.Kind), begun.Name, was).
		WithHint("leave that flag out to finish it, or give it up with `kmsbrokerctl key abandon %s`", begun.Name)
}

// checkBackend finds the HSM. The key of an extension must still be the one whose
// check value is known.
func (r *run) checkBackend(ctx context.Context, imp *keyring.Import) error {
	backend, err := r.Backend(imp.Plan.Backend)
	if err != nil {
		return err
	}
	r.backend = backend
	if imp.Kind != keyring.Extension {
		return nil
	}
	key, err := backend.Token.Key(ctx, imp.HSMKeyID)
	if err != nil {
		return err
	}
	if err := usable(key); err != nil {
		return err
	}
	return checkKCV(ctx, backend, imp.HSMKeyID, imp.CheckValue)
}

// planRegions checks each region that is not finished. A region that cannot be
// reached now stops a new import, because nothing is lost by that yet; one that is
// continued goes as far as it gets.
func (r *run) planRegions(ctx context.Context, imp *keyring.Import) error {
	_, resumed := r.Keyring.Import(imp.Name)
	info, err := r.backend.Token.Describe(ctx)
	if err != nil {
		return err
	}
	for n := range imp.Regions {
		region := &imp.Regions[n]
		if region.Finished {
			continue
		}
		endpoint, err := r.Endpoints.In(region.Region)
		if err != nil && resumed {
			continue // it is no longer configured, which its own steps will say
		}
		if err != nil {
			return err
		}
		if err := checkEndpoint(endpoint, imp.Plan.Backend, r.backend); err != nil {
			return err
		}
		if !imp.Completed(region.Region, stepImport) {
			region.WrappingAlgorithm, err = ChooseAlgorithm(imp.Plan.AskedAlgorithm, info.WrappingAlgorithms, endpoint.WrappingAlgorithms)
			if err != nil {
				return err
			}
		}
		if err := r.checkCloud(ctx, endpoint, imp); err != nil && (!resumed || failure.From(err).Kind != failure.Unavailable) {
			return err
		}
	}
	return nil
}

func checkEndpoint(endpoint Endpoint, name string, backend Backend) error {
	if endpoint.Genuine || backend.AllowForeignEndpoint {
		return nil
	}
	return failure.New(failure.Denied, "FOREIGN_ENDPOINT",
		"%s is not verified TLS to Alibaba Cloud KMS, and whoever runs it would receive the HSM key", endpoint.URL).
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
func (r *run) checkCloud(ctx context.Context, endpoint Endpoint, imp *keyring.Import) error {
	if imp.Plan.Alias == "" {
		_, err := endpoint.KMS.ListKeys(ctx, kmsapi.Page{Number: 1, Size: 1})
		return err
	}
	owner, err := aliasOwner(ctx, endpoint.KMS, imp.Plan.Alias)
	if err != nil {
		return err
	}
	return r.mayTakeAlias(imp, endpoint.Region, owner)
}

// mayTakeAlias refuses to take an alias from a CMK that is not one of the key.
func (r *run) mayTakeAlias(imp *keyring.Import, region, owner string) error {
	if owner == "" || owner == imp.In(region).KeyID {
		return nil
	}
	if key, err := r.Keyring.Key(imp.Name); err == nil {
		if _, ours := key.CMK(owner); ours {
			return nil
		}
	}
	return failure.New(failure.WrongState, "ALIAS_TAKEN", "%s belongs to CMK %s already", imp.Plan.Alias, owner).
		WithHint("choose another alias, or delete the old one")
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

// aliasOwner returns the CMK that an alias stands for, or "".
func aliasOwner(ctx context.Context, kms kmsapi.KMS, alias string) (string, error) {
	for page := 1; ; page++ {
		answer, err := kms.ListAliases(ctx, kmsapi.Page{Number: page, Size: kmsapi.MaxPageSize})
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

func planText(imp *keyring.Import) string {
	regions := make([]string, len(imp.Regions))
	for n, region := range imp.Regions {
		regions[n] = region.Region
	}
	return fmt.Sprintf("%s into %s, %s", imp.Plan.AskedAlgorithm, strings.Join(regions, ", "), expiryText(imp.Plan.MaterialExpiresAt))
}

func kindText(kind keyring.ImportKind) string {
	switch kind {
	case keyring.Rotation:
		return "a rotation"
	case keyring.Extension:
		return "an extension"
	default:
		return "an import"
	}
}

// Verb is the command of kmsbrokerctl that continues an import of that kind.
func Verb(kind keyring.ImportKind) string {
	if kind == keyring.NewKey {
		return "import"
	}
	return string(kind)
}
