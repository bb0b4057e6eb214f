// Package alibaba is the door that speaks Alibaba Cloud's own KMS protocol, so that
// an application that was written for KMS needs another endpoint and nothing else.
//
// On a Unix socket the kernel says who calls, and whatever a request was signed
// with is ignored. Over TCP, where it says nothing, a request is signed with an
// access key that the broker issued to the application.
package alibaba

import (
	"context"
	"log/slog"
	"net/http"

	"go.opentelemetry.io/otel/trace"

	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/serve"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// Door names this door in the audit trail.
const Door = "alibaba"

// Limits of a request in bytes. SDKs put all parameters into the URL. The largest
// is ReEncrypt's: a ciphertext and two contexts, and percent-encoding makes three
// of a byte.
const (
	MaxHeader = 128 << 10
	maxBody   = 128 << 10
)

// apiVersion is the version of the KMS API.
const apiVersion = "2016-01-20"

// Config is what a door is made of.
type Config struct {
	Core    *broker.Broker
	Log     *slog.Logger
	Observe serve.Observe
	Callers Callers
	Tracer  trace.Tracer // nil: nothing is traced
}

// Callers says who calls.
type Callers interface {
	// Begin is asked before the body of a request is read.
	Begin(ctx context.Context) (*Visit, error)
	// Identify says whose a request is that was read.
	Identify(v *Visit, r *wire.Request) (authz.Caller, error)
}

// Visit is a call's place among those of its share.
type Visit struct {
	caller authz.Caller
	leave  func()
}

// Server is the door. It implements http.Handler.
type Server struct {
	core    *broker.Broker
	log     *slog.Logger
	calls   *serve.Calls
	callers Callers
}

// New makes a door to a core.
func New(config Config) *Server {
	return &Server{config.Core, config.Log, serve.NewCalls(config.Log, config.Observe, config.Tracer), config.Callers}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	ctx, cancel := context.WithTimeout(hr.Context(), serve.CallTime)
	defer cancel()
	visit, err := s.callers.Begin(ctx)
	if err != nil {
		s.sent(wire.Refuse(w, hr, refusal(err)))
		return
	}
	defer func() { visit.leave() }()
	hr.Body = http.MaxBytesReader(w, hr.Body, maxBody)
	r, err := wire.Parse(hr)
	if err == nil {
		visit.caller, err = s.callers.Identify(visit, r)
	}
	var answer result
	err = s.calls.Do(ctx, visit.caller, "/"+Door+"/"+operationName(r), func(ctx context.Context) error {
		if err == nil {
			answer, err = s.serve(ctx, visit.caller, r)
		}
		return asFailure(err)
	})
	if err != nil {
		if f := failure.From(err); f.RequestID != "" {
			r.ID = f.RequestID
		}
		s.sent(wire.WriteError(w, r, refusal(err)))
		return
	}
	if answer.requestID != "" {
		r.ID = answer.requestID
	}
	s.sent(wire.WriteResult(w, r, answer.body))
}

// sent notes that a caller did not wait for its answer.
func (s *Server) sent(err error) {
	if err != nil {
		s.log.Debug("answer not sent", "door", Door, "error", err)
	}
}

// result is what came of a call, and Alibaba Cloud's ID of the request to KMS that
// was behind it, "" without one.
type result struct {
	body      any
	requestID string
}

// serve does what a request asks for.
func (s *Server) serve(ctx context.Context, caller authz.Caller, r *wire.Request) (result, error) {
	op, ok := operations[r.Action]
	switch {
	case r.Version != apiVersion:
		return result{}, wire.ErrUnknownVersion
	case !ok:
		return result{}, wire.ErrUnknownAction
	}
	for _, name := range op.required {
		if r.Params[name] == "" {
			return result{}, wire.MissingParameter(name)
		}
	}
	for _, name := range op.unsupported {
		if r.Params[name] != "" {
			return result{}, wire.ErrUnsupported
		}
	}
	// It would be done, and not only tried.
	switch dry, err := r.Params.Boolean("DryRun"); {
	case err != nil:
		return result{}, err
	case dry:
		return result{}, wire.ErrUnsupported
	}
	if _, err := s.core.Regions.In(r.Region); err != nil {
		return result{}, wire.ErrUnknownRegion
	}
	return op.run(ctx, &call{core: s.core, from: broker.Call{Caller: caller, Door: Door}, region: r.Region, params: r.Params})
}
