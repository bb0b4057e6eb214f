package broker

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
)

// Reloaded is what a configuration says that was read again.
type Reloaded struct {
	Policy *authz.Policy
	// Restart names the settings that differ from those that the daemon runs with,
	// and stay as they are until it is started anew.
	Restart []string
}

// ReloadPolicy reads the policy again and puts it in the place of the old one, for
// every call that begins afterwards. When that fails, or cannot be recorded, the
// old one stays.
func (b *Broker) ReloadPolicy(ctx context.Context, call Call) (Reloaded, error) {
	// Who reads last must also be the last to store.
	b.reloading.Lock()
	defer b.reloading.Unlock()
	loaded, err := b.Reload()
	event := audit.Event{Action: audit.PolicyReload}
	if err != nil {
		err = failure.New(failure.Invalid, "CONFIGURATION", "the old policy stays: %v", err).
			WithHint("`kmsbrokerd --check-config` lists all that is wrong with the file")
	} else {
		event.Details = map[string]string{
			audit.DetailGrants: strconv.Itoa(loaded.Policy.Len()), audit.DetailObjectGrants: strconv.Itoa(loaded.Policy.LenObjects()),
		}
	}
	if err := b.finish(withCall(ctx, call), event, err); err != nil {
		return Reloaded{}, err
	}
	b.policy.Store(loaded.Policy)
	return loaded, nil
}

// Explanation is what the policy says to a request, and why.
type Explanation struct {
	Caller   authz.Caller // as the daemon would know it
	Decision authz.Decision
	Why      string // a sentence
	// Considered are all grants of the kind. It is empty when the request is refused whatever they
	// say.
	Considered []authz.Consideration
}

// ExplainPolicy answers what would be decided, asking neither KMS nor the audit
// trail and taking nothing from a rate.
func (b *Broker) ExplainPolicy(r authz.Request) (Explanation, error) {
	if err := checkOperation(authz.Operations(), r.Operation); err != nil {
		return Explanation{}, err
	}
	b.forgetUnit(&r.Caller)
	if err := checkContext(r.Context); err != nil {
		return Explanation{Caller: r.Caller, Why: err.Error()}, nil
	}
	policy := b.policy.Load()
	decision := policy.Decide(r)
	return Explanation{Caller: r.Caller, Decision: decision, Why: why("grant", decision), Considered: policy.Explain(r)}, nil
}

// ExplainObject does the same for an object of a token. That some are hidden from
// everybody, whatever grants say, it does not know.
func (b *Broker) ExplainObject(q authz.ObjectRequest) (Explanation, error) {
	if err := checkOperation(authz.ObjectOperations(), q.Operation); err != nil {
		return Explanation{}, err
	}
	if q.Caller.App != "" {
		return Explanation{}, failure.New(failure.Invalid, "CALLER", "applications with an access key do not speak PKCS#11").
			WithHint("ask about the user that the application runs as")
	}
	b.forgetUnit(&q.Caller)
	decision, considered := b.policy.Load().ExplainObject(q)
	return Explanation{Caller: q.Caller, Decision: decision, Why: why("pkcs11 grant", decision), Considered: considered}, nil
}

func checkOperation[T ~string](all []T, operation T) error {
	if slices.Contains(all, operation) {
		return nil
	}
	names := make([]string, len(all))
	for i, op := range all {
		names[i] = string(op)
	}
	return failure.New(failure.Invalid, "OPERATION", "there is no operation %.40q", string(operation)).
		WithHint("there are %s", strings.Join(names, ", "))
}

// forgetUnit makes of a caller what the daemon would know of it.
func (b *Broker) forgetUnit(c *authz.Caller) {
	if b.UnitsUnknown != "" && c.App == "" {
		c.Unit = authz.Unit{Unknown: true, Why: b.UnitsUnknown}
	}
}

func why(grant string, d authz.Decision) string {
	number, _, _ := d.Grant()
	switch {
	case number == 0:
		return "no " + grant + " allows it"
	case d.Allowed && d.PIN():
		return fmt.Sprintf("%s %d allows it after a login with its application PIN", grant, number)
	case d.Allowed:
		return fmt.Sprintf("%s %d allows it", grant, number)
	default:
		return fmt.Sprintf("%s %d denies it", grant, number)
	}
}
