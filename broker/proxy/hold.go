package proxy

import (
	"context"

	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// hold makes sure that a client's session has one of the device, whose handles are in the
// call that comes; nil if there are none.
func (a *Application) hold(ctx context.Context, s *session, device *backend.Device) cryptoki.RV {
	if len(s.operations) > 0 {
		return a.resume(ctx, s, device)
	}
	l, err := s.token.pool.acquireOn(ctx, a.who, device)
	if err != nil {
		return away(err)
	}
	s.lease = l
	return cryptoki.CKR_OK
}

// resume takes back the device's session that has the operations of a client's session,
// for another one that begins beside them. If they have none, or it was taken away or went
// with the plugin, operations that only were initialised begin on another, and nobody is
// the wiser. One that was fed data is lost.
func (a *Application) resume(ctx context.Context, s *session, device *backend.Device) cryptoki.RV {
	if !s.atHand() {
		if _, rv := a.beginAgain(ctx, s, nil); rv != cryptoki.CKR_OK {
			s.lose()
			return rv
		}
	}
	if device != nil && device != s.lease.device {
		s.rest()
		return cryptoki.CKR_DEVICE_ERROR
	}
	return cryptoki.CKR_OK
}

// atHand reports whether the session has its operations on the device, and has them to
// itself from now on.
func (s *session) atHand() bool {
	return s.lease != nil && s.lease.claim() && !isClosed(s.lease.device.Gone)
}

// proceed makes a call of a session's operations, whose device is nil unless there are
// handles of it in the call. Otherwise than ok they are lost.
func (a *Application) proceed(ctx context.Context, s *session, device *backend.Device, call *cryptoki.Call) (answer *cryptoki.Answer, ok bool) {
	switch {
	case s.atHand():
	case device == nil:
		answer, rv := a.beginAgain(ctx, s, call)
		if rv != cryptoki.CKR_OK {
			return cryptoki.Refuse(rv), false
		}
		return unlessLost(answer)
	default:
		if _, rv := a.beginAgain(ctx, s, nil); rv != cryptoki.CKR_OK {
			return cryptoki.Refuse(rv), false
		}
	}
	if device != nil && device != s.lease.device {
		return cryptoki.Refuse(cryptoki.CKR_DEVICE_ERROR), false
	}
	answer, err := s.lease.do(ctx, call)
	if err != nil {
		return cryptoki.Refuse(cryptoki.CKR_DEVICE_ERROR), false
	}
	return unlessLost(answer)
}

// unlessLost hides a fault of the device's session from the client.
func unlessLost(answer *cryptoki.Answer) (*cryptoki.Answer, bool) {
	if ownFault(answer.RV) {
		return cryptoki.Refuse(cryptoki.CKR_DEVICE_ERROR), false
	}
	return answer, true
}

// beginAgain begins the operations of a session on another one of the device, and makes
// a call of them unless it is nil. A return value other than CKR_OK is why they could not
// begin.
func (a *Application) beginAgain(ctx context.Context, s *session, next *cryptoki.Call) (*cryptoki.Answer, cryptoki.RV) {
	s.drop(false)
	// The keys first: who holds a session must not wait for a second one.
	var keys []*entry
	var calls []cryptoki.Call
	for k, op := range s.operations {
		if op.fed {
			return nil, cryptoki.CKR_DEVICE_ERROR
		}
		call := op.init
		if k != digesting {
			e, rv := a.resolve(ctx, s, call.Numbers[1])
			if rv != cryptoki.CKR_OK || e == nil {
				return nil, cryptoki.CKR_DEVICE_ERROR
			}
			keys, call.Numbers[1] = append(keys, e), e.object.handle
		}
		calls = append(calls, call)
	}
	device, ok := where(keys...)
	if !ok {
		return nil, cryptoki.CKR_DEVICE_ERROR
	}
	for attempt := 0; ; attempt++ {
		l, err := s.token.pool.acquireOn(ctx, a.who, device)
		if err != nil {
			return nil, away(err)
		}
		s.lease = l
		answer, rv := s.token.begin(ctx, l, calls, next)
		switch {
		case rv == cryptoki.CKR_OK:
			return answer, rv
		case attempt == 0 && (rv == cryptoki.CKR_OPERATION_ACTIVE || ownFault(rv)):
			s.drop(false) // something was left on it, or it died while it lay idle
		case ownFault(rv):
			return nil, cryptoki.CKR_DEVICE_ERROR
		default:
			return nil, rv
		}
	}
}

// begin begins operations and makes the next call, together with the last of them.
func (t *token) begin(ctx context.Context, l *lease, calls []cryptoki.Call, next *cryptoki.Call) (answer *cryptoki.Answer, rv cryptoki.RV) {
	for i := range calls {
		var begun *cryptoki.Answer
		var err error
		if i == len(calls)-1 && next != nil {
			begun, answer, err = l.doBoth(ctx, &calls[i], next)
		} else {
			begun, err = l.do(ctx, &calls[i])
		}
		if err != nil {
			return nil, cryptoki.CKR_DEVICE_ERROR
		}
		if begun.RV != cryptoki.CKR_OK {
			if answer != nil {
				clear(answer.Data) // of whatever was left on the session
			}
			t.refuse(&calls[i])
			return nil, begun.RV
		}
	}
	return answer, cryptoki.CKR_OK
}

// rest lends the device's session to others until the next call, or gives it back when
// no operation is left.
func (s *session) rest() {
	if len(s.operations) == 0 {
		s.drop(true)
		return
	}
	fed := false
	for _, op := range s.operations {
		fed = fed || op.fed
	}
	s.lease.park(fed)
}

// drop gives the device's session back.
func (s *session) drop(clean bool) {
	if s.lease != nil {
		s.lease.release(clean)
		s.lease = nil
	}
}

// lose ends all operations with the device's session that they were on.
func (s *session) lose() {
	s.operations = nil
	s.drop(false)
}

// end is what becomes of a session that ends.
func (s *session) end() {
	s.lose()
	s.found, s.search = nil, false
}

// cancel ends an operation for which the client gave no mechanism, as PKCS#11 3.0 has
// it. In 2.40 there is no such thing.
func (s *session) cancel(k kind) *cryptoki.Answer {
	if s.operations[k] == nil {
		return cryptoki.Refuse(cryptoki.CKR_ARGUMENTS_BAD)
	}
	s.lose()
	return cryptoki.Refuse(cryptoki.CKR_OK)
}
