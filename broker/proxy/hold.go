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

// resume takes back the device's session that has the operations of a client's session.
// If it was taken away or went with the plugin, operations that only were initialised
// begin again on another, and nobody is the wiser. One that was fed data is lost.
func (a *Application) resume(ctx context.Context, s *session, device *backend.Device) cryptoki.RV {
	if !s.lease.claim() || isClosed(s.lease.device.Gone) {
		if rv := a.beginAgain(ctx, s); rv != cryptoki.CKR_OK {
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

// beginAgain begins the operations of a session on another one of the device.
func (a *Application) beginAgain(ctx context.Context, s *session) cryptoki.RV {
	s.drop(false)
	// The keys first: who holds a session must not wait for a second one.
	var keys []*entry
	var calls []cryptoki.Call
	for k, op := range s.operations {
		if op.fed {
			return cryptoki.CKR_DEVICE_ERROR
		}
		call := op.init
		if k != digesting {
			e, rv := a.resolve(ctx, s, call.Numbers[1])
			if rv != cryptoki.CKR_OK || e == nil {
				return cryptoki.CKR_DEVICE_ERROR
			}
			keys, call.Numbers[1] = append(keys, e), e.object.handle
		}
		calls = append(calls, call)
	}
	device, ok := where(keys...)
	if !ok {
		return cryptoki.CKR_DEVICE_ERROR
	}
	l, err := s.token.pool.acquireOn(ctx, a.who, device)
	if err != nil {
		return away(err)
	}
	s.lease = l
	for _, call := range calls {
		answer, err := l.do(ctx, &call)
		if err != nil || answer.RV != cryptoki.CKR_OK {
			return cryptoki.CKR_DEVICE_ERROR
		}
	}
	return cryptoki.CKR_OK
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
