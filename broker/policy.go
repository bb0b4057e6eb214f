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
		event.Details = map[string]string{audit.DetailGrants: strconv.Itoa(loaded.Policy.Len())}
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
	// Considered are all grants. It is empty when the request is refused whatever they
	// say.
	Considered []authz.Consideration
}

// ExplainPolicy answers what would be decided, asking neither KMS nor the audit
// trail and taking nothing from a rate.
func (b *Broker) ExplainPolicy(r authz.Request) (Explanation, error) {
	if !slices.Contains(authz.Operations(), r.Operation) {
		var names []string
		for _, op := range authz.Operations() {
			names = append(names, string(op))
		}
		return Explanation{}, failure.New(failure.Invalid, "OPERATION", "there is no operation %.40q", string(r.Operation)).
			WithHint("there are %s", strings.Join(names, ", "))
	}
	if b.UnitsUnknown != "" && r.Caller.App == "" {
		r.Caller.Unit = authz.Unit{Unknown: true, Why: b.UnitsUnknown}
	}
	if err := checkContext(r.Context); err != nil {
		return Explanation{Caller: r.Caller, Why: err.Error()}, nil
	}
	policy := b.policy.Load()
	decision := policy.Decide(r)
	return Explanation{Caller: r.Caller, Decision: decision, Why: why(decision), Considered: policy.Explain(r)}, nil
}

func why(d authz.Decision) string {
	number, _, _ := d.Grant()
	switch {
	case number == 0:
		return "no grant allows it"
	case d.Allowed:
		return fmt.Sprintf("grant %d allows it", number)
	default:
		return fmt.Sprintf("grant %d denies it", number)
	}
}
