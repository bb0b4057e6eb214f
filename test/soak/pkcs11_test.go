package soak

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/test/application"
	"github.com/kmsbroker/kmsbroker/test/application/library"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

func TestMain(m *testing.M) {
	library.Main(m, library.Tasks{"work": workTask, "settle": settleTask})
}

const (
	libraries = 16 // clients that are processes with p11-kit-client.so
	bare      = 16 // clients that speak the protocol from this process
	soakKey   = "soak"
)

// tally is what a client has done.
type tally struct {
	Done   map[string]int // by what was done
	Failed map[string]int // by return value
}

// TestPKCS11Soak: 32 clients sign, search, and make and destroy session objects while the
// plugin is killed again and again. Whatever they get is right; what they do not get
// fails with a return value that says so, and the next call may succeed, in the session
// that they have. KMSBROKER_SOAK says for how long, and KMSBROKER_SEED repeats what the
// clients do.
func TestPKCS11Soak(t *testing.T) {
	length, seed := parameters(t, 20*time.Second)
	t.Logf("%v with KMSBROKER_SEED=%d", length, seed)
	idle := idleGoroutines(t)
	s := stage.New(t, stage.Options{})
	target := s.Broker()
	daemon := target.Daemon
	prepare(t, s, target)
	await(t, "nobody is there yet", s.Unused)
	descriptors := daemon.Descriptors(t)

	clients := newClients(t, s, target)
	ctx, stop := context.WithTimeout(t.Context(), length)
	defer stop()
	var killing sync.WaitGroup
	kills := 0
	killing.Go(func() { kills = killPlugins(ctx, daemon, rand.New(rand.NewPCG(seed, 0))) })
	half := length / 2
	first := clients.work(half, seed)
	memory := stage.Memory(t, []int{daemon.PID()})
	second := clients.work(length-half, seed+1)
	grown := stage.Memory(t, []int{daemon.PID()}) - memory
	stop()
	killing.Wait()
	t.Logf("the plugin was killed %d times", kills)
	for _, part := range []tally{first, second} {
		t.Logf("done %v, failed %v", part.Done, part.Failed)
		for _, kind := range kinds {
			if part.Done[kind.name] == 0 {
				t.Errorf("nothing was done of: %s", kind.name)
			}
		}
	}
	clients.settle()
	clients.end()
	await(t, "nothing is lent", s.Unused)
	if p := s.Proxied(); p["sessions idle"] > p["max_sessions"] {
		t.Errorf("the token has too many sessions: %v", p)
	}
	await(t, "descriptors are closed", func() bool { return daemon.Descriptors(t) <= descriptors+int(s.Proxied()["max_sessions"]) })
	const slack = 16 << 20 // of the garbage collector
	if grown > slack {
		t.Errorf("the daemon has %d KiB more after the second half than after the first", grown>>10)
	}
	const more = 4 // such as one that writes the trail; each client had one
	if n := daemon.Goroutines(); n > idle+more {
		t.Errorf("the daemon has %d goroutines at the end, an idle one %d", n, idle)
	}
}

