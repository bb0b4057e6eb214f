// Package emulator is an Alibaba Cloud KMS (API version 2016-01-20) that runs
// here, with the RAM and STS that decide who may call it, and really keeps keys: it generates them, imports them, encrypts with
// them, lets them expire, and remembers them across a restart. Official SDKs
// talk to it unchanged. It exists for tests, demonstrations and development; the
// README beside it says what is faithful, what is guessed and what is absent.
//
// It shares nothing with the client in package kmsapi, not even constants, so
// that a misspelling on one side is a failure and not an agreement.
//
// An emulator is no place for a real key: material is kept in clear, in memory
// and in the state directory.
package emulator

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/faults"
	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/ram"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

const apiVersion = "2016-01-20"

// Config says what an emulator is like.
type Config struct {
	// Regions that exist; the first is that of requests which name none.
	Regions []string
	// Instances are the IDs of the KMS instances, which are in the first region
	// and whose keys work through [Server.Gateway] alone.
	Instances []string
	// AccessKeyID and AccessKeySecret are of the account itself, the root, which
	// may do everything. RAM users get theirs from the emulated RAM.
	AccessKeyID     string
	AccessKeySecret string
	// StateDir keeps the state, in one file that only one emulator uses at a
	// time. It is made with mode 0700 when it is missing. Key material is in
	// clear in there. Empty: memory only.
	StateDir string
	// Quota enforces the service's limits on requests per second and on the
	// number of keys, for each region.
	Quota bool
	// MaxKeys replaces the limit of 200 keys; with Quota alone.
	MaxKeys int
	// Control serves /-/faults, which makes the emulator misbehave, and /-/keys,
	// which lists the keys of all regions. Both answer whoever reaches them.
	Control bool
	// Clock is the time by which material, import tokens and temporary
	// credentials expire, keys are deleted and quotas fill again; nil is time.Now. Signatures are judged by
	// the real time whatever Clock says, because SDKs sign with that.
	Clock func() time.Time
	// Logger gets one line for each request, without its parameters; nil logs
	// nothing.
	Logger *slog.Logger
}

// Server is an emulated account with its KMS. It is an http.Handler; set wire.MaxHeader as
// MaxHeaderBytes of the http.Server around it.
type Server struct {
	names     []string // of the regions, the default one first
	instances []string
	regions   map[string]*region
	quotas    map[string]quota
	maxKeys   int // 0: no limit
	clock     func() time.Time
	logger    *slog.Logger
	verifier  *wire.Verifier
	store     *store // nil: memory only
	account   *ram.Account
	faults    faults.Injector
	control   http.Handler // nil: none
}

var validRegion = regexp.MustCompile(`^[a-z0-9-]+$`)

func (cfg Config) check() error {
	if len(cfg.Regions) == 0 {
		return errors.New("emulator: no region is configured")
	}
	for i, name := range cfg.Regions {
		if !validRegion.MatchString(name) || slices.Contains(cfg.Regions[:i], name) {
			return fmt.Errorf("emulator: region %q is not a region name or is there twice", name)
		}
	}
	for i, id := range cfg.Instances {
		if !validInstance.MatchString(id) || slices.Contains(cfg.Instances[:i], id) {
			return fmt.Errorf("emulator: KMS instance %q is not an ID of the form kst-bjj66 or is there twice", id)
		}
	}
	if cfg.AccessKeyID == "" || cfg.AccessKeySecret == "" {
		return errors.New("emulator: the root needs an AccessKey ID and secret")
	}
	if cfg.MaxKeys < 0 {
		return fmt.Errorf("emulator: a maximum of %d keys makes no sense", cfg.MaxKeys)
	}
	return nil
}

// New returns an emulator with the state that its directory holds. Close it.
func New(cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Server{
		names:     slices.Clone(cfg.Regions),
		instances: slices.Clone(cfg.Instances),
		regions:   map[string]*region{},
		quotas:    map[string]quota{},
		clock:     cfg.Clock,
		logger:    cfg.Logger,
	}
	if cfg.Control {
		s.control = s.newControl()
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Quota {
		if s.maxKeys = cfg.MaxKeys; s.maxKeys == 0 {
			s.maxKeys = defaultMaxKeys
		}
		for _, name := range s.names {
			s.quotas[name] = newQuota()
		}
	}
	if err := s.load(cfg); err != nil {
		return nil, fmt.Errorf("emulator: %w", errors.Join(err, s.Close()))
	}
	s.verifier = wire.NewVerifier(wire.VerifierConfig{Secrets: s.account, Now: time.Now, QuoteStringToSign: true})
	return s, nil
}

func (s *Server) load(cfg Config) (err error) {
	who := ram.Config{ID: account, RootID: cfg.AccessKeyID, RootSecret: cfg.AccessKeySecret, Now: s.clock}
	if cfg.StateDir != "" {
		if s.store, err = openStore(cfg.StateDir); err != nil {
			return err
		}
		if who.State, err = s.store.account(); err != nil {
			return err
		}
		who.Save = s.store.saveAccount
	}
	if s.account, err = ram.New(who); err != nil {
		return err
	}
	for _, name := range s.names {
		r, err := newRegion(name, s.store)
		if err != nil {
			return err
		}
		s.regions[name] = r
	}
	return nil
}

// Close gives the state directory free. Requests that come later and change
// something fail.
func (s *Server) Close() error {
	if s.store == nil {
		return nil
	}
	return s.store.close()
}

// Faults makes requests go wrong, for tests in the same process.
func (s *Server) Faults() *faults.Injector { return &s.faults }

// Metadata is the metadata service of an ECS instance that has a role of the
// account, see [ram.Account.Metadata].
func (s *Server) Metadata(role string) http.Handler { return s.account.Metadata(role) }

// WrappingKey returns the private half of the wrapping key that belongs to an
// import token, while the token is good. No KMS can do that: it exists because
// this is an emulator, so that tests and tools can see for themselves what a
// wrapped blob holds.
func (s *Server) WrappingKey(importToken string) (*rsa.PrivateKey, bool) {
	for _, r := range s.regions {
		if t, ok := r.token(importToken); ok && t.private != nil && s.clock().Before(t.ExpiresAt) {
			return t.private, true
		}
	}
	return nil, false
}
