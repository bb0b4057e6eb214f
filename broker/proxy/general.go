package proxy

import (
	"context"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// manufacturer of the library that the client sees.
const manufacturer = "kmsbroker"

func (a *Application) initialize() *cryptoki.Answer {
	if a.initialized {
		return cryptoki.Refuse(cryptoki.CKR_CRYPTOKI_ALREADY_INITIALIZED)
	}
	a.initialized = true
	return cryptoki.Refuse(cryptoki.CKR_OK)
}

func info() *cryptoki.Answer {
	i := &cryptoki.LibraryInfo{Cryptoki: cryptoki.Version{Major: 2, Minor: 40}, Library: cryptoki.Version{Major: 1}}
	cryptoki.Pad(i.Manufacturer[:], manufacturer)
	cryptoki.Pad(i.Description[:], "PKCS#11 proxy of kmsbrokerd")
	return &cryptoki.Answer{Info: i}
}

// token is the one in a slot, nil if this client has no slot of that number.
func (a *Application) token(slot uint64) *token {
	if slot == 0 || slot > uint64(len(a.proxy.tokens)) {
		return nil
	}
	t := a.proxy.tokens[slot-1]
	if !a.rights().Token(t.name) {
		return nil
	}
	return t
}

// present reports whether a token could be used now.
func (t *token) present(ctx context.Context) bool {
	_, err := t.pool.backend.Device(ctx)
	return err == nil
}

func (a *Application) slotList(ctx context.Context, call *cryptoki.Call) *cryptoki.Answer {
	rights := a.rights()
	slots := []uint64{}
	for _, t := range a.proxy.tokens {
		if rights.Token(t.name) && (!call.Flag || t.present(ctx)) {
			slots = append(slots, t.slot)
		}
	}
	return list(slots, call.Room)
}

// list answers with numbers, if there is room for all of them.
func list(numbers []uint64, room cryptoki.Room) *cryptoki.Answer {
	n := uint32(len(numbers))
	switch {
	case room.Null:
		return &cryptoki.Answer{Size: n}
	case room.Size < n:
		return &cryptoki.Answer{RV: cryptoki.CKR_BUFFER_TOO_SMALL, Size: n}
	default:
		return &cryptoki.Answer{List: numbers, Size: n}
	}
}

func waitForSlotEvent(call *cryptoki.Call) *cryptoki.Answer {
	if call.Numbers[0]&cryptoki.CKF_DONT_BLOCK != 0 {
		return cryptoki.Refuse(cryptoki.CKR_NO_EVENT)
	}
	// It would keep the connection from all other calls.
	return cryptoki.Refuse(cryptoki.CKR_FUNCTION_NOT_SUPPORTED)
}

func (a *Application) slotInfo(ctx context.Context, t *token) *cryptoki.Answer {
	i := &cryptoki.SlotInfo{Flags: cryptoki.CKF_REMOVABLE_DEVICE | cryptoki.CKF_HW_SLOT}
	if t.present(ctx) {
		i.Flags |= cryptoki.CKF_TOKEN_PRESENT
	}
	cryptoki.Pad(i.Description[:], "kmsbroker backend "+t.name)
	cryptoki.Pad(i.Manufacturer[:], manufacturer)
	return &cryptoki.Answer{Info: i}
}

// What a token says of its PINs is for its administrators.
const hiddenFlags = cryptoki.CKF_USER_PIN_COUNT_LOW | cryptoki.CKF_USER_PIN_FINAL_TRY | cryptoki.CKF_USER_PIN_LOCKED |
	cryptoki.CKF_USER_PIN_TO_BE_CHANGED | cryptoki.CKF_SO_PIN_COUNT_LOW | cryptoki.CKF_SO_PIN_FINAL_TRY |
	cryptoki.CKF_SO_PIN_LOCKED | cryptoki.CKF_SO_PIN_TO_BE_CHANGED

// tokenInfo is the device's, with the sessions of this client. Unless a grant asks for
// a PIN the token says that it needs none (CKF_PROTECTED_AUTHENTICATION_PATH), so that
// applications do not ask people for one.
func (a *Application) tokenInfo(ctx context.Context, t *token, call *cryptoki.Call) *cryptoki.Answer {
	answer, _ := t.once(ctx, a.who, nil, call)
	if answer.RV == cryptoki.CKR_DEVICE_REMOVED {
		return cryptoki.Refuse(cryptoki.CKR_TOKEN_NOT_PRESENT)
	}
	i, ok := answer.Info.(*cryptoki.TokenInfo)
	if answer.RV != cryptoki.CKR_OK || !ok {
		return answer
	}
	i.Flags = i.Flags&^hiddenFlags | cryptoki.CKF_LOGIN_REQUIRED | cryptoki.CKF_USER_PIN_INITIALIZED
	if !a.rights().AsksPIN(t.name) {
		i.Flags |= cryptoki.CKF_PROTECTED_AUTHENTICATION_PATH
	}
	all, rw := uint64(0), uint64(0)
	for _, s := range a.sessions {
		if s.token == t {
			all++
			if s.rw {
				rw++
			}
		}
	}
	i.Counts[0], i.Counts[1] = 0, all // 0 is CK_EFFECTIVELY_INFINITE
	i.Counts[2], i.Counts[3] = 0, rw
	return answer
}
