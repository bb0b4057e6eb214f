package ram

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Grant is what a user may do: exactly this.
type Grant struct {
	// Keys may be used: encrypted, decrypted and made data keys with, and
	// described.
	Keys []Key
	// Manage is nil for a user who only uses keys.
	Manage *Manage
}

// Key is a CMK.
type Key struct {
	ARN   string // "acs:kms:REGION:ACCOUNT:key/ID"
	Alias string // "alias/payments", or empty
}

// Manage is what a broker needs besides to import, re-import and rotate.
type Manage struct {
	Regions []string
	// Instance is the broker's: it may manage and use the CMKs that carry it as
	// the tag broker-instance-id, which it gives to all that it makes.
	Instance string
	// Aliases that it may set on them, besides those of the keys.
	Aliases []string
}

// maxDocument is how long RAM lets a policy be, in characters (CreatePolicy).
const maxDocument = 6144

// instanceTag is what the importer marks CMKs with.
const instanceTag = "kms:tag/broker-instance-id"

// Actions on CMKs, by their names in "Use RAM to control access to KMS resources".
var (
	use = []string{
		"kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:DescribeKey",
	}
	manage = []string{
		"kms:GetParametersForImport", "kms:ImportKeyMaterial", "kms:DeleteKeyMaterial", "kms:EnableKey", "kms:DisableKey",
		"kms:ScheduleKeyDeletion", "kms:CancelKeyDeletion", "kms:CreateAlias", "kms:UpdateAlias", "kms:DeleteAlias",
		"kms:UpdateKeyDescription", "kms:SetDeletionProtection", "kms:ListResourceTags",
	}
	setAlias = []string{"kms:CreateAlias", "kms:UpdateAlias", "kms:DeleteAlias"}
	create   = []string{"kms:CreateKey", "kms:TagResource", "kms:ListKeys", "kms:ListAliases", "kms:ListTagResources"}
	find     = []string{"kms:ListTagResources"}
)

// document is a policy; its form is that of "Policy structure and syntax".
type document struct {
	Version   string
	Statement []statement
}

type statement struct {
	Effect    string
	Action    []string
	Resource  []string
	Condition map[string]map[string][]string `json:",omitempty"`
}

func allow(actions, resources []string) statement {
	return statement{Effect: "Allow", Action: actions, Resource: resources}
}

var (
	// keyARN has no room for the wildcards * and ?.
	keyARN      = regexp.MustCompile(`^acs:kms:([a-z0-9-]+):([0-9]+):key/[A-Za-z0-9-]+$`)
	aliasName   = regexp.MustCompile(`^alias/[A-Za-z0-9_/-]{1,255}$`)
	instanceID  = regexp.MustCompile(`^[A-Za-z0-9-]{1,128}$`)
	regionNames = regexp.MustCompile(`^[a-z0-9-]+$`)
)

// Document is the policy that permits the grant and nothing else.
func (g Grant) Document() (string, error) {
	if len(g.Keys) == 0 && g.Manage == nil {
		return "", errors.New("a policy needs a key")
	}
	arns := make([]string, 0, len(g.Keys))
	for _, k := range g.Keys {
		if !keyARN.MatchString(k.ARN) {
			return "", fmt.Errorf("%.200q is not the ARN of a CMK", k.ARN)
		}
		arns = append(arns, k.ARN)
	}
	slices.Sort(arns)
	d := document{Version: "1"}
	if len(arns) > 0 {
		d.Statement = append(d.Statement, allow(use, arns))
	}
	if g.Manage != nil {
		management, err := g.Manage.statements(g.Keys, arns)
		if err != nil {
			return "", err
		}
		d.Statement = append(d.Statement, management...)
	}
	text, err := json.Marshal(d)
	if err != nil {
		return "", err
	}
	if n := utf8.RuneCount(text); n > maxDocument {
		return "", fmt.Errorf("the policy for %d keys would have %d characters and RAM takes %d: give the keys to several users", len(g.Keys), n, maxDocument)
	}
	return string(text), nil
}

func (m Manage) statements(keys []Key, arns []string) ([]statement, error) {
	badRegion := func(r string) bool { return !regionNames.MatchString(r) }
	if len(m.Regions) == 0 || slices.ContainsFunc(m.Regions, badRegion) || !instanceID.MatchString(m.Instance) {
		return nil, errors.New("to manage keys, the regions and the broker's instance ID must be known")
	}
	// A broker without keys does not know its account yet; a policy reaches
	// into no other one anyhow.
	account := "*"
	if len(keys) > 0 {
		account = keyARN.FindStringSubmatch(keys[0].ARN)[2]
	}
	var bases, making, all []string
	for _, region := range m.Regions {
		base := "acs:kms:" + region + ":" + account + ":"
		bases, making, all = append(bases, base), append(making, base+"key", base+"alias"), append(all, base+"key/*")
	}
	aliases, err := m.aliases(keys, bases)
	if err != nil {
		return nil, err
	}
	own := allow(slices.Concat(use, manage, []string{"kms:TagResource", "kms:UntagResource"}), all)
	own.Condition = map[string]map[string][]string{"StringEquals": {instanceTag: {m.Instance}}}
	out := []statement{
		// Making a key sets its tags. On a CMK that is there already only the
		// next statement allows it: whoever could set the tag on any CMK could
		// use any CMK.
		allow(create, making),
		own,
		// After an interruption the CMK is looked for by its tags.
		allow(find, all),
	}
	if len(arns) > 0 {
		out = append(out, allow(manage, arns))
	}
	if len(aliases) > 0 {
		out = append(out, allow(setAlias, aliases))
	}
	return out, nil
}

// aliases are named one by one: whoever may set any alias can turn it to another
// key.
func (m Manage) aliases(keys []Key, bases []string) ([]string, error) {
	var arns []string
	add := func(base, name string) error {
		if !aliasName.MatchString(name) {
			return fmt.Errorf("%.200q is not an alias, which begins with alias/", name)
		}
		arns = append(arns, base+name)
		return nil
	}
	for _, k := range keys {
		if k.Alias == "" {
			continue
		}
		own, _, _ := strings.Cut(k.ARN, "key/")
		if err := add(own, k.Alias); err != nil {
			return nil, err
		}
	}
	for _, name := range m.Aliases {
		for _, base := range bases {
			if err := add(base, name); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(arns)
	return slices.Compact(arns), nil
}
