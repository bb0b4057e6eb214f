package emulator

import (
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/faults"
	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/ram"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// ServeHTTP answers one request of the KMS, RAM or STS API.
func (s *Server) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	if s.control != nil && strings.HasPrefix(hr.URL.Path, controlPath) {
		s.control.ServeHTTP(w, hr)
		return
	}
	s.handle(w, hr, "")
}

// handle answers one request that came through the dedicated gateway of a KMS
// instance, or, when gateway is empty, through the shared one.
func (s *Server) handle(w http.ResponseWriter, hr *http.Request, gateway string) {
	begin := time.Now()
	r, err := wire.Parse(hr)
	region := s.regionOf(r)
	if gateway != "" {
		region = s.names[0]
	}
	fault, faulty := s.faults.Pick(r.Action, region)
	status, code := 0, ""
	defer func() {
		s.logger.Info("request", "action", loggedAction(r), "region", region, "gateway", gateway, "status", status,
			"code", code, "fault", string(fault.Kind), "request_id", r.ID, "duration", time.Since(begin))
	}()
	if faulty {
		fault.Wait(hr.Context())
	}
	if faulty && fault.Kind == faults.Skew && err == nil {
		now := time.Now().Add(time.Duration(fault.Skew))
		w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
		err = r.CheckTime(now)
	}
	var result any
	replaced := faulty && fault.Replaces()
	if err == nil && (!replaced || fault.After) {
		result, err = s.serve(r, region, gateway)
	}
	if replaced {
		err = fault.Answer(w, r)
	} else {
		status, code, err = s.answer(w, r, result, err)
	}
	if err != nil {
		s.logger.Warn("answer not sent", "request_id", r.ID, "error", err)
	}
}

// answer sends what came of a request.
func (s *Server) answer(w http.ResponseWriter, r *wire.Request, result any, err error) (status int, code string, sendErr error) {
	if err == nil {
		return http.StatusOK, "", wire.WriteResult(w, r, result)
	}
	e, ok := errors.AsType[*wire.Error](err)
	if !ok {
		s.logger.Error("operation failed", "action", loggedAction(r), "request_id", r.ID, "error", err)
		e = wire.ErrInternal
	}
	return e.Status, e.Code, wire.WriteError(w, r, e)
}

// loggedAction is the name of an operation, never other text of a client.
func loggedAction(r *wire.Request) string {
	if _, ok := operations[r.Action]; ok || slices.Contains(absent, r.Action) || ram.Knows(r.Version, r.Action) {
		return r.Action
	}
	return "unknown"
}

// serve does what a request asks for.
func (s *Server) serve(r *wire.Request, region, gateway string) (any, error) {
	who, err := s.caller(r)
	if err != nil {
		return nil, err
	}
	if gateway != "" && (r.Version != apiVersion || !throughGateway(r.Action)) {
		return nil, wire.ErrUnsupported
	}
	switch r.Version {
	case apiVersion:
		return s.serveKMS(r, region, gateway, who)
	case ram.APIVersion:
		return s.account.Serve(r, who)
	case ram.STSVersion:
		return s.account.ServeSTS(r, who)
	}
	return nil, wire.ErrUnknownVersion
}

// caller finds out who signed a request.
func (s *Server) caller(r *wire.Request) (ram.Identity, error) {
	if ram.Unsigned(r) {
		return ram.Identity{}, nil
	}
	err := s.verifier.Verify(r)
	var who ram.Identity
	if err == nil {
		who, err = s.account.Identify(r.AccessKeyID, r.SecurityToken)
	}
	if errors.Is(err, wire.ErrInactiveAccessKey) && r.Version == apiVersion {
		err = errAccessKey // KMS has its own word for it
	}
	return who, err
}

func (s *Server) serveKMS(r *wire.Request, name, gateway string, who ram.Identity) (any, error) {
	op, ok := operations[r.Action]
	switch {
	case slices.Contains(absent, r.Action):
		return nil, wire.ErrUnsupported
	case !ok:
		return nil, wire.ErrUnknownAction
	}
	region, ok := s.regions[name]
	if !ok {
		return nil, wire.ErrUnknownRegion
	}
	now := s.clock().UTC()
	// An instance has no quota but does what it can.
	if gateway == "" {
		if err := s.quotas[name].take(op.class, now); err != nil {
			return nil, err
		}
	}
	if err := region.advance(now); err != nil {
		return nil, err
	}
	c := &call{
		op: op, server: s, region: region, gateway: gateway, request: r, who: who, permission: r.Action, params: r.Params, now: now,
	}
	return c.doOrTry()
}

// regionOf finds the region of a request: in its host name, as
// kms.REGION.aliyuncs.com and kms-vpc.REGION.aliyuncs.com, else in what the
// client says, else the default. RAM and STS have no region.
func (s *Server) regionOf(r *wire.Request) string {
	if r.Version == ram.APIVersion || r.Version == ram.STSVersion {
		return ""
	}
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
