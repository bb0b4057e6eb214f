// Package ram is the part of Alibaba Cloud RAM (API version 2015-05-01) and STS
// (2015-04-01) that decides who may call an emulated KMS: users, their AccessKeys
// and policies, and roles with their temporary credentials. It is a package of
// its own because it knows nothing of keys: it tells who signed a request and
// what that caller's policies say.
//
// Groups, login profiles, MFA devices and the account's own settings are absent.
package ram

import (
	"crypto/cipher"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// The versions of the two APIs, by which a request says which it means.
const (
	APIVersion = "2015-05-01"
	STSVersion = "2015-04-01"
)

// Config is what an [Account] needs.
type Config struct {
	ID string // of the account, 16 digits
	// RootID and RootSecret are the AccessKey of the account itself, which
	// may do everything.
	RootID     string
	RootSecret string
	// State is what Save was last given, nil for a new account.
	State []byte
	// Save makes the state durable before anybody sees a change; nil keeps it
	// in memory. It holds secrets in clear.
	Save func(state []byte) error
	// Now is the time by which temporary credentials expire.
	Now func() time.Time
}

// Account is an Alibaba Cloud account as RAM and STS see it. It may be used
// concurrently.
type Account struct {
	cfg    Config
	tokens cipher.AEAD // seals security tokens

	changing sync.Mutex // held from reading the state to replacing it
	state    atomic.Pointer[state]

	mu       sync.Mutex
	lastUsed map[string]time.Time // by AccessKey ID; forgotten at a restart
}

// New returns an account with the state that it was saved with.
func New(cfg Config) (*Account, error) {
	s, err := loadState(cfg.State)
	if err != nil {
		return nil, err
	}
	a := &Account{cfg: cfg, lastUsed: map[string]time.Time{}}
	if a.tokens, err = newTokenSeal(s.TokenKey); err != nil {
		return nil, err
	}
	a.state.Store(s)
	if cfg.State == nil {
		// The key of the tokens must outlive this process from the first
		// token on.
		if err := a.save(s); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *Account) save(s *state) error {
	data, err := s.encode()
	if err != nil {
		return err
	}
	if a.cfg.Save == nil {
		return nil
	}
	return a.cfg.Save(data)
}

// Serve answers a request of the RAM API from who.
func (a *Account) Serve(r *wire.Request, who Identity) (any, error) {
	return a.serve(operations, r, who)
}

// ServeSTS answers a request of the STS API. who is the zero Identity for the
// one operation that is not signed, see [Unsigned].
func (a *Account) ServeSTS(r *wire.Request, who Identity) (any, error) {
	return a.serve(stsOperations, r, who)
}

// Unsigned reports whether a request is AssumeRoleWithOIDC, which proves who
// calls by a token among its parameters and carries no signature.
func Unsigned(r *wire.Request) bool {
	return r.Version == STSVersion && r.Action == "AssumeRoleWithOIDC" && r.Scheme == wire.Unsigned
}

// Knows reports whether an action exists in the API of a version.
func Knows(version, action string) bool {
	_, ok := map[string]map[string]operation{APIVersion: operations, STSVersion: stsOperations}[version][action]
	return ok
}

func (a *Account) serve(table map[string]operation, r *wire.Request, who Identity) (any, error) {
	op, ok := table[r.Action]
	if !ok {
		return nil, wire.ErrUnknownAction
	}
	c := &call{account: a, who: who, request: r, params: r.Params, now: a.cfg.Now().UTC().Truncate(time.Second)}
	if c.params["UserName"] == "" && op.ownUser {
		c.params["UserName"] = who.user
	}
	for _, name := range op.required {
		if c.params[name] == "" {
			return nil, wire.MissingParameter(name)
		}
	}
	if err := c.authorize(op); err != nil {
		return nil, err
	}
	if !op.changes {
		c.state = a.state.Load()
		return op.run(c)
	}
	return a.change(c, op)
}

// change runs an operation on a copy of the state, and makes that the state when
// the operation succeeded and the copy is saved.
func (a *Account) change(c *call, op operation) (any, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	next, err := a.state.Load().clone()
	if err != nil {
		return nil, err
	}
	c.state = next
	result, err := op.run(c)
	if err != nil {
		return nil, err
	}
	if err := next.index(); err != nil {
		return nil, err
	}
	if err := a.save(next); err != nil {
		return nil, err
	}
	a.state.Store(next)
	return result, nil
}

// arn names a resource of the account, "user/alice".
func (a *Account) arn(resource string) string { return "acs:ram::" + a.cfg.ID + ":" + resource }

var errDamaged = errors.New("the account's record is damaged")
