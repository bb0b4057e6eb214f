package proxy

import (
	"context"
	"slices"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// material are the attributes that are the secret of a key. A device shows them of keys
// that are extractable and not sensitive.
var material = map[uint64]bool{
	cryptoki.CKA_VALUE: true, cryptoki.CKA_PRIVATE_EXPONENT: true,
	cryptoki.CKA_PRIME_1: true, cryptoki.CKA_PRIME_2: true,
	cryptoki.CKA_EXPONENT_1: true, cryptoki.CKA_EXPONENT_2: true, cryptoki.CKA_COEFFICIENT: true,
}

// attributes answers who sees an object with what the device shows of it. Only the
// secret of a key is sensitive, whatever the device says, to who may not export it.
func (a *Application) attributes(ctx context.Context, s *session, e *entry, call *cryptoki.Call) *cryptoki.Answer {
	o, asked := e.named()
	asksSecret := e.object.secret() && slices.ContainsFunc(call.Templates[0], func(wanted cryptoki.Attribute) bool { return material[wanted.Type] })
	if !asksSecret || !asked {
		answer, _ := s.token.once(ctx, a.who, e.object.device, call)
		return answer
	}
	if a.rights().Decide(authz.ObjectExport, o).Allowed {
		answer, _ := s.token.once(ctx, a.who, e.object.device, call)
		if !secretIn(answer) {
			return answer // the device keeps it
		}
		return a.done(s.token, nil, answer, deed{authz.ObjectExport, o})
	}
	return a.withoutSecret(ctx, e, call)
}

// secret reports an object of which a part is secret.
func (o *object) secret() bool {
	return o.class == cryptoki.CKO_SECRET_KEY || o.class == cryptoki.CKO_PRIVATE_KEY
}

func secretIn(answer *cryptoki.Answer) bool {
	for _, attribute := range answer.Attributes {
		if material[attribute.Type] && attribute.Value != nil {
			return true
		}
	}
	return false
}

// withoutSecret asks the device for the other attributes alone.
func (a *Application) withoutSecret(ctx context.Context, e *entry, call *cryptoki.Call) *cryptoki.Answer {
	wanted := call.Templates[0]
	rest := make([]cryptoki.Attribute, 0, len(wanted))
	for _, attribute := range wanted {
		if !material[attribute.Type] {
			rest = append(rest, attribute)
		}
	}
	answer := &cryptoki.Answer{}
	if len(rest) > 0 {
		call.Templates[0] = rest
		answer, _ = e.token.once(ctx, a.who, e.object.device, call)
		if len(answer.Attributes) != len(rest) {
			return answer // refused as a whole
		}
	}
	all := make([]cryptoki.Attribute, 0, len(wanted))
	shown := answer.Attributes
	for _, attribute := range wanted {
		if material[attribute.Type] {
			all = append(all, cryptoki.Attribute{Type: attribute.Type, Length: cryptoki.Unavailable})
			continue
		}
		all, shown = append(all, shown[0]), shown[1:]
	}
	return &cryptoki.Answer{RV: cryptoki.CKR_ATTRIBUTE_SENSITIVE, Attributes: all}
}