func prepare(t *testing.T, s *stage.Stage, target stage.PKCS11) {
	t.Helper()
	calls, conn, err := application.Dial(t.Context(), s.Path("run/pkcs11.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	a := &application.Application{Library: calls, Token: target.Token}
	if err := errors.Join(a.Initialize(), a.Generate(soakKey, 2048)); err != nil {
		t.Fatal(err)
	}
}

// killPlugins ends the plugin at random moments.
func killPlugins(ctx context.Context, daemon *stage.Daemon, random *rand.Rand) (kills int) {
	for {
		select {
		case <-ctx.Done():
			return kills
		case <-time.After(time.Duration(500+random.IntN(2500)) * time.Millisecond):
		}
		if pid := daemon.Plugin(); pid != 0 && syscall.Kill(pid, syscall.SIGKILL) == nil {
			kills++
		}
	}
}

// clients are all of them, as functions that do a task.
type clients struct {
	t   *testing.T
	run []func(task string, argument any) (tally, error)
	all []func() // their ends
}

func newClients(t *testing.T, s *stage.Stage, target stage.PKCS11) *clients {
	t.Helper()
	c := &clients{t: t}
	for range libraries {
		p := library.Start(t, target)
		c.all = append(c.all, p.Kill)
		c.run = append(c.run, func(task string, argument any) (done tally, err error) {
			err = p.Run(task, argument, &done)
			return done, err
		})
	}
	for range bare {
		calls, conn, err := application.Dial(t.Context(), s.Path("run/pkcs11.sock"))
		if err != nil {
			t.Fatal(err)
		}
		c.all = append(c.all, func() { conn.Close() })
		a := &application.Application{Library: calls, Token: target.Token, PIN: []byte(target.PIN)}
		c.run = append(c.run, func(task string, argument any) (tally, error) {
			raw, err := json.Marshal(argument)
			if err != nil {
				return tally{}, err
			}
			result, err := map[string]func(*application.Application, json.RawMessage) (any, error){"work": workTask, "settle": settleTask}[task](a, raw)
			done, _ := result.(tally)
			return done, err
		})
	}
	return c
}

type workOrder struct {
	Length time.Duration
	Seed   uint64
}

func (c *clients) work(length time.Duration, seed uint64) tally {
	return c.do("work", func(i int) any { return workOrder{length, seed + uint64(i)<<32} })
}

// settle has all work without a failure, because nothing is killed any more.
func (c *clients) settle() { c.do("settle", func(int) any { return nil }) }

func (c *clients) do(task string, argument func(i int) any) tally {
	sum := tally{Done: map[string]int{}, Failed: map[string]int{}}
	var mu sync.Mutex
	var working sync.WaitGroup
	for i, run := range c.run {
		working.Go(func() {
			done, err := run(task, argument(i))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				c.t.Errorf("client %d: %s: %v", i, task, err)
			}
			add(sum.Done, done.Done)
			add(sum.Failed, done.Failed)
		})
	}
	working.Wait()
	return sum
}

func add(sum, more map[string]int) {
	for name, n := range more {
		sum[name] += n
	}
}

// end ends all clients, however they are.
func (c *clients) end() {
	for _, end := range c.all {
		end()
	}
}

// worker is a client at work.
type worker struct {
	*application.Application
	random *rand.Rand
	public *rsa.PublicKey
	own    int    // session objects of this session, at most
	before uint64 // session of an earlier task, of whose objects nobody knows any more
	tally
}

// kinds is what clients do.
var kinds = []struct {
	name string
	do   func(*worker) error
}{
	{"sign", func(w *worker) error { return w.sign(1) }},
	{"sign in parts", func(w *worker) error { return w.sign(3) }},
	{"session object", (*worker).sessionObject},
	{"search", (*worker).search},
	{"random", (*worker).randomBytes},
	{"digest", (*worker).digest},
	{"new session", (*worker).newSession},
}

// workTask works for some time. What fails is counted if it may, and the next call is
// made in the same session.
func workTask(a *application.Application, argument json.RawMessage) (any, error) {
	var o workOrder
	if err := json.Unmarshal(argument, &o); err != nil {
		return nil, err
	}
	w := &worker{
		Application: a, random: rand.New(rand.NewPCG(o.Seed, 1)), before: a.Session,
		tally: tally{Done: map[string]int{}, Failed: map[string]int{}},
	}
	for end := time.Now().Add(o.Length); time.Now().Before(end); {
		kind := kinds[w.random.IntN(len(kinds))]
		err := w.step(kind.do)
		if rv, ok := errors.AsType[cryptoki.RV](err); ok && mayFail[rv] {
			w.Failed[rv.String()]++
		} else if err != nil {
			return w.tally, fmt.Errorf("%s: %w", kind.name, err)
		} else {
			w.Done[kind.name]++
		}
	}
	return w.tally, nil
}

// mayFail are the return values with which a call tells that the plugin was lost.
var mayFail = map[cryptoki.RV]bool{
	cryptoki.CKR_DEVICE_ERROR:          true, // and what was under way
	cryptoki.CKR_DEVICE_REMOVED:        true, // there is none at the moment
	cryptoki.CKR_TOKEN_NOT_PRESENT:     true, // likewise
	cryptoki.CKR_OBJECT_HANDLE_INVALID: true, // a session object is gone
	cryptoki.CKR_KEY_HANDLE_INVALID:    true, // likewise
}

func settleTask(a *application.Application, _ json.RawMessage) (any, error) {
	w := &worker{Application: a, random: rand.New(rand.NewPCG(1, 1)), tally: tally{Done: map[string]int{}}}
	if err := w.step((*worker).newSession); err != nil {
		return w.tally, err
	}
	for range 3 {
		for _, kind := range kinds {
			if err := w.step(kind.do); err != nil {
				return w.tally, fmt.Errorf("%s: %w", kind.name, err)
			}
			w.Done[kind.name]++
		}
	}
	return w.tally, nil
}

func (w *worker) step(do func(*worker) error) error {
	switch {
	case w.Session == 0:
		if err := w.Initialize(); err != nil {
			if rv, ok := errors.AsType[cryptoki.RV](err); !ok || rv != cryptoki.CKR_CRYPTOKI_ALREADY_INITIALIZED {
				return err
			}
			return w.Open()
		}
	case w.public == nil:
		key, err := w.Key(cryptoki.CKO_PUBLIC_KEY, soakKey)
		if err != nil {
			return w.endSearch(err)
		}
		if w.public, err = w.Public(key); err != nil {
			return err
		}
	}
	return do(w)
}

// endSearch lets the next search begin after one that failed.
func (w *worker) endSearch(err error) error {
	_, _ = w.Library(application.Call(cryptoki.FindObjectsFinal, w.Session))
	return err
}

func (w *worker) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(w.random.Uint32())
	}
	return b
}

