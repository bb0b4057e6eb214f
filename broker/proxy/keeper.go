package proxy

import (
	"context"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// nobody is whose the keeper is.
var nobody = authz.Identity{App: "session objects"}

// keep makes a call that makes so many session objects, on the session that keeps them
// all. The handles in it are those of this device, nil if there are none.
func (t *token) keep(ctx context.Context, device *backend.Device, call *cryptoki.Call, objects int) (*cryptoki.Answer, *lease) {
	t.keeping.Lock()
	defer t.keeping.Unlock()
	keeper := t.keeper.Load()
	if keeper != nil && isClosed(keeper.device.Gone) {
		t.lose(keeper)
		keeper = nil
	}
	if keeper == nil {
		var err error
		if keeper, err = t.pool.acquire(ctx, nobody); err != nil {
			return cryptoki.Refuse(away(err)), nil
		}
		t.keeper.Store(keeper)
	}
	defer t.free()
	if device != nil && device != keeper.device {
		return cryptoki.Refuse(cryptoki.CKR_DEVICE_ERROR), nil
	}
	answer := t.onKeeper(ctx, keeper, call)
	if answer.RV == cryptoki.CKR_OK {
		t.kept += objects
	}
	return answer, keeper
}

// change makes a call about a session object that this keeper has, and that is no more
// if it has been lost.
func (t *token) change(ctx context.Context, keeper *lease, call *cryptoki.Call) *cryptoki.Answer {
	t.keeping.Lock()
	defer t.keeping.Unlock()
	if t.keeper.Load() == keeper && isClosed(keeper.device.Gone) {
		t.lose(keeper)
	}
	if t.keeper.Load() != keeper {
		return cryptoki.Refuse(cryptoki.CKR_OBJECT_HANDLE_INVALID)
	}
	defer t.free()
	answer := t.onKeeper(ctx, keeper, call)
	if call.Function == cryptoki.DestroyObject && answer.RV == cryptoki.CKR_OK {
		t.kept--
	}
	return answer
}

// onKeeper makes a call on the keeper. A client must not be able to end the keeper, with
// the objects of all others, by a call that the device answers as if the login were lost.
func (t *token) onKeeper(ctx context.Context, keeper *lease, call *cryptoki.Call) *cryptoki.Answer {
	returned := false
	defer func() {
		if !returned { // but panicked, and then the session is closed already
			t.lose(keeper)
		}
	}()
	answer, err := keeper.do(ctx, call)
	returned = true
	if err == nil && !ownFault(answer.RV) {
		return answer
	}
	if err != nil || !keeper.lives(ctx) {
		t.lose(keeper)
	}
	return cryptoki.Refuse(cryptoki.CKR_DEVICE_ERROR)
}

// lives reports whether a session is still there and logged in.
func (l *lease) lives(ctx context.Context) bool {
	answer, err := l.do(ctx, &cryptoki.Call{Function: cryptoki.GetSessionInfo})
	return err == nil && answer.RV == cryptoki.CKR_OK && answer.Numbers[1] == cryptoki.CKS_RW_USER_FUNCTIONS
}

// lose ends the keeper, and what is on it.
func (t *token) lose(keeper *lease) {
	t.keeper.Store(nil)
	t.kept = 0
	keeper.release(false)
}

// free gives back a keeper that keeps nothing.
func (t *token) free() {
	if keeper := t.keeper.Load(); keeper != nil && t.kept == 0 {
		t.keeper.Store(nil)
		keeper.release(true)
	}
}
