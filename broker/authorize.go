package broker

import (
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// authorize checks a caller's right to a named key, takes the call from the rate
// of its grant, and returns the key's current CMK and the KMS of that. Whether a
// key exists is nobody's business who has no grant on its name.
func (b *Broker) authorize(r authz.Request, region string) (*keyring.CMK, kmsapi.KMS, error) {
	if _, err := b.permit(r); err != nil {
		return nil, nil, err
	}
	return b.locate(r.Key, region)
}

// permit asks the policy and takes the call from the rate of the grant.
func (b *Broker) permit(r authz.Request) (authz.Decision, error) {
	decision, err := b.allowed(r)
	if err == nil && !decision.Spend(r.Caller.Identity(), b.Now()) {
		err = throttled(decision, r.Caller)
	}
	return decision, err
}

// allowed asks the policy.
func (b *Broker) allowed(r authz.Request) (authz.Decision, error) {
	if err := checkContext(r.Context); err != nil {
		return authz.Decision{}, err
	}
	if err := b.Audit.Ready(); err != nil {
		return authz.Decision{}, unrecorded(err)
	}
	decision := b.policy.Load().Decide(r)
	if !decision.Allowed {
		return decision, denied(r, decision)
	}
	return decision, nil
}

// denied says who may not do what, to the one who may not.
func denied(r authz.Request, by authz.Decision) error {
	what := "any key"
	if r.Key != "" {
		what = "key " + quoteName(r.Key)
	}
	number, _, _ := by.Grant()
	switch {
	case number > 0:
		return failure.New(failure.Denied, "GRANT_DENIES", "grant %d denies %s to %s with %s", number, r.Caller, r.Operation, what).
			WithHint("`kmsbrokerctl policy explain` tells an administrator where the grant is written")
	case r.Caller.Unit.Unknown:
		return failure.New(failure.Denied, "NO_GRANT", "no grant lets %s %s with %s", r.Caller, r.Operation, what).
			WithHint("grants to units were not asked, because the caller's unit is unknown: %s", r.Caller.Unit.Why)
	default:
		return failure.New(failure.Denied, "NO_GRANT", "no grant lets %s %s with %s", r.Caller, r.Operation, what).
			WithHint("an administrator can add a [[grant]] to the configuration of kmsbrokerd")
	}
}

func throttled(by authz.Decision, caller authz.Caller) error {
	number, _, rate := by.Grant()
	return failure.New(failure.Throttled, authz.ReasonRate, "%s has used up the %s of grant %d", caller.Identity(), rate, number).
		WithHint("call less often, or have an administrator raise the rate of the grant")
}

func quoteName(name string) string {
	if keyring.CheckName(name) != nil {
		return "of that name"
	}
	return "\"" + name + "\""
}
