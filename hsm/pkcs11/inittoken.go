package pkcs11

import (
	"context"
	"log/slog"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// InitConfig says which token InitToken shall make.
type InitConfig struct {
	Library    string // absolute path of the PKCS#11 library
	Label      string // 1 to 32 bytes of printable ASCII
	SOPIN, PIN []byte // InitToken overwrites them with zeros
	Logger     *slog.Logger
}

// InitToken initialises the token of a free slot, gives its user a PIN and
// returns its serial. It refuses a label that is in use, and no call of it
// reaches a token that is initialised already. Like [Open] it needs the library
// for itself.
func InitToken(ctx context.Context, config InitConfig) (serial string, err error) {
	defer clear(config.SOPIN)
	defer clear(config.PIN)
	if err := config.check(); err != nil {
		return "", err
	}
	module, err := initialize(ctx, config.Library)
	if err != nil {
		return "", err
	}
	defer finalize(module, config.Logger)
	id, err := freeSlot(module, config)
	if err != nil {
		return "", err
	}
	if err := module.InitToken(id, string(config.SOPIN), config.Label); err != nil {
		return "", deviceError(err, "initialise the token of slot %d", id)
	}
	if err := initPIN(module, id, config); err != nil {
		return "", err
	}
	token, err := module.GetTokenInfo(id)
	if err != nil {
		return "", deviceError(err, "read the serial of the new token")
	}
	config.Logger.Info("token initialised", "label", config.Label, "serial", clean(token.SerialNumber))
	return clean(token.SerialNumber), nil
}

func (c *InitConfig) check() error {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if err := checkText("token label", c.Label, 32); err != nil {
		return err
	}
	if len(c.SOPIN) == 0 || len(c.PIN) == 0 {
		return hsm.Errorf(hsm.PINMissing, "a new token needs a PIN for its security officer and one for its user")
	}
	return nil
}

// freeSlot returns a slot whose token is not initialised and takes these PINs.
func freeSlot(module *p11.Ctx, config InitConfig) (uint, error) {
	ids, err := module.GetSlotList(true)
	if err != nil {
		return 0, deviceError(err, "list slots")
	}
	var free []uint
	var fresh p11.TokenInfo
	for _, id := range ids {
		token, err := module.GetTokenInfo(id)
		switch {
		case err != nil:
		case token.Flags&p11.CKF_TOKEN_INITIALIZED == 0:
			free, fresh = append(free, id), token
		case token.Label == config.Label:
			return 0, hsm.Errorf(hsm.AlreadyExists, "there is a token with label %q and serial %q", config.Label, clean(token.SerialNumber))
		}
	}
	if len(free) == 0 {
		return 0, hsm.Errorf(hsm.NotFound, "there is no slot with a token that could be initialised")
	}
	for _, pin := range [][]byte{config.SOPIN, config.PIN} {
		if n := uint(len(pin)); n < fresh.MinPinLen || n > fresh.MaxPinLen {
			return 0, hsm.Errorf(hsm.Invalid, "a PIN of the new token needs %d to %d bytes", fresh.MinPinLen, fresh.MaxPinLen)
		}
	}
	return free[0], nil
}

// initPIN gives the user of a new token its PIN, as the security officer.
func initPIN(module *p11.Ctx, id uint, config InitConfig) error {
	session, err := module.OpenSession(id, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		return deviceError(err, "open a session with the new token")
	}
	if err := module.Login(session, p11.CKU_SO, string(config.SOPIN)); err != nil {
		return deviceError(err, "log in to the new token as its security officer")
	}
	if err := module.InitPIN(session, string(config.PIN)); err != nil {
		return deviceError(err, "set the user's PIN of the new token %q, which has none now: remove it before you try again", config.Label)
	}
	return nil
}
