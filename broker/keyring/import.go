package keyring

import (
	"slices"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// ImportKind is what an import does to the key of its name.
type ImportKind string

// The kinds.
const (
	NewKey    ImportKind = "new"
	Rotation  ImportKind = "rotate"     // a new HSM key in all regions of the key
	Extension ImportKind = "add-region" // the current HSM key in more regions
)

// Import is the journal of an import that has not ended. The HSM key is made
// once; then each region has a journal of its own.
type Import struct {
	ID        string     `json:"id"` // tag on the CMKs, so that they can be found again
	Name      string     `json:"name"`
	Kind      ImportKind `json:"kind"`
	Plan      ImportPlan `json:"plan"`
	StartedAt time.Time  `json:"started_at"`
	// HSMKeyID is chosen before the HSM is asked for the first time.
	HSMKeyID   hsm.KeyID      `json:"hsm_key_id"`
	CheckValue string         `json:"check_value,omitempty"`
	Birth      *Birth         `json:"birth,omitempty"`
	Steps      []ImportStep   `json:"steps"`
	Regions    []RegionImport `json:"regions"`
}

// RegionImport is the journal of one CMK.
type RegionImport struct {
	Region            string                `json:"region"`
	WrappingAlgorithm hsm.WrappingAlgorithm `json:"wrapping_algorithm,omitempty"`
	KeyID             string                `json:"key_id,omitempty"` // the CMK
	ARN               string                `json:"arn,omitempty"`
	CreatedAt         time.Time             `json:"created_at,omitzero"`
	CreateRequestID   string                `json:"create_request_id,omitempty"`
	Steps             []ImportStep          `json:"steps"`
	Exports           []Export              `json:"exports,omitempty"`
	Finished          bool                  `json:"finished,omitempty"` // the CMK belongs to the key
}

// ImportPlan is what the administrator asked for and what was made of it.
type ImportPlan struct {
	Backend           string    `json:"backend"`
	Alias             string    `json:"alias,omitempty"`
	Description       string    `json:"description,omitempty"`
	MaterialExpiresAt time.Time `json:"material_expires_at,omitzero"`
	Renewal           Renewal   `json:"renewal,omitzero"`
	// How the administrator put it: "auto", "90d".
	AskedAlgorithm string `json:"asked_algorithm"`
	AskedExpiry    string `json:"asked_expiry"`
}

// ImportStep records that a step was begun and, unless it was interrupted, when
// it ended.
type ImportStep struct {
	Name    string    `json:"name"`
	Started time.Time `json:"started"`
	Done    time.Time `json:"done,omitzero"`
}

// In returns the journal of a region, nil if the import does not go there.
func (i *Import) In(region string) *RegionImport {
	for n := range i.Regions {
		if i.Regions[n].Region == region {
			return &i.Regions[n]
		}
	}
	return nil
}

// RegionNames lists the regions of the import.
func (i *Import) RegionNames() []string {
	names := make([]string, len(i.Regions))
	for n, r := range i.Regions {
		names[n] = r.Region
	}
	return names
}

// Finished reports whether every region is.
func (i *Import) Finished() bool {
	return !slices.ContainsFunc(i.Regions, func(r RegionImport) bool { return !r.Finished })
}

// Step returns the record of a step in a region, or of one that belongs to no
// region (""); nil before it began.
func (i *Import) Step(region, name string) *ImportStep {
	steps := i.steps(region)
	if steps == nil {
		return nil
	}
	for n := range *steps {
		if (*steps)[n].Name == name {
			return &(*steps)[n]
		}
	}
	return nil
}

func (i *Import) steps(region string) *[]ImportStep {
	if region == "" {
		return &i.Steps
	}
	if r := i.In(region); r != nil {
		return &r.Steps
	}
	return nil
}

// Begun reports whether a step was begun in this or an earlier attempt.
func (i *Import) Begun(region, name string) bool { return i.Step(region, name) != nil }

// BegunAnywhere reports it of any region.
func (i *Import) BegunAnywhere(name string) bool {
	return slices.ContainsFunc(i.Regions, func(r RegionImport) bool { return i.Begun(r.Region, name) })
}

// Completed reports whether a step ended well.
func (i *Import) Completed(region, name string) bool {
	step := i.Step(region, name)
	return step != nil && !step.Done.IsZero()
}

// CompletedAnywhere reports it of any region.
func (i *Import) CompletedAnywhere(name string) bool {
	return slices.ContainsFunc(i.Regions, func(r RegionImport) bool { return i.Completed(r.Region, name) })
}

// LastStep is the name of the step that was begun last.
func (i *Import) LastStep() string {
	var last ImportStep
	all := slices.Clone(i.Steps)
	for _, r := range i.Regions {
		all = append(all, r.Steps...)
	}
	for _, step := range all {
		if !step.Started.Before(last.Started) {
			last = step
		}
	}
	return last.Name
}

// KeyIDs are the CMKs that were made.
func (i *Import) KeyIDs() []string {
	var ids []string
	for _, r := range i.Regions {
		if r.KeyID != "" {
			ids = append(ids, r.KeyID)
		}
	}
	return ids
}

func (i *Import) clone() *Import {
	c := *i
	c.Steps, c.Regions = slices.Clone(i.Steps), slices.Clone(i.Regions)
	for n, r := range c.Regions {
		c.Regions[n].Steps, c.Regions[n].Exports = slices.Clone(r.Steps), slices.Clone(r.Exports)
	}
	return &c
}

// add gives a key the CMK that was imported in a region.
func (k *Key) add(imp *Import, region string) {
	r := imp.In(region)
	k.CMKs = append(k.CMKs, CMK{
		KeyID: r.KeyID, ARN: r.ARN, Region: region,
		HSMKeyID: imp.HSMKeyID, CheckValue: imp.CheckValue, WrappingAlgorithm: r.WrappingAlgorithm,
		MaterialExpiresAt: imp.Plan.MaterialExpiresAt, State: kmsapi.Enabled, CreatedAt: r.CreatedAt,
		CreateRequestID: r.CreateRequestID,
	})
	if imp.Kind != Extension {
		k.Renewal, k.Alias, k.Description = imp.Plan.Renewal, imp.Plan.Alias, imp.Plan.Description
	}
	k.rememberBirth(imp)
	k.Exports = append(k.Exports, r.Exports...)
}

// remember takes over the history of an import, of the regions that are not
// finished: those that are have theirs in the key.
func (k *Key) remember(imp *Import) {
	k.rememberBirth(imp)
	for _, r := range imp.Regions {
		if !r.Finished {
			k.Exports = append(k.Exports, r.Exports...)
		}
	}
}

func (k *Key) rememberBirth(imp *Import) {
	known := func(b Birth) bool { return b.HSMKeyID == imp.HSMKeyID }
	if imp.Birth != nil && !slices.ContainsFunc(k.Births, known) {
		k.Births = append(k.Births, *imp.Birth)
	}
}

// History returns a copy of the key with what an unfinished import of it, nil if
// there is none, has done so far.
func (k *Key) History(imp *Import) *Key {
	c := k.clone()
	if imp != nil {
		c.remember(imp)
	}
	return c
}

// key is the key that an import of a new one makes.
func (i *Import) key() *Key {
	return &Key{
		Name: i.Name, Backend: i.Plan.Backend, Region: i.Regions[0].Region, Alias: i.Plan.Alias,
		Description: i.Plan.Description, CreatedAt: i.StartedAt, Renewal: i.Plan.Renewal,
	}
}
