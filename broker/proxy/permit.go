package proxy

import (
	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// permit decides whether the client may do something with an object. What it returns
// is CKR_OK, or the return value of a refusal that is on record.
func (a *Application) permit(t *token, op authz.ObjectOperation, o authz.Object, m *cryptoki.Mechanism) cryptoki.RV {
	return a.decided(t, op, o, m, a.rights().Decide(op, o))
}

// permitAnywhere is permit for what is about no object that others could see.
func (a *Application) permitAnywhere(t *token, op authz.ObjectOperation, o authz.Object, m *cryptoki.Mechanism) cryptoki.RV {
	return a.decided(t, op, o, m, a.rights().Anywhere(op, o))
}

func (a *Application) decided(t *token, op authz.ObjectOperation, o authz.Object, m *cryptoki.Mechanism, decision authz.Decision) cryptoki.RV {
	var rv cryptoki.RV
	switch {
	case a.client.Ready() != nil:
		return cryptoki.CKR_DEVICE_ERROR
	case !decision.Allowed:
		rv = refusal(op)
	case !decision.Spend(a.who, a.proxy.config.Now()):
		rv = cryptoki.CKR_FUNCTION_REJECTED
	default:
		return cryptoki.CKR_OK
	}
	if a.write(t, deed{op, o}, m, audit.Denied, rv) != nil {
		return cryptoki.CKR_DEVICE_ERROR
	}
	return rv
}

// refusal is the return value of an operation that no grant allows: the one that the
// standard has for the function, if it has one.
func refusal(op authz.ObjectOperation) cryptoki.RV {
	switch op {
	case authz.ObjectSign, authz.ObjectVerify, authz.ObjectEncrypt, authz.ObjectDecrypt, authz.ObjectWrap,
		authz.ObjectUnwrap, authz.ObjectDerive:
		return cryptoki.CKR_KEY_FUNCTION_NOT_PERMITTED
	case authz.ObjectExport:
		return cryptoki.CKR_KEY_UNEXTRACTABLE
	default:
		return cryptoki.CKR_ACTION_PROHIBITED
	}
}

// deed is an operation with an object. A call that takes several is on record with each.
type deed struct {
	op     authz.ObjectOperation
	object authz.Object
}

// record writes down what was done with an object and how it ended. Without a record
// there must be no answer.
func (a *Application) record(t *token, d deed, m *cryptoki.Mechanism, rv cryptoki.RV) error {
	if rv == cryptoki.CKR_OK {
		return a.write(t, d, m, audit.Done, rv)
	}
	return a.write(t, d, m, audit.Failed, rv)
}

func (a *Application) write(t *token, d deed, m *cryptoki.Mechanism, outcome audit.Outcome, rv cryptoki.RV) error {
	event := audit.Event{
		Action: audit.PKCS11 + string(d.op), Backend: t.name, Application: true,
		Outcome: outcome, Details: details(d.object, m),
	}
	if rv != cryptoki.CKR_OK {
		event.Reason = rv.String()
	}
	return a.client.Record(event)
}

// recordLogin writes down that an application PIN was given.
func (a *Application) recordLogin(t *token, rv cryptoki.RV) error {
	event := audit.Event{Action: audit.PKCS11Login, Backend: t.name, Application: true, Outcome: audit.Done}
	if rv != cryptoki.CKR_OK {
		event.Outcome, event.Reason = audit.Denied, rv.String()
	}
	return a.client.Record(event)
}

// done records how a call ended that the client was permitted, and returns its answer if
// there is a record.
func (a *Application) done(t *token, m *cryptoki.Mechanism, answer *cryptoki.Answer, deeds ...deed) *cryptoki.Answer {
	for _, d := range deeds {
		if a.record(t, d, m, answer.RV) != nil {
			clear(answer.Data)
			return cryptoki.Refuse(cryptoki.CKR_DEVICE_ERROR)
		}
	}
	return answer
}

// details are what the trail tells of an object, whose names come from outside.
func details(o authz.Object, m *cryptoki.Mechanism) map[string]string {
	const most = 64 // bytes of an ID
	d := audit.ObjectDetails(o.Label, o.ID[:min(len(o.ID), most)], "")
	if m != nil {
		d[audit.DetailMechanism] = cryptoki.MechanismName(m.Type)
	}
	return d
}
