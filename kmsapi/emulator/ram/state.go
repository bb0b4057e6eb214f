package ram

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/policy"
)

// state is all that an account holds. One that is published never changes.
type state struct {
	Users    map[string]*user
	Roles    map[string]*role
	Policies map[string]*managedPolicy // custom ones
	TokenKey []byte                    // seals security tokens

	// Made by index.
	owners    map[string]*user           // by AccessKey ID
	documents map[string]policy.Document // default versions, by type and name
	trusts    map[string]policy.Document // by role name
}

type user struct {
	UserID      string `json:"UserId"`
	UserName    string
	DisplayName string
	MobilePhone string
	Email       string
	Comments    string
	CreatedAt   time.Time
	UpdatedAt   time.Time
	Keys        []accessKey
	Attached    []attachment
}

type accessKey struct {
	ID        string
	Secret    string
	Active    bool
	CreatedAt time.Time
}

// attachment is a policy as a user or a role has it.
type attachment struct {
	Type string // System or Custom
	Name string
	At   time.Time
}

type role struct {
	RoleID      string `json:"RoleId"`
	RoleName    string
	Description string
	Trust       string // AssumeRolePolicyDocument
	MaxSession  int    // seconds
	CreatedAt   time.Time
	UpdatedAt   time.Time
	Attached    []attachment
}

type managedPolicy struct {
	Name        string
	Description string
	CreatedAt   time.Time
	UpdatedAt   time.Time
	Versions    []policyVersion // oldest first
	Default     string          // ID of one of them
	Issued      int             // versions ever made; their IDs are v1, v2 and so on
}

type policyVersion struct {
	ID        string
	Document  string
	CreatedAt time.Time
}

const tokenKeySize = 32

func loadState(data []byte) (*state, error) {
	s := &state{Users: map[string]*user{}, Roles: map[string]*role{}, Policies: map[string]*managedPolicy{}}
	if data == nil {
		s.TokenKey = make([]byte, tokenKeySize)
		rand.Read(s.TokenKey) // never fails (crypto/rand since Go 1.24)
	} else if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return s, s.index()
}

func (s *state) encode() ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode account: %w", err)
	}
	return data, nil
}

func (s *state) clone() (*state, error) {
	data, err := s.encode()
	if err != nil {
		return nil, err
	}
	return loadState(data)
}

// index makes what is looked up on every call, and refuses what no account wrote.
func (s *state) index() error {
	if len(s.TokenKey) != tokenKeySize {
		return fmt.Errorf("%w: no key for tokens", errDamaged)
	}
	s.owners, s.documents, s.trusts = map[string]*user{}, map[string]policy.Document{}, map[string]policy.Document{}
	for name, p := range s.Policies {
		v, ok := p.version(p.Default)
		if !ok {
			return fmt.Errorf("%w: policy %s has no default version", errDamaged, name)
		}
		document, err := policy.Parse(v.Document, policy.Identity)
		if err != nil {
			return fmt.Errorf("%w: policy %s: %w", errDamaged, name, err)
		}
		s.documents[policyKey(typeCustom, name)] = document
	}
	for name, text := range systemPolicies {
		document, err := policy.Parse(text.document, policy.Identity)
		if err != nil {
			return fmt.Errorf("system policy %s: %w", name, err)
		}
		s.documents[policyKey(typeSystem, name)] = document
	}
	for name, r := range s.Roles {
		trust, err := policy.Parse(r.Trust, policy.Trust)
		if err != nil {
			return fmt.Errorf("%w: role %s: %w", errDamaged, name, err)
		}
		s.trusts[name] = trust
	}
	for _, u := range s.Users {
		for _, k := range u.Keys {
			s.owners[k.ID] = u
		}
	}
	return nil
}

// attached returns the documents of policies.
func (s *state) attached(list []attachment) []policy.Document {
	documents := make([]policy.Document, 0, len(list))
	for _, at := range list {
		documents = append(documents, s.documents[policyKey(at.Type, at.Name)])
	}
	return documents
}

func policyKey(kind, name string) string { return kind + "/" + name }

func (p *managedPolicy) version(id string) (policyVersion, bool) {
	i := slices.IndexFunc(p.Versions, func(v policyVersion) bool { return v.ID == id })
	if i < 0 {
		return policyVersion{}, false
	}
	return p.Versions[i], true
}

// key finds an AccessKey of the user.
func (u *user) key(id string) (int, bool) {
	i := slices.IndexFunc(u.Keys, func(k accessKey) bool { return k.ID == id })
	return i, i >= 0
}
