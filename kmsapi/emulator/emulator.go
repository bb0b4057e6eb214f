// Package emulator is an Alibaba Cloud KMS (API version 2016-01-20) that runs
// here and really keeps keys: it generates them, imports them, encrypts with
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
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

const apiVersion = "2016-01-20"

// Config says what an emulator is like.
type Config struct {
	// Regions that exist; the first is that of requests which name none.
	Regions []string
	// AccessKeyID and AccessKeySecret are of the only identity, which may do
	// everything.
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
	// Clock is the time by which material and import tokens expire, keys are
	// deleted and quotas fill again; nil is time.Now. Signatures are judged by
	// the real time whatever Clock says, because SDKs sign with that.
	Clock func() time.Time
	// Logger gets one line for each request, without its parameters; nil logs
	// nothing.
	Logger *slog.Logger
}

// Server is an emulated KMS. It is an http.Handler; set wire.MaxHeader as
// MaxHeaderBytes of the http.Server around it.
type Server struct {
	names    []string // of the regions, the default one first
	regions  map[string]*region
	quotas   map[string]quota
	maxKeys  int // 0: no limit
	clock    func() time.Time
	logger   *slog.Logger
	verifier *wire.Verifier
	store    *store // nil: memory only
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
		names:   slices.Clone(cfg.Regions),
		regions: map[string]*region{},
		quotas:  map[string]quota{},
		clock:   cfg.Clock,
		logger:  cfg.Logger,
		verifier: wire.NewVerifier(wire.VerifierConfig{
			Secrets: root{cfg.AccessKeyID, cfg.AccessKeySecret}, Now: time.Now, QuoteStringToSign: true,
		}),
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
	if err := s.load(cfg.StateDir); err != nil {
		return nil, fmt.Errorf("emulator: %w", errors.Join(err, s.Close()))
	}
	return s, nil
}

func (s *Server) load(dir string) error {
	if dir != "" {
		store, err := openStore(dir)
		if err != nil {
			return err
		}
		s.store = store
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

// root is the identity that owns the account.
type root struct{ id, secret string }

// Secret implements wire.Secrets.
func (r root) Secret(accessKeyID, securityToken string) (string, error) {
	if accessKeyID != r.id {
		return "", wire.ErrUnknownAccessKey
	}
	if securityToken != "" {
		return "", wire.ErrTokenMismatch
	}
	return r.secret, nil
}

// ServeHTTP answers one request of the KMS API.
func (s *Server) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	begin := time.Now()
	r, err := wire.Parse(hr)
	var regionName string
	var result any
	if err == nil {
		regionName, result, err = s.serve(r)
	}
	status, code := http.StatusOK, ""
	var sendErr error
	if err == nil {
		sendErr = wire.WriteResult(w, r, result)
	} else {
		e, ok := errors.AsType[*wire.Error](err)
		if !ok {
			s.logger.Error("operation failed", "action", r.Action, "request_id", r.ID, "error", err)
			e = wire.ErrInternal
		}
		status, code = e.Status, e.Code
		sendErr = wire.WriteError(w, r, e)
	}
	if sendErr != nil {
		s.logger.Warn("answer not sent", "request_id", r.ID, "error", sendErr)
	}
	s.logger.Info("request", "action", loggedAction(r.Action), "region", regionName, "status", status,
		"code", code, "request_id", r.ID, "duration", time.Since(begin))
}

// loggedAction is the name of an operation, never other text of a client.
func loggedAction(action string) string {
	if _, ok := operations[action]; ok {
		return action
	}
	return "unknown"
}

// serve does what a request asks for.
func (s *Server) serve(r *wire.Request) (regionName string, result any, err error) {
	if err := s.verifier.Verify(r); err != nil {
		return "", nil, err
	}
	op, ok := operations[r.Action]
	switch {
	case r.Version != apiVersion:
		return "", nil, wire.ErrUnknownVersion
	case !ok:
		return "", nil, wire.ErrUnknownAction
	}
	name := s.regionOf(r)
	region, ok := s.regions[name]
	if !ok {
		return "", nil, errRegionNotFound
	}
	now := s.clock().UTC()
	if err := s.quotas[name].take(op.class, now); err != nil {
		return name, nil, err
	}
	if err := region.advance(now); err != nil {
		return name, nil, err
	}
	c := &call{op: op, server: s, region: region, params: r.Params, now: now}
	result, err = c.doOrTry()
	return name, result, err
}

// regionOf finds the region of a request: in its host name, as
// kms.REGION.aliyuncs.com and kms-vpc.REGION.aliyuncs.com, else in what the
// client says, else the default.
func (s *Server) regionOf(r *wire.Request) string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if rest, ok := strings.CutSuffix(host, ".aliyuncs.com"); ok {
		service, name, _ := strings.Cut(rest, ".")
		if (service == "kms" || service == "kms-vpc") && name != "" {
			return name
		}
	}
	if r.Region != "" {
		return r.Region
	}
	return s.names[0]
}
