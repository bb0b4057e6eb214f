package pkcs11

import (
	"context"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// DefaultProxySessions is how many sessions PKCS#11 clients share unless the
// configuration says otherwise.
const DefaultProxySessions = 8

var _ cryptoki.Device = (*Token)(nil)

// MaxSessions implements [cryptoki.Device]. It is 0 when the token admits so few
// that none is left for others than the engine.
func (t *Token) MaxSessions() int { return t.proxied }

// OpenSession implements [cryptoki.Device]. The session shares the login of the
// token.
func (t *Token) OpenSession(ctx context.Context) (cryptoki.Session, error) {
	s := &rawSession{token: t}
	answer, err := s.through(ctx, shared, &cryptoki.Call{
		Function: cryptoki.OpenSession,
		Numbers:  [4]uint64{uint64(t.slot.ID), cryptoki.CKF_SERIAL_SESSION | cryptoki.CKF_RW_SESSION},
	})
	switch {
	case err != nil:
		return nil, err
	case answer.RV != cryptoki.CKR_OK:
		return nil, answer.RV
	}
	s.handle = answer.Numbers[0]
	return s, nil
}

// rawSession is a session of the token for calls that the engine knows nothing of.
type rawSession struct {
	token  *Token
	handle uint64
}

// Do implements [cryptoki.Session]. The library bounds how long a call takes, not ctx,
// which bounds the wait for those who change the token.
func (s *rawSession) Do(ctx context.Context, call *cryptoki.Call) (*cryptoki.Answer, error) {
	if !offered(call.Function) {
		return cryptoki.Refuse(cryptoki.CKR_FUNCTION_NOT_SUPPORTED), nil
	}
	own := *call
	switch call.Function {
	case cryptoki.GetInfo:
	case cryptoki.GetSlotInfo, cryptoki.GetTokenInfo, cryptoki.GetMechanismList, cryptoki.GetMechanismInfo:
		own.Numbers[0] = uint64(s.token.slot.ID)
	default:
		own.Numbers[0] = s.handle
	}
	passage := shared
	if changesToken(&own) {
		passage = exclusive
	}
	return s.through(ctx, passage, &own)
}

// Close implements [cryptoki.Session].
func (s *rawSession) Close() error {
	answer, err := s.through(context.Background(), shared, &cryptoki.Call{
		Function: cryptoki.CloseSession, Numbers: [4]uint64{s.handle},
	})
	if err != nil {
		return nil //nolint:nilerr // the token is closed, and its sessions with it
	}
	if answer.RV != cryptoki.CKR_OK {
		return answer.RV
	}
	return nil
}

func (s *rawSession) through(ctx context.Context, passage passage, call *cryptoki.Call) (*cryptoki.Answer, error) {
	pool := s.token.pool
	if err := pool.gate.enter(ctx, passage); err != nil {
		return nil, waitEnded(ctx, "a change of the token to finish")
	}
	defer pool.gate.leave(passage)
	// Asked in the gate, which Close passes alone before it finalises the library.
	select {
	case <-pool.closing:
		return nil, errClosed()
	default:
	}
	lock := pool.guard.looking
	if call.Function == cryptoki.CloseSession || passage == exclusive {
		lock = pool.guard.removing
	}
	lock.Lock()
	defer lock.Unlock()
	return s.token.raw.Do(call), nil
}

// offered reports whether a function is for sessions. The others are about the library,
// the slot as a whole or the login, which all sessions share.
func offered(f cryptoki.Function) bool {
	switch f {
	case cryptoki.Initialize, cryptoki.Finalize, cryptoki.GetSlotList, cryptoki.WaitForSlotEvent,
		cryptoki.InitToken, cryptoki.InitToken2, cryptoki.InitPIN, cryptoki.SetPIN,
		cryptoki.OpenSession, cryptoki.CloseSession, cryptoki.CloseAllSessions,
		cryptoki.Login, cryptoki.LoginUser, cryptoki.Logout:
		return false
	default:
		return true
	}
}

// changesToken reports whether a call may change an object of the token. Session
// objects are made and used beside others; which kind is destroyed or written to, only
// the token knows.
func changesToken(call *cryptoki.Call) bool {
	switch call.Function {
	case cryptoki.DestroyObject, cryptoki.SetAttributeValue:
		return true
	case cryptoki.CopyObject:
		// A copy is where its original is unless the template says otherwise.
		return !slices.ContainsFunc(call.Templates[0], isSessionObject) || slices.ContainsFunc(call.Templates[0], isTokenObject)
	case cryptoki.CreateObject, cryptoki.GenerateKey, cryptoki.GenerateKeyPair,
		cryptoki.UnwrapKey, cryptoki.DeriveKey, cryptoki.DeriveKey2:
		return slices.ContainsFunc(call.Templates[0], isTokenObject) || slices.ContainsFunc(call.Templates[1], isTokenObject)
	default:
		return false
	}
}

// isTokenObject errs on the side of yes where the value is none that PKCS#11 knows.
func isTokenObject(a cryptoki.Attribute) bool {
	return a.Type == cryptoki.CKA_TOKEN && !isSessionObject(a)
}

func isSessionObject(a cryptoki.Attribute) bool {
	return a.Type == cryptoki.CKA_TOKEN && len(a.Value) == 1 && a.Value[0] == 0
}

// shares is how many sessions the engine and PKCS#11 clients may use. A token that
// admits few divides them in the proportion that is configured, but for the one that
// holds the login; clients get none when it admits fewer than five.
func shares(config Config, token p11.TokenInfo) (engine, proxied int, err error) {
	engine, proxied = config.MaxSessions, config.ProxySessions
	for _, n := range []uint{token.MaxRwSessionCount, token.MaxSessionCount} {
		admits := limit(n)
		if admits == 0 {
			continue
		}
		if admits == 1 {
			return 0, 0, hsm.Errorf(hsm.Misconfigured, "token %q admits one session; two are needed, one of them to hold the login", token.Label)
		}
		left := admits - 1
		if engine+proxied <= left {
			continue
		}
		if proxied = max(left*proxied/(engine+proxied), fewest); left < 2*fewest {
			proxied = 0
		}
		engine = min(engine, left-proxied)
	}
	return engine, proxied, nil
}

// fewest is how many sessions a [cryptoki.Device] has at least.
const fewest = 2