func (w *worker) sign(n int) error {
	key, err := w.Key(cryptoki.CKO_PRIVATE_KEY, soakKey)
	if err != nil {
		return w.endSearch(err)
	}
	parts := make([][]byte, n)
	for i := range parts {
		parts[i] = w.bytes(1 + w.random.IntN(300))
	}
	signature, err := w.Sign(key, parts...)
	if err != nil {
		return err
	}
	if w.public == nil {
		return nil
	}
	return application.Verify(w.public, signature, parts...)
}

// sessionObject makes a secret of its own, uses it and destroys it, or leaves it to the
// end of the session.
func (w *worker) sessionObject() error {
	secret, data := w.bytes(32), w.bytes(50)
	create := application.Call(cryptoki.CreateObject, w.Session)
	create.Templates[0] = []cryptoki.Attribute{
		cryptoki.UlongAttribute(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY), cryptoki.UlongAttribute(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_GENERIC_SECRET),
		cryptoki.BytesAttribute(cryptoki.CKA_VALUE, secret), cryptoki.BoolAttribute(cryptoki.CKA_SIGN, true), cryptoki.BytesAttribute(cryptoki.CKA_LABEL, secret),
	}
	made, err := w.Do(create)
	if err != nil {
		return err
	}
	w.own++
	begin := application.Call(cryptoki.SignInit, w.Session, made.Numbers[0])
	begin.Mechanism = &cryptoki.Mechanism{Type: cryptoki.CKM_SHA256_HMAC}
	if _, err := w.Do(begin); err != nil {
		return err
	}
	sign := application.Call(cryptoki.Sign, w.Session)
	sign.Data[0] = data
	answer, err := w.Do(sign)
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(data)
	if !hmac.Equal(answer.Data, mac.Sum(nil)) {
		return errors.New("the MAC is of another key or other data")
	}
	if w.random.IntN(4) == 0 {
		return nil
	}
	if _, err = w.Do(application.Call(cryptoki.DestroyObject, w.Session, made.Numbers[0])); err == nil {
		w.own--
	}
	return err
}

// search finds the one key that there is, and no session object of another's.
func (w *worker) search() error {
	found, err := w.Find(cryptoki.UlongAttribute(cryptoki.CKA_CLASS, cryptoki.CKO_PUBLIC_KEY))
	if err != nil {
		return w.endSearch(err)
	}
	if len(found) != 1 {
		return fmt.Errorf("%d public keys", len(found))
	}
	found, err = w.Find(cryptoki.UlongAttribute(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY))
	if err != nil {
		return w.endSearch(err)
	}
	if len(found) > w.own && w.Session != w.before {
		return fmt.Errorf("%d secret keys, of which %d are its own", len(found), w.own)
	}
	return nil
}

func (w *worker) randomBytes() error {
	answer, err := w.Do(application.Call(cryptoki.GenerateRandom, w.Session))
	if err != nil {
		return err
	}
	if len(answer.Data) != 512 || bytes.Equal(answer.Data, make([]byte, 512)) {
		return fmt.Errorf("%d bytes, which may be zeros", len(answer.Data))
	}
	return nil
}

func (w *worker) digest() error {
	begin := application.Call(cryptoki.DigestInit, w.Session)
	begin.Mechanism = &cryptoki.Mechanism{Type: cryptoki.CKM_SHA256}
	if _, err := w.Do(begin); err != nil {
		return err
	}
	data := w.bytes(100)
	digest := application.Call(cryptoki.Digest, w.Session)
	digest.Data[0] = data
	answer, err := w.Do(digest)
	if err != nil {
		return err
	}
	if want := sha256.Sum256(data); !bytes.Equal(answer.Data, want[:]) {
		return errors.New("the digest is another's")
	}
	return nil
}

// newSession gives up the session with all that it has.
func (w *worker) newSession() error {
	if _, err := w.Do(application.Call(cryptoki.CloseSession, w.Session)); err != nil {
		return err
	}
	w.Session, w.own = 0, 0
	return nil
}
