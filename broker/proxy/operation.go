package proxy

import (
	"context"
	"slices"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// kind is a kind of operation. A session has one of a kind at a time.
type kind int

const (
	encrypting kind = iota
	decrypting
	digesting
	signing
	signRecovering
	verifying
	verifyRecovering
)

// begins are the functions that begin an operation.
var begins = map[cryptoki.Function]kind{
	cryptoki.EncryptInit: encrypting, cryptoki.DecryptInit: decrypting, cryptoki.DigestInit: digesting,
	cryptoki.SignInit: signing, cryptoki.SignRecoverInit: signRecovering,
	cryptoki.VerifyInit: verifying, cryptoki.VerifyRecoverInit: verifyRecovering,
}

// uses are what grants call the operations.
var uses = map[kind]authz.ObjectOperation{
	encrypting: authz.ObjectEncrypt, decrypting: authz.ObjectDecrypt, digesting: authz.TokenDigest,
	signing: authz.ObjectSign, signRecovering: authz.ObjectSign,
	verifying: authz.ObjectVerify, verifyRecovering: authz.ObjectVerify,
}

// step is what a function does to the operations that it is about.
type step struct {
	kinds []kind
	// last says that the operation ends with it, unless the client only asked for a
	// length or had too little room.
	last bool
}

var steps = map[cryptoki.Function]step{
	cryptoki.Encrypt:       {[]kind{encrypting}, true},
	cryptoki.EncryptUpdate: {[]kind{encrypting}, false},
	cryptoki.EncryptFinal:  {[]kind{encrypting}, true},
	cryptoki.Decrypt:       {[]kind{decrypting}, true},
	cryptoki.DecryptUpdate: {[]kind{decrypting}, false},
	cryptoki.DecryptFinal:  {[]kind{decrypting}, true},
	cryptoki.Digest:        {[]kind{digesting}, true},
	cryptoki.DigestUpdate:  {[]kind{digesting}, false},
	cryptoki.DigestKey:     {[]kind{digesting}, false},
	cryptoki.DigestFinal:   {[]kind{digesting}, true},
	cryptoki.Sign:          {[]kind{signing}, true},
	cryptoki.SignUpdate:    {[]kind{signing}, false},
	cryptoki.SignFinal:     {[]kind{signing}, true},
	cryptoki.SignRecover:   {[]kind{signRecovering}, true},
	cryptoki.Verify:        {[]kind{verifying}, true},
	cryptoki.VerifyUpdate:  {[]kind{verifying}, false},
	cryptoki.VerifyFinal:   {[]kind{verifying}, true},
	cryptoki.VerifyRecover: {[]kind{verifyRecovering}, true},

	cryptoki.DigestEncryptUpdate: {[]kind{digesting, encrypting}, false},
	cryptoki.DecryptDigestUpdate: {[]kind{decrypting, digesting}, false},
	cryptoki.SignEncryptUpdate:   {[]kind{signing, encrypting}, false},
	cryptoki.DecryptVerifyUpdate: {[]kind{decrypting, verifying}, false},
}

// operation is one that is active in a session.
type operation struct {
	init     cryptoki.Call // as the client made it, to begin again
	object   authz.Object
	own      bool          // a session object of the client's, of which grants say nothing
	rights   *authz.Rights // by which it was permitted
	fed      bool          // with data
	recorded bool

	beginning beginning
}

// begin begins an operation on the session that the client's session has already, or on
// one that it gets for it.
func (a *Application) begin(ctx context.Context, s *session, k kind, call *cryptoki.Call) *cryptoki.Answer {
	if call.Mechanism == nil {
		return s.cancel(k)
	}
	op := &operation{init: keepable(call)}
	device, rv := a.permitBegin(ctx, s, k, call, op)
	if rv != cryptoki.CKR_OK {
		return cryptoki.Refuse(rv)
	}
	op.beginning = beginningOf(device, call)
	if _, ok := s.token.begins(op.beginning); ok && len(s.operations) == 0 {
		s.operations = map[kind]*operation{k: op}
		return cryptoki.Refuse(cryptoki.CKR_OK)
	}
	if rv := a.hold(ctx, s, device); rv != cryptoki.CKR_OK {
		return cryptoki.Refuse(rv)
	}
	answer, err := s.lease.do(ctx, call)
	if err == nil && answer.RV == cryptoki.CKR_OPERATION_ACTIVE && len(s.operations) == 0 {
		// Something was left on the session by whoever had it before.
		s.drop(false)
		if rv := a.hold(ctx, s, device); rv != cryptoki.CKR_OK {
			return cryptoki.Refuse(rv)
		}
		answer, err = s.lease.do(ctx, call)
	}
	switch {
	case err != nil || ownFault(answer.RV):
		s.lose()
		return cryptoki.Refuse(cryptoki.CKR_DEVICE_ERROR)
	case answer.RV == cryptoki.CKR_OK:
		if s.operations == nil {
			s.operations = map[kind]*operation{}
		}
		s.operations[k] = op
		s.token.accept(op.beginning, s.lease.device, 0)
	}
	s.rest()
	return answer
}

// permitBegin decides on the key of an operation, and puts the device's handle of it
// into the call. It returns that device.
func (a *Application) permitBegin(ctx context.Context, s *session, k kind, call *cryptoki.Call, op *operation) (*backend.Device, cryptoki.RV) {
	op.rights = a.rights()
	if k == digesting {
		op.object = authz.Object{Token: s.token.name}
		return nil, a.permit(s.token, authz.TokenDigest, op.object, call.Mechanism)
	}
	e, rv := a.key(ctx, s, uses[k], call.Mechanism, &call.Numbers[1])
	if rv != cryptoki.CKR_OK || e == nil {
		return nil, rv
	}
	object, asked := e.named()
	op.object, op.own = object, !asked
	return e.object.device, cryptoki.CKR_OK
}

// permitted decides again on an operation when the client's rights are others than those
// by which it began. One that is not allowed any more ends, with all of the session.
func (a *Application) permitted(s *session, k kind) cryptoki.RV {
	op, rights := s.operations[k], a.rights()
	if op.own || op.rights == rights {
		return cryptoki.CKR_OK
	}
	if decision := rights.Decide(uses[k], op.object); !decision.Allowed {
		s.lose()
		return a.decided(s.token, uses[k], op.object, op.init.Mechanism, decision)
	}
	op.rights = rights
	return cryptoki.CKR_OK
}

// step makes a call of an operation.
func (a *Application) step(ctx context.Context, s *session, what step, call *cryptoki.Call) *cryptoki.Answer {
	for _, k := range what.kinds {
		if s.operations[k] == nil {
			return cryptoki.Refuse(cryptoki.CKR_OPERATION_NOT_INITIALIZED)
		}
	}
	for _, k := range what.kinds {
		if rv := a.permitted(s, k); rv != cryptoki.CKR_OK {
			return cryptoki.Refuse(rv)
		}
	}
	if call.Function == cryptoki.Sign && call.Room.Null && s.lease == nil {
		if length, ok := s.token.begins(s.operations[signing].beginning); ok && length > 0 {
			return &cryptoki.Answer{Size: length}
		}
	}
	var digested []deed
	var device *backend.Device
	if call.Function == cryptoki.DigestKey {
		e, rv := a.key(ctx, s, authz.ObjectDigestKey, nil, &call.Numbers[1])
		if rv != cryptoki.CKR_OK {
			return cryptoki.Refuse(rv)
		}
		if e != nil {
			digested, device = append(digested, e.deed(authz.ObjectDigestKey)), e.object.device
		}
	}
	answer, ok := a.proceed(ctx, s, device, call)
	if !ok {
		a.recordUse(s, what, answer, digested...)
		s.lose()
		return answer
	}
	if goesOn(answer, call) {
		s.rest()
		return answer
	}
	if !a.recordUse(s, what, answer, digested...) {
		clear(answer.Data)
		s.lose()
		return cryptoki.Refuse(cryptoki.CKR_DEVICE_ERROR)
	}
	if call.Function == cryptoki.DigestKey && keyRefused(answer.RV) {
		s.rest() // the digest is what it was
		return answer
	}
	if call.Function == cryptoki.Sign && answer.RV == cryptoki.CKR_OK {
		s.token.accept(s.operations[signing].beginning, s.lease.device, uint32(len(answer.Data)))
	}
	failed := answer.RV != cryptoki.CKR_OK && answer.RV != cryptoki.CKR_SIGNATURE_INVALID
	for _, k := range what.kinds {
		if what.last || answer.RV != cryptoki.CKR_OK {
			delete(s.operations, k)
		} else {
			s.operations[k].fed = true
		}
	}
	switch {
	case !failed:
		s.rest()
	case len(s.operations) == 0:
		// Whether the operation ended on the device too, only the device knows.
		s.drop(false)
	default:
		s.lose()
	}
	return answer
}

// keyRefused reports a return value of C_DigestKey that is about the key alone.
func keyRefused(rv cryptoki.RV) bool {
	switch rv {
	case cryptoki.CKR_KEY_HANDLE_INVALID, cryptoki.CKR_OBJECT_HANDLE_INVALID, cryptoki.CKR_KEY_INDIGESTIBLE, cryptoki.CKR_KEY_SIZE_RANGE:
		return true
	default:
		return false
	}
}

// goesOn reports a call that told a length and did nothing else.
func goesOn(answer *cryptoki.Answer, call *cryptoki.Call) bool {
	return answer.RV == cryptoki.CKR_BUFFER_TOO_SMALL ||
		answer.RV == cryptoki.CKR_OK && call.Room.Null && answer.Data == nil && returnsBytes[call.Function]
}

// returnsBytes are the steps with room for bytes.
var returnsBytes = map[cryptoki.Function]bool{
	cryptoki.Encrypt: true, cryptoki.EncryptUpdate: true, cryptoki.EncryptFinal: true,
	cryptoki.Decrypt: true, cryptoki.DecryptUpdate: true, cryptoki.DecryptFinal: true,
	cryptoki.Digest: true, cryptoki.DigestFinal: true,
	cryptoki.Sign: true, cryptoki.SignFinal: true, cryptoki.SignRecover: true, cryptoki.VerifyRecover: true,
	cryptoki.DigestEncryptUpdate: true, cryptoki.DecryptDigestUpdate: true,
	cryptoki.SignEncryptUpdate: true, cryptoki.DecryptVerifyUpdate: true,
}

// recordUse records the first use of each operation, and every one that fails, and all
// deeds besides.
func (a *Application) recordUse(s *session, what step, answer *cryptoki.Answer, deeds ...deed) bool {
	for _, k := range what.kinds {
		op := s.operations[k]
		if op.recorded && answer.RV == cryptoki.CKR_OK {
			continue
		}
		if a.record(s.token, deed{uses[k], op.object}, op.init.Mechanism, answer.RV) != nil {
			return false
		}
		op.recorded = true
	}
	return a.done(s.token, nil, answer, deeds...) == answer
}

// keepable is a call whose parts do not end with the message that they came in.
func keepable(call *cryptoki.Call) cryptoki.Call {
	kept := cryptoki.Call{Function: call.Function, Numbers: call.Numbers}
	m := *call.Mechanism
	switch p := m.Parameter.(type) {
	case cryptoki.Bytes:
		m.Parameter = slices.Clone(p)
	case *cryptoki.OAEP:
		clone := *p
		clone.SourceData = slices.Clone(p.SourceData)
		m.Parameter = &clone
	case *cryptoki.ECDH1:
		clone := *p
		clone.SharedData, clone.PublicData = slices.Clone(p.SharedData), slices.Clone(p.PublicData)
		m.Parameter = &clone
	case *cryptoki.GCM:
		clone := *p
		clone.IV, clone.AAD = slices.Clone(p.IV), slices.Clone(p.AAD)
		m.Parameter = &clone
	}
	kept.Mechanism = &m
	return kept
}
