// Package application is an application of PKCS#11 for the tests, on whatever makes its
// calls: a client of p11-kit's protocol, or a library.
package application

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"math/big"
	"net"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki/rpc"
)

// Library makes calls. An error is the end of the connection.
type Library func(*cryptoki.Call) (*cryptoki.Answer, error)

// Application is a user of a library with one session, logged in.
type Application struct {
	Library Library
	Token   string // label
	PIN     []byte
	Session uint64
}

// Dial connects to a socket as a client of the latest version.
func Dial(ctx context.Context, socket string) (Library, net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, nil, err
	}
	version, err := rpc.Negotiate(conn, rpc.Latest)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	client := rpc.NewClient(conn, version)
	return func(call *cryptoki.Call) (*cryptoki.Answer, error) { return client.Do(ctx, call) }, conn, nil
}

// Do makes a call. Everything but CKR_OK is an error, of type [cryptoki.RV] if it is an
// answer.
func (a *Application) Do(call *cryptoki.Call) (*cryptoki.Answer, error) {
	answer, err := a.Library(call)
	if err != nil {
		return nil, err
	}
	if answer.RV != cryptoki.CKR_OK {
		return answer, fmt.Errorf("%v: %w", call.Function, answer.RV)
	}
	return answer, nil
}

// Call makes a call of a function with numbers, and room for an answer.
func Call(f cryptoki.Function, numbers ...uint64) *cryptoki.Call {
	c := &cryptoki.Call{Function: f, Room: cryptoki.Room{Size: 512}}
	copy(c.Numbers[:], numbers)
	return c
}

// Initialize initialises the library and opens the session.
func (a *Application) Initialize() error {
	call := Call(cryptoki.Initialize)
	call.Data[0] = []byte("PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1")
	if _, err := a.Do(call); err != nil {
		return err
	}
	return a.Open()
}

// Open finds the token and opens the session.
func (a *Application) Open() error {
	slots := Call(cryptoki.GetSlotList)
	slots.Flag = true
	answer, err := a.Do(slots)
	if err != nil {
		return err
	}
	for _, slot := range answer.List {
		answer, err := a.Do(Call(cryptoki.GetTokenInfo, slot))
		if err != nil {
			return err
		}
		info, ok := answer.Info.(*cryptoki.TokenInfo)
		if !ok || string(bytes.TrimRight(info.Label[:], " ")) != a.Token {
			continue
		}
		answer, err = a.Do(Call(cryptoki.OpenSession, slot, cryptoki.CKF_SERIAL_SESSION|cryptoki.CKF_RW_SESSION))
		if err != nil {
			return err
		}
		a.Session = answer.Numbers[0]
		login := Call(cryptoki.Login, a.Session, cryptoki.CKU_USER)
		login.Data[0] = a.PIN
		if answer, err := a.Do(login); err != nil && (answer == nil || answer.RV != cryptoki.CKR_USER_ALREADY_LOGGED_IN) {
			return err
		}
		return nil
	}
	return fmt.Errorf("no token %q: %w", a.Token, cryptoki.CKR_TOKEN_NOT_PRESENT)
}

// Find returns the objects that match a template.
func (a *Application) Find(template ...cryptoki.Attribute) ([]uint64, error) {
	begin := Call(cryptoki.FindObjectsInit, a.Session)
	begin.Templates[0] = template
	if _, err := a.Do(begin); err != nil {
		return nil, err
	}
	answer, err := a.Do(Call(cryptoki.FindObjects, a.Session))
	if err != nil {
		return nil, err
	}
	_, err = a.Do(Call(cryptoki.FindObjectsFinal, a.Session))
	return answer.List, err
}

// Key finds the one object of a class and a label.
func (a *Application) Key(class uint64, label string) (uint64, error) {
	found, err := a.Find(cryptoki.UlongAttribute(cryptoki.CKA_CLASS, class), cryptoki.BytesAttribute(cryptoki.CKA_LABEL, []byte(label)))
	if err != nil {
		return 0, err
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("%d objects are called %s", len(found), label)
	}
	return found[0], nil
}

// Generate makes an RSA key pair that stays on the token.
func (a *Application) Generate(label string, bits uint64) error {
	call := Call(cryptoki.GenerateKeyPair, a.Session)
	call.Mechanism = &cryptoki.Mechanism{Type: cryptoki.CKM_RSA_PKCS_KEY_PAIR_GEN}
	call.Templates = [2][]cryptoki.Attribute{
		{
			cryptoki.BoolAttribute(cryptoki.CKA_TOKEN, true), cryptoki.BoolAttribute(cryptoki.CKA_VERIFY, true),
			cryptoki.BytesAttribute(cryptoki.CKA_LABEL, []byte(label)), cryptoki.UlongAttribute(cryptoki.CKA_MODULUS_BITS, bits),
			cryptoki.BytesAttribute(cryptoki.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
		},
		{
			cryptoki.BoolAttribute(cryptoki.CKA_TOKEN, true), cryptoki.BoolAttribute(cryptoki.CKA_PRIVATE, true),
			cryptoki.BoolAttribute(cryptoki.CKA_SIGN, true), cryptoki.BytesAttribute(cryptoki.CKA_LABEL, []byte(label)),
		},
	}
	_, err := a.Do(call)
	return err
}

// Public reads a public key.
func (a *Application) Public(key uint64) (*rsa.PublicKey, error) {
	call := Call(cryptoki.GetAttributeValue, a.Session, key)
	call.Templates[0] = []cryptoki.Attribute{{Type: cryptoki.CKA_MODULUS, Length: 1024}}
	answer, err := a.Do(call)
	if err != nil {
		return nil, err
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(answer.Attributes[0].Value), E: 65537}, nil
}

// Sign signs with RSA and SHA-256, in as many parts as there are.
func (a *Application) Sign(key uint64, parts ...[]byte) ([]byte, error) {
	begin := Call(cryptoki.SignInit, a.Session, key)
	begin.Mechanism = &cryptoki.Mechanism{Type: cryptoki.CKM_SHA256_RSA_PKCS}
	if _, err := a.Do(begin); err != nil {
		return nil, err
	}
	last := Call(cryptoki.SignFinal, a.Session)
	if len(parts) == 1 {
		last = Call(cryptoki.Sign, a.Session)
		last.Data[0] = parts[0]
	} else {
		for _, part := range parts {
			next := Call(cryptoki.SignUpdate, a.Session)
			next.Data[0] = part
			if _, err := a.Do(next); err != nil {
				return nil, err
			}
		}
	}
	answer, err := a.Do(last)
	if err != nil {
		return nil, err
	}
	return answer.Data, nil
}

// Verify is how another implementation sees a signature.
func Verify(public *rsa.PublicKey, signature []byte, parts ...[]byte) error {
	digest := sha256.Sum256(bytes.Join(parts, nil))
	return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature)
}
