package kmsapi

import (
	"context"
	"errors"
	"net/http"
)

// Stage says how far a call came that failed.
type Stage int

// The stages. The zero value is the most careful one.
const (
	// StageSent: the request, or a part of it, may have reached the service,
	// which did not answer, or not to the end.
	StageSent Stage = iota
	// StageConnect: there was no connection to send the request through.
	StageConnect
	// StageLocal: the call was refused on this side, for its parameters, its
	// credentials or a limit that the caller set itself. Nothing was sent.
	StageLocal
	// StageAnswered: an answer arrived whole, readable or not.
	StageAnswered
)

// Throttled reports that the call was refused for a quota. Both spellings of the
// service count, KMS's own 429 Rejected.Throttling and the gateway's 400
// Throttling, Throttling.User and Throttling.Api, and so does a Cause with a
// method Throttled, by which a limit on this side makes itself known.
func (e *Error) Throttled() bool {
	switch e.Code {
	case "Rejected.Throttling", "Throttling", "Throttling.User", "Throttling.Api":
		return true
	}
	var cause interface{ Throttled() bool }
	if e.Stage == StageLocal && errors.As(e.Cause, &cause) {
		return cause.Throttled()
	}
	return e.Status == http.StatusTooManyRequests
}

// OutcomeUnknown reports that the service may have done what was asked although
// the call failed. Only a readable refusal below 500, or a request that was never
// sent, rules that out.
func (e *Error) OutcomeUnknown() bool {
	switch {
	case e.EarlierUnknown:
		return true
	case e.Stage == StageConnect, e.Stage == StageLocal:
		return false
	default:
		return e.Code == "" || e.Status >= http.StatusInternalServerError
	}
}

// Broken reports that the service or the way to it is out of order: there was no
// answer, or not to the end, or one with status 5xx, or a redirect. A refusal is
// none of these, nor is a caller's change of mind.
func (e *Error) Broken() bool {
	switch {
	case e.Stage == StageLocal, e.Throttled(), errors.Is(e.Cause, context.Canceled):
		return false
	case e.Stage == StageConnect, e.Status == 0, e.Status >= http.StatusInternalServerError:
		return true
	case e.Code != "":
		return false
	default:
		// A success without the documented form may be due to one key's metadata,
		// and a proxy's refusal to the contents of one call: neither says that
		// other calls would fail.
		return e.Stage == StageSent || e.Status/100 == 3
	}
}

// Temporary reports that the same call may succeed in a moment: it was throttled,
// or something broke that could be whole again. Whether it may be repeated is
// another question: see [Error.OutcomeUnknown].
func (e *Error) Temporary() bool {
	if e.Stage == StageAnswered && e.Code == "" && e.Status < http.StatusInternalServerError {
		return e.Throttled()
	}
	return e.Throttled() || e.Broken()
}
