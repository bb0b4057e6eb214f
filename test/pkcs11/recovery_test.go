package pkcs11

import (
	"encoding/json"
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/test/application"
	applications "github.com/kmsbroker/kmsbroker/test/application/library"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

const recoveryKey = "recovery"

// recoveryTasks are what an application does that outlives plugins and daemons. It keeps
// its session and its handles from one task to the next.
func recoveryTasks() applications.Tasks {
	var private, public, own uint64
	return applications.Tasks{
		"open": func(a *application.Application, _ json.RawMessage) (any, error) {
			err := a.Initialize()
			if err == nil {
				private, err = a.Key(cryptoki.CKO_PRIVATE_KEY, recoveryKey)
			}
			if err == nil {
				public, err = a.Key(cryptoki.CKO_PUBLIC_KEY, recoveryKey)
			}
			return nil, err
		},
		"finalize": func(a *application.Application, _ json.RawMessage) (any, error) {
			_, err := a.Do(application.Call(cryptoki.Finalize))
			return nil, err
		},
		"sign": func(a *application.Application, _ json.RawMessage) (any, error) {
			key, err := a.Public(public)
			if err != nil {
				return nil, err
			}
			signature, err := a.Sign(private, []byte("data"))
			if err != nil {
				return nil, err
			}
			return nil, application.Verify(key, signature, []byte("data"))
		},
		"begin": func(a *application.Application, _ json.RawMessage) (any, error) {
			begin, next := application.Call(cryptoki.SignInit, a.Session, private), application.Call(cryptoki.SignUpdate, a.Session)
			begin.Mechanism, next.Data[0] = &cryptoki.Mechanism{Type: cryptoki.CKM_SHA256_RSA_PKCS}, []byte("half")
			_, err := a.Do(begin)
			if err == nil {
				_, err = a.Do(next)
			}
			return nil, err
		},
		"end": func(a *application.Application, _ json.RawMessage) (any, error) {
			_, err := a.Do(application.Call(cryptoki.SignFinal, a.Session))
			return nil, err
		},
		"make": func(a *application.Application, _ json.RawMessage) (any, error) {
			call := application.Call(cryptoki.CreateObject, a.Session)
			call.Templates[0] = []cryptoki.Attribute{cryptoki.UlongAttribute(cryptoki.CKA_CLASS, cryptoki.CKO_DATA), cryptoki.BytesAttribute(cryptoki.CKA_VALUE, []byte("x"))}
			answer, err := a.Do(call)
			if err == nil {
				own = answer.Numbers[0]
			}
			return nil, err
		},
		"size": func(a *application.Application, _ json.RawMessage) (any, error) {
			_, err := a.Do(application.Call(cryptoki.GetObjectSize, a.Session, own))
			return nil, err
		},
	}
}

// recovering is an application in a process of its own.
type recovering struct {
	*applications.Process
	t *testing.T
}

// does has it do something that has to end so.
func (r *recovering) does(task string, want cryptoki.RV) {
	r.t.Helper()
	err := r.Run(task, nil, nil)
	got, ok := errors.AsType[cryptoki.RV](err)
	if err == nil {
		got, ok = cryptoki.CKR_OK, true
	}
	if !ok || got != want {
		r.t.Errorf("%s: %v, want %v", task, err, want)
	}
}

// fails has it do something that cannot be done, which has to end in one of these ways.
func (r *recovering) fails(task string, ways ...cryptoki.RV) {
	r.t.Helper()
	err := r.Run(task, nil, nil)
	rv, ok := errors.AsType[cryptoki.RV](err)
	if !ok || !slices.Contains(ways, rv) {
		r.t.Errorf("%s: %v, want one of %v", task, err, ways)
	}
}

// until has it do something again while it fails as it may.
func (r *recovering) until(task string, mayFail ...cryptoki.RV) {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		err := r.Run(task, nil, nil)
		if err == nil {
			return
		}
		rv, ok := errors.AsType[cryptoki.RV](err)
		if !ok || !slices.Contains(mayFail, rv) || time.Now().After(end) {
			r.t.Fatalf("%s: %v", task, err)
		}
	}
}

// newRecovering starts a broker and an application that has found its keys.
func newRecovering(t *testing.T, options stage.Options) (*stage.Stage, stage.PKCS11, *recovering) {
	t.Helper()
	s := stage.New(t, options)
	target := s.Broker()
	if options.Luna != nil {
		target.Token = options.Luna.Label
	}
	calls, conn, err := application.Dial(t.Context(), s.Path("run/pkcs11.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	a := &application.Application{Library: calls, Token: target.Token}
	if err := errors.Join(a.Initialize(), a.Generate(recoveryKey, 2048)); err != nil {
		t.Fatal(err)
	}
	r := &recovering{applications.Start(t, target), t}
	r.does("open", cryptoki.CKR_OK)
	return s, target, r
}

// TestRecovery: an application is told with return values of the standard what it has
// lost, and goes on without being restarted.
func TestRecovery(t *testing.T) {
	s, target, r := newRecovering(t, stage.Options{})
	for _, task := range []string{"sign", "make", "size", "begin"} {
		r.does(task, cryptoki.CKR_OK)
	}

	// The plugin crashes: what was under way is lost, and what was on it.
	plugin := target.Daemon.Plugin()
	if err := syscall.Kill(plugin, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.does("end", cryptoki.CKR_DEVICE_ERROR)
	r.does("end", cryptoki.CKR_OPERATION_NOT_INITIALIZED)
	r.until("sign", cryptoki.CKR_DEVICE_ERROR, cryptoki.CKR_DEVICE_REMOVED) // with the same session and handles
	r.does("size", cryptoki.CKR_OBJECT_HANDLE_INVALID)
	for _, task := range []string{"make", "size", "begin", "end"} {
		r.does(task, cryptoki.CKR_OK)
	}

	// The daemon is restarted: the connection is gone, and with it everything but the
	// library itself.
	target.Daemon.Stop()
	r.does("sign", cryptoki.CKR_DEVICE_ERROR)
	s.Start()
	r.does("sign", cryptoki.CKR_DEVICE_ERROR)
	r.does("finalize", cryptoki.CKR_OK)
	r.until("open", cryptoki.CKR_TOKEN_NOT_PRESENT)
	r.does("sign", cryptoki.CKR_OK)
}

// TestLostHSM: while the HSM is away calls say so, and when it is back the session that
// the application has is good.
func TestLostHSM(t *testing.T) {
	sim := hsmsim.New(t, hsmsim.Luna)
	_, _, r := newRecovering(t, stage.Options{Luna: sim})
	for _, task := range []string{"sign", "make", "begin"} {
		r.does(task, cryptoki.CKR_OK)
	}
	sim.LinkDown()
	r.fails("end", cryptoki.CKR_DEVICE_ERROR, cryptoki.CKR_DEVICE_REMOVED)
	r.fails("sign", cryptoki.CKR_DEVICE_ERROR, cryptoki.CKR_DEVICE_REMOVED)
	sim.LinkUp()
	r.until("sign", cryptoki.CKR_DEVICE_ERROR, cryptoki.CKR_DEVICE_REMOVED)
	r.does("size", cryptoki.CKR_OBJECT_HANDLE_INVALID)
	r.does("make", cryptoki.CKR_OK)
}
