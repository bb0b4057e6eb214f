// Package pkcs11 is the one PKCS#11 engine behind kmsbroker's HSM plugins: it
// implements [hsm.Token] on any PKCS#11 2.20 library, so that a plugin holds
// only what is particular to its device.
//
// It exists because the care that a PKCS#11 library needs is the same for all
// of them: one login that is never repeated, one session per call in flight,
// no C_Finalize under a running call, and no belief in what a device has not
// been seen to do.
package pkcs11

import (
	"context"
	"log/slog"
	"sync"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki/module"
)

// DefaultMaxSessions is how many calls run in the library at once unless the
// configuration says otherwise.
const DefaultMaxSessions = 8

// Config says which token to open and how.
type Config struct {
	Library     string // absolute path of the PKCS#11 library
	TokenSerial string // serial, label or both select the token
	TokenLabel  string
	Role        hsm.Role // empty means hsm.CryptoOfficer
	PIN         hsm.PINSource
	// MaxSessions bounds the sessions that calls use at once; 0 means
	// DefaultMaxSessions. One more stays open to hold the login. A token that
	// admits fewer lowers it.
	MaxSessions int
	// ProxySessions bounds the sessions that PKCS#11 clients share, beside those;
	// 0 means DefaultProxySessions. It is at least 2.
	ProxySessions int
	Logger        *slog.Logger

	// What follows is particular to a device. Zero values leave it out.

	// Choose narrows down the tokens that match, for a device that shows one
	// token in several slots. present are all tokens.
	Choose func(present, matching []Slot) ([]Slot, error)
	// TokenWait is how long Open looks for a token that is not present yet.
	TokenWait time.Duration
	// Vendor lists attributes that go into hsm.Key.Vendor.
	Vendor []VendorAttribute
	// Inspect asks the device what PKCS#11 has no call for. It runs inside a
	// call of Describe, when the library is initialised and logged in.
	Inspect func(Slot) Details
	// Hints says, by the name of a return code, what the device may mean by it.
	Hints map[string]string
}

// VendorAttribute is an attribute that is not in the standard. It is read apart
// from the others, so that a device which refuses it costs nothing else, and
// shown in hex.
type VendorAttribute struct {
	Name string
	Type uint // CKA_
}

// Details is what a device says of a token beyond CK_TOKEN_INFO.
type Details struct {
	Firmware string // empty when CK_TOKEN_INFO knows best
	FIPS     *bool  // nil when the device does not say
	Policies []hsm.Policy
}

// Token is an open and logged in token. It implements [hsm.Token], and
// [cryptoki.Device] for PKCS#11 clients of the broker, which share its login.
type Token struct {
	module  *p11.Ctx
	raw     *module.Module // the same library
	slot    Slot
	role    hsm.Role
	library string
	vendor  []VendorAttribute
	inspect func(Slot) Details
	logger  *slog.Logger

	// login is the session that the login was made on. It is used for nothing
	// else and stays open, because closing the last session logs out.
	login p11.SessionHandle
	pool  *pool
	// proxied is how many sessions there may be for PKCS#11 clients.
	proxied int

	// describing guards info; a channel, so that waiting ends with the context.
	describing chan struct{}
	info       *hsm.Info

	closing sync.Mutex
	closed  bool
}

var _ hsm.Token = (*Token)(nil)

// Open loads the library, finds the token and logs in. The login is attempted
// exactly once, and nothing in this package attempts it again: when it is lost,
// calls answer TokenGone and the process is to be replaced.
//
// A process has at most one open Token per library, because PKCS#11 libraries
// are initialised per process.
func Open(ctx context.Context, config Config) (*Token, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	library, err := initialize(ctx, config.Library)
	if err != nil {
		return nil, hint(err, config.Hints)
	}
	t, err := open(ctx, library, config)
	if err != nil {
		finalize(library, config.Logger)
		return nil, hint(err, config.Hints)
	}
	return t, nil
}

func (c *Config) check() error {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Role == "" {
		c.Role = hsm.CryptoOfficer
	}
	if c.MaxSessions == 0 {
		c.MaxSessions = DefaultMaxSessions
	}
	if c.ProxySessions == 0 {
		c.ProxySessions = DefaultProxySessions
	}
	switch {
	case c.Role != hsm.CryptoOfficer && c.Role != hsm.CryptoUser:
		return hsm.Errorf(hsm.Misconfigured, "role %q is neither %q nor %q", c.Role, hsm.CryptoOfficer, hsm.CryptoUser)
	case c.MaxSessions < 0 || c.MaxSessions > maxSane:
		return hsm.Errorf(hsm.Misconfigured, "max_sessions %d is out of range", c.MaxSessions)
	case c.ProxySessions < fewest || c.ProxySessions > maxSane:
		return hsm.Errorf(hsm.Misconfigured, "proxy_sessions %d is out of range", c.ProxySessions)
	case c.PIN == nil:
		return hsm.Errorf(hsm.PINMissing, "no PIN is configured for the token")
	default:
		return nil
	}
}

func open(ctx context.Context, library *p11.Ctx, config Config) (*Token, error) {
	info, err := library.GetInfo()
	if err != nil {
		return nil, deviceError(err, "ask PKCS#11 library %s for its version", config.Library)
	}
	slot, err := awaitSlot(ctx, library, config)
	if err != nil {
		return nil, err
	}
	size, proxied, err := shares(config, slot.token)
	if err != nil {
		return nil, err
	}
	raw, err := module.Open(config.Library)
	if err != nil {
		return nil, hsm.Errorf(hsm.Misconfigured, "%v", err)
	}
	session, err := login(ctx, library, slot, config)
	if err != nil {
		return nil, err
	}
	config.Logger.Info("token opened",
		"label", slot.Label, "serial", slot.Serial, "model", slot.token.Model, "sessions", size, "proxy_sessions", proxied)
	return &Token{
		module:     library,
		raw:        raw,
		slot:       slot,
		role:       config.Role,
		library:    describeLibrary(info),
		vendor:     config.Vendor,
		inspect:    config.Inspect,
		logger:     config.Logger,
		login:      session,
		pool:       newPool(library, slot.ID, size, guardFor(info), config),
		proxied:    proxied,
		describing: make(chan struct{}, 1),
	}, nil
}

// finalize is called only when no other call can be inside the library.
func finalize(module *p11.Ctx, logger *slog.Logger) {
	if err := module.Finalize(); err != nil {
		logger.Warn("PKCS#11 library did not finalise", "error", deviceError(err, "C_Finalize"))
	}
}

// Close refuses new calls, waits for those in flight, logs out and finalises
// the library. When ctx ends first it answers Timeout and leaves the library
// alone, because C_Finalize under a running call crashes; the process should
// then exit, or Close be called again. The library is never unloaded.
func (t *Token) Close(ctx context.Context) error {
	t.closing.Lock()
	defer t.closing.Unlock()
	if t.closed {
		return nil
	}
	if err := t.pool.drain(ctx); err != nil {
		return err
	}
	t.closed = true
	logout := t.module.Logout(t.login)
	if hasCode(logout, p11.CKR_USER_NOT_LOGGED_IN) {
		logout = nil
	}
	sessions := t.module.CloseAllSessions(t.slot.ID)
	finalize(t.module, t.logger)
	for _, err := range []error{logout, sessions} {
		if err != nil {
			t.logger.Warn("token did not close cleanly", "error", deviceError(err, "log out and close sessions"))
		}
	}
	return nil
}
