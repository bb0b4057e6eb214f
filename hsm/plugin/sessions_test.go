package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki/rpc"
)

// deviceFake is a fake that offers sessions: two of them, and a device that has one unless
// its mode is "slow to close".
type deviceFake struct{ *fake }

var oneSession, twoSessions = make(chan struct{}, 1), make(chan struct{}, 2)

func (f deviceFake) places() chan struct{} {
	if f.mode == "slow to close" {
		return twoSessions
	}
	return oneSession
}

func (f deviceFake) MaxSessions() int {
	if f.mode == "cramped" {
		return 1
	}
	return 2
}

func (f deviceFake) OpenSession(context.Context) (cryptoki.Session, error) {
	select {
	case f.places() <- struct{}{}:
		return fakeSession(f), nil
	default:
		return nil, cryptoki.CKR_SESSION_COUNT
	}
}

type fakeSession deviceFake

func (s fakeSession) Do(_ context.Context, call *cryptoki.Call) (*cryptoki.Answer, error) {
	answer := &cryptoki.Answer{}
	switch call.Function {
	case cryptoki.GenerateRandom:
		answer.Data = bytes.Repeat([]byte{7}, int(call.Room.Size))
	case cryptoki.FindObjects:
		answer.List = make([]uint64, call.Room.Size)
	case cryptoki.GetAttributeValue:
		answer.Attributes = []cryptoki.Attribute{cryptoki.BytesAttribute(cryptoki.CKA_LABEL, []byte("four"))}
	case cryptoki.Sign:
		answer.RV = cryptoki.CKR_KEY_FUNCTION_NOT_PERMITTED
	case cryptoki.Digest:
		return nil, hsm.Errorf(hsm.TokenGone, "the token is closed")
	case cryptoki.Encrypt:
		var secret any = "the secret of the panic"
		panic(secret)
	}
	if s.mode == "lying sessions" {
		answer.Data = append(answer.Data, 0)
		answer.List = append(answer.List, 0)
		for i := range answer.Attributes {
			answer.Attributes[i].Type++
		}
	}
	return answer, nil
}

func (s fakeSession) Close() error {
	if s.mode == "slow to close" {
		time.Sleep(10 * time.Millisecond)
	}
	<-deviceFake(s).places()
	return nil
}

