package proxy

import (
	"context"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// Application is what a client takes for its PKCS#11 library. One call at a time may
// be made of it.
type Application struct {
	proxy  *Proxy
	client Client
	who    authz.Identity

	policy   *authz.Policy // of which granted is what it says to this client
	granted  *authz.Rights
	unlocked []authz.Unlocked

	initialized bool
	last        uint64 // handle that was given out
	sessions    map[uint64]*session
	entries     map[uint64]*entry
	names       map[place]uint64 // of entries: the handle that the client has
	loggedIn    map[*token]bool
}

// place is where a device keeps an object.
type place struct {
	token  *token
	handle uint64
}

// Open makes the application of a client that has connected. Close must be called in
// the end.
func (p *Proxy) Open(client Client) *Application {
	return &Application{
		proxy: p, client: client, who: client.Caller.Identity(),
		sessions: map[uint64]*session{}, entries: map[uint64]*entry{}, names: map[place]uint64{}, loggedIn: map[*token]bool{},
	}
}

// Close ends everything that the client had.
func (a *Application) Close(ctx context.Context) {
	for _, t := range a.proxy.tokens {
		a.closeSessions(ctx, t)
	}
	a.initialized = false
}

// rights are what the policy says to this client now, with the PINs that it has given.
func (a *Application) rights() *authz.Rights {
	if policy := a.client.Policy(); policy != a.policy || a.granted == nil {
		a.policy, a.granted = policy, policy.Objects(a.client.Caller, a.unlocked...)
	}
	return a.granted
}

// Do answers a call. Handles in it are the client's own.
func (a *Application) Do(ctx context.Context, call *cryptoki.Call) *cryptoki.Answer {
	if call.Function == cryptoki.Initialize {
		return a.initialize()
	}
	if !a.initialized {
		return cryptoki.Refuse(cryptoki.CKR_CRYPTOKI_NOT_INITIALIZED)
	}
	switch call.Function {
	case cryptoki.Finalize:
		a.Close(ctx)
		return cryptoki.Refuse(cryptoki.CKR_OK)
	case cryptoki.GetInfo:
		return info()
	case cryptoki.GetSlotList:
		return a.slotList(ctx, call)
	case cryptoki.WaitForSlotEvent:
		return waitForSlotEvent(call)
	case cryptoki.GetSlotInfo, cryptoki.GetTokenInfo, cryptoki.GetMechanismList, cryptoki.GetMechanismInfo,
		cryptoki.OpenSession, cryptoki.CloseAllSessions, cryptoki.InitToken, cryptoki.InitToken2:
		return a.onSlot(ctx, call)
	}
	s := a.sessions[call.Session()]
	if s == nil {
		return cryptoki.Refuse(cryptoki.CKR_SESSION_HANDLE_INVALID)
	}
	if rv := unsound(call); rv != cryptoki.CKR_OK {
		return cryptoki.Refuse(rv)
	}
	return a.onSession(ctx, s, call)
}

func (a *Application) onSlot(ctx context.Context, call *cryptoki.Call) *cryptoki.Answer {
	t := a.token(call.Numbers[0])
	if t == nil {
		return cryptoki.Refuse(cryptoki.CKR_SLOT_ID_INVALID)
	}
	switch call.Function {
	case cryptoki.GetSlotInfo:
		return a.slotInfo(ctx, t)
	case cryptoki.GetTokenInfo:
		return a.tokenInfo(ctx, t, call)
	case cryptoki.OpenSession:
		return a.openSession(ctx, t, call.Numbers[1])
	case cryptoki.CloseAllSessions:
		a.closeSessions(ctx, t)
		return cryptoki.Refuse(cryptoki.CKR_OK)
	case cryptoki.GetMechanismList, cryptoki.GetMechanismInfo:
		answer, _ := t.once(ctx, a.who, nil, call)
		return answer
	default: // tokens are initialised by their administrators
		return cryptoki.Refuse(cryptoki.CKR_FUNCTION_NOT_SUPPORTED)
	}
}

func (a *Application) onSession(ctx context.Context, s *session, call *cryptoki.Call) *cryptoki.Answer {
	switch call.Function {
	case cryptoki.CloseSession:
		a.closeSession(ctx, s)
		return cryptoki.Refuse(cryptoki.CKR_OK)
	case cryptoki.GetSessionInfo:
		return a.sessionInfo(s)
	case cryptoki.Login:
		return a.login(ctx, s, call)
	case cryptoki.Logout:
		return a.logout(ctx, s)
	case cryptoki.FindObjectsInit:
		return a.findInit(ctx, s, call)
	case cryptoki.FindObjects:
		return s.findNext(call)
	case cryptoki.FindObjectsFinal:
		return s.findFinal()
	case cryptoki.CreateObject, cryptoki.CopyObject, cryptoki.DestroyObject, cryptoki.SetAttributeValue,
		cryptoki.GetAttributeValue, cryptoki.GetObjectSize:
		return a.manage(ctx, s, call)
	case cryptoki.GenerateKey, cryptoki.GenerateKeyPair, cryptoki.WrapKey, cryptoki.UnwrapKey,
		cryptoki.DeriveKey, cryptoki.DeriveKey2:
		return a.manageKey(ctx, s, call)
	case cryptoki.SeedRandom, cryptoki.GenerateRandom:
		return a.random(ctx, s, call)
	}
	if kind, ok := begins[call.Function]; ok {
		return a.begin(ctx, s, kind, call)
	}
	if step, ok := steps[call.Function]; ok {
		return a.step(ctx, s, step, call)
	}
	// C_InitPIN and C_SetPIN, which are the administrator's; C_GetOperationState and
	// C_SetOperationState, with which an operation would get to another key.
	return cryptoki.Refuse(cryptoki.CKR_FUNCTION_NOT_SUPPORTED)
}

// handle gives out a new one.
func (a *Application) handle() uint64 {
	a.last++
	return a.last
}
