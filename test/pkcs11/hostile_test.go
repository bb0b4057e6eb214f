package pkcs11

import (
	"bufio"
	"errors"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki/rpc"
	"github.com/kmsbroker/kmsbroker/test/application"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestHostileCalls: calls that have a library follow pointers of their maker, or that no
// C program could make, do not get to the library, which would take the plugin along.
func TestHostileCalls(t *testing.T) {
	s := stage.New(t, stage.Options{})
	target := s.Broker()
	calls, conn, err := application.Dial(t.Context(), s.Path("run/pkcs11.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	a := &application.Application{Library: calls, Token: target.Token}
	if err := a.Initialize(); err != nil {
		t.Fatal(err)
	}
	aes := application.Call(cryptoki.GenerateKey, a.Session)
	aes.Mechanism = &cryptoki.Mechanism{Type: cryptoki.CKM_AES_KEY_GEN}
	aes.Templates[0] = []cryptoki.Attribute{cryptoki.UlongAttribute(cryptoki.CKA_VALUE_LEN, 32), cryptoki.BoolAttribute(cryptoki.CKA_DERIVE, true)}
	made, err := a.Do(aes)
	if err != nil {
		t.Fatal(err)
	}
	with := func(f cryptoki.Function, m *cryptoki.Mechanism, template ...cryptoki.Attribute) *cryptoki.Call {
		c := application.Call(f, a.Session, made.Numbers[0])
		c.Mechanism, c.Templates[0] = m, template
		return c
	}
	// An initialisation vector, the address 4096, and a length.
	pointer := cryptoki.Bytes(append(append(make([]byte, 16), cryptoki.Ulong(4096)...), cryptoki.Ulong(16)...))
	own := with(cryptoki.CreateObject, nil, cryptoki.UlongAttribute(cryptoki.CKA_CLASS, cryptoki.CKO_DATA), cryptoki.BytesAttribute(cryptoki.CKA_VALUE, []byte("x")))
	kept, err := a.Do(own)
	if err != nil {
		t.Fatal(err)
	}
	plugin := target.Daemon.Plugin()
	for name, call := range map[string]*cryptoki.Call{
		"a pointer for a parameter": with(cryptoki.DeriveKey, &cryptoki.Mechanism{Type: cryptoki.CKM_AES_CBC_ENCRYPT_DATA, Parameter: pointer},
			cryptoki.UlongAttribute(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY), cryptoki.UlongAttribute(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_GENERIC_SECRET)),
		"NULL with a length, to search": with(cryptoki.FindObjectsInit, nil, cryptoki.Attribute{Type: cryptoki.CKA_LABEL, Length: 1 << 20}),
		"NULL with a length, to create": with(cryptoki.CreateObject, nil, cryptoki.UlongAttribute(cryptoki.CKA_CLASS, cryptoki.CKO_DATA), cryptoki.Attribute{Type: cryptoki.CKA_VALUE, Length: 1 << 20}),
	} {
		answer, err := a.Do(call)
		if answer == nil || err == nil || errors.Is(err, cryptoki.CKR_DEVICE_ERROR) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A truth value of two bytes, which has no place in the protocol between the daemon
	// and its plugin.
	odd := with(cryptoki.CreateObject, nil, cryptoki.UlongAttribute(cryptoki.CKA_CLASS, cryptoki.CKO_DATA), cryptoki.BoolAttribute(cryptoki.CKA_MODIFIABLE, true))
	frame, err := rpc.Latest.AppendCall(rpc.BeginFrame(nil), odd)
	if err != nil {
		t.Fatal(err)
	}
	frame[len(frame)-2] = 2
	rpc.EndFrame(frame, 0, 77)
	if _, err := conn.Write(frame); err != nil {
		t.Fatal(err)
	}
	if answer, err := rpc.ReadFrame(bufio.NewReader(conn), nil); err != nil || answer.Code != 77 {
		t.Fatalf("%+v, %v", answer, err)
	}
	if _, err := a.Do(application.Call(cryptoki.GenerateRandom, a.Session)); err != nil {
		t.Error(err)
	}
	// Session objects of all clients are in one place.
	if _, err := a.Do(application.Call(cryptoki.GetObjectSize, a.Session, kept.Numbers[0])); err != nil {
		t.Errorf("a session object did not outlive it: %v", err)
	}
	if now := target.Daemon.Plugin(); now != plugin {
		t.Errorf("the plugin is process %d now, not %d", now, plugin)
	}
}