// TestSessionsThatClose: who closes a session may open another at once, also where the
// device admits no more, and has not closed the first yet.
func TestSessionsThatClose(t *testing.T) {
	_, device := openDevice(t, "slow to close")
	var open []cryptoki.Session
	for range 6 {
		if len(open) == 2 {
			open[0].Close()
			open = open[1:]
		}
		s, err := device.OpenSession(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	for _, s := range open {
		s.Close()
	}
}

func openDevice(t *testing.T, mode string) (*Process, cryptoki.Device) {
	t.Helper()
	process, _ := open(t, mode)
	device, err := process.Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return process, device
}

func TestSessions(t *testing.T) {
	process, device := openDevice(t, "sessions")
	if _, err := process.Sessions(t.Context()); err != nil {
		t.Errorf("asked for a second time: %v", err)
	}
	if n := device.MaxSessions(); n != 2 {
		t.Errorf("MaxSessions: %d", n)
	}
	s, err := device.OpenSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := device.OpenSession(t.Context()); !errors.Is(err, cryptoki.CKR_SESSION_COUNT) {
		t.Errorf("a second session: %v", err)
	}
	for _, test := range []struct {
		call *cryptoki.Call
		want cryptoki.RV
	}{
		{&cryptoki.Call{Function: cryptoki.GenerateRandom, Room: cryptoki.Room{Size: 8}}, cryptoki.CKR_OK},
		{&cryptoki.Call{Function: cryptoki.Sign, Data: [2][]byte{{1}}, Room: cryptoki.Room{Size: 8}}, cryptoki.CKR_KEY_FUNCTION_NOT_PERMITTED},
		{&cryptoki.Call{Function: cryptoki.Digest, Data: [2][]byte{{1}}, Room: cryptoki.Room{Size: 8}}, cryptoki.CKR_DEVICE_REMOVED},
		{&cryptoki.Call{Function: cryptoki.Encrypt, Data: [2][]byte{{1}}, Room: cryptoki.Room{Size: 8}}, cryptoki.CKR_GENERAL_ERROR},
	} {
		answer, err := s.Do(t.Context(), test.call)
		if err != nil || answer.RV != test.want {
			t.Errorf("%v: %+v, %v", test.call.Function, answer, err)
		}
	}
	first, second, err := s.(cryptoki.Pipeline).DoBoth(t.Context(),
		&cryptoki.Call{Function: cryptoki.Sign, Data: [2][]byte{{1}}, Room: cryptoki.Room{Size: 8}},
		&cryptoki.Call{Function: cryptoki.GenerateRandom, Room: cryptoki.Room{Size: 8}})
	if err != nil || first.RV != cryptoki.CKR_KEY_FUNCTION_NOT_PERMITTED || len(second.Data) != 8 {
		t.Errorf("two calls at once: %+v, %+v, %v", first, second, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The device has it back when the plugin has seen the end of the connection.
	for {
		again, err := device.OpenSession(t.Context())
		if errors.Is(err, cryptoki.CKR_SESSION_COUNT) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		again.Close()
		break
	}
}

func TestPluginsWithoutSessions(t *testing.T) {
	for mode, want := range map[string]hsm.Reason{"good": hsm.NotPermitted, "cramped": hsm.Misconfigured} {
		process, _ := open(t, mode)
		_, err := process.Sessions(t.Context())
		wantReason(t, err, want)
	}
	process := start(t, newCommand(t, "sessions"))
	_, err := process.Sessions(t.Context())
	wantReason(t, err, hsm.Invalid) // before Open
}

func TestAnswersAreChecked(t *testing.T) {
	_, device := openDevice(t, "lying sessions")
	for _, call := range []*cryptoki.Call{
		{Function: cryptoki.GenerateRandom, Room: cryptoki.Room{Size: 8}},
		{Function: cryptoki.FindObjects, Room: cryptoki.Room{Size: 3}},
		{Function: cryptoki.GetAttributeValue, Templates: [2][]cryptoki.Attribute{{{Type: cryptoki.CKA_LABEL, Length: 4}}}},
	} {
		var s cryptoki.Session
		for s == nil { // until the one before is closed
			var err error
			if s, err = device.OpenSession(t.Context()); err != nil && !errors.Is(err, cryptoki.CKR_SESSION_COUNT) {
				t.Fatal(err)
			}
		}
		_, err := s.Do(t.Context(), call)
		if !errors.Is(err, hsm.Corrupt) {
			t.Errorf("%v: %v", call.Function, err)
		}
		s.Close()
	}
}

func TestCheckAnswer(t *testing.T) {
	label := func(length uint64, value string, nested ...cryptoki.Attribute) []cryptoki.Attribute {
		a := cryptoki.Attribute{Type: cryptoki.CKA_LABEL, Length: length, Nested: nested}
		if value != "" {
			a.Value = []byte(value)
		}
		return []cryptoki.Attribute{a}
	}
	asks := func(template []cryptoki.Attribute) *cryptoki.Call {
		return &cryptoki.Call{Function: cryptoki.GetAttributeValue, Templates: [2][]cryptoki.Attribute{template}}
	}
	room := func(n uint32) *cryptoki.Call {
		return &cryptoki.Call{Function: cryptoki.Sign, Room: cryptoki.Room{Size: n}}
	}
	for name, test := range map[string]struct {
		call   *cryptoki.Call
		answer cryptoki.Answer
		ok     bool
	}{
		"bytes":           {room(2), cryptoki.Answer{Data: []byte{1, 2}}, true},
		"a length":        {room(2), cryptoki.Answer{RV: cryptoki.CKR_BUFFER_TOO_SMALL, Size: 64}, true},
		"too many bytes":  {room(1), cryptoki.Answer{Data: []byte{1, 2}}, false},
		"bytes for NULL":  {&cryptoki.Call{Function: cryptoki.Sign, Room: cryptoki.Room{Null: true, Size: 9}}, cryptoki.Answer{Data: []byte{1}}, false},
		"too many":        {room(1), cryptoki.Answer{List: []uint64{1, 2}}, false},
		"attribute":       {asks(label(4, "")), cryptoki.Answer{Attributes: label(4, "four")}, true},
		"its length":      {asks(label(0, "")), cryptoki.Answer{Attributes: label(4, "")}, true},
		"too long":        {asks(label(3, "")), cryptoki.Answer{Attributes: label(4, "four")}, false},
		"another one":     {asks([]cryptoki.Attribute{{Type: cryptoki.CKA_ID, Length: 4}}), cryptoki.Answer{Attributes: label(4, "four")}, false},
		"none":            {asks(label(4, "")), cryptoki.Answer{Attributes: []cryptoki.Attribute{}}, false},
		"nested":          {asks(label(24, "", label(4, "")...)), cryptoki.Answer{Attributes: label(24, "", label(4, "four")...)}, true},
		"nested too long": {asks(label(24, "", label(3, "")...)), cryptoki.Answer{Attributes: label(24, "", label(4, "four")...)}, false},
		"nested too many": {asks(label(24, "")), cryptoki.Answer{Attributes: label(24, "", label(4, "four")...)}, false},
		"refused":         {asks(label(4, "")), cryptoki.Answer{RV: cryptoki.CKR_OBJECT_HANDLE_INVALID}, true},
	} {
		if err := checkAnswer(test.call, &test.answer); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Calls of the plugin's sessions are for the daemon, and the daemon's for the plugin.
func TestSessionsAreBetweenTwoProcesses(t *testing.T) {
	process, device := openDevice(t, "sessions")
	t.Run("another server", func(t *testing.T) {
		impostor := filepath.Join(socketDir(t), "s")
		listener, err := net.Listen("unix", impostor)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		other := *device.(*remoteDevice)
		other.socket = impostor
		_, err = other.OpenSession(t.Context())
		wantReason(t, err, hsm.Corrupt)
	})
	t.Run("another client", func(t *testing.T) {
		// A child of this process is not the plugin's parent.
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), modeVariable+"=session client", "SOCKET_DIR="+process.child.sockets)
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != "closed" {
			t.Errorf("%s, %v", out, err)
		}
	})
}

// sessionClient tries to be served at the socket of a plugin whose parent it is not.
func sessionClient() {
	conn, err := net.Dial("unix", filepath.Join(os.Getenv("SOCKET_DIR"), sessionSocket))
	if err != nil {
		panic(err)
	}
	if _, err := rpc.Negotiate(conn, rpc.Latest); errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		fmt.Print("closed")
	}
}

func TestSessionsEndWithTheProcess(t *testing.T) {
	process, device := openDevice(t, "sessions")
	s, err := device.OpenSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	process.Kill()
	if _, err := s.Do(t.Context(), &cryptoki.Call{Function: cryptoki.GenerateRandom, Room: cryptoki.Room{Size: 8}}); err == nil {
		t.Error("a dead process answered")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	_, err = device.OpenSession(t.Context())
	wantReason(t, err, hsm.TokenGone)
	_, err = process.Sessions(t.Context())
	wantReason(t, err, hsm.TokenGone)
}
