package pin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// quick is a guard whose hashes are the PINs behind "hash of ".
func quick() *Guard {
	g := NewGuard()
	g.matches = func(hash string, given []byte) (bool, error) { return hash == "hash of "+string(given), nil }
	return g
}

// TestVector is the one of RFC 7914, section 11, which has few iterations.
func TestVector(t *testing.T) {
	h := hash{iterations: 80000, salt: []byte("NaCl")}
	key, err := h.derive([]byte("Password"))
	if want := "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56"; err != nil || fmt.Sprintf("%x", key) != want {
		t.Errorf("%x, %v", key, err)
	}
}

// TestGolden: a hash stays what it was. Python's hashlib made this one.
func TestGolden(t *testing.T) {
	const text = "pbkdf2-sha256$600000$AQIDBAUGBwgJCgsMDQ4PEA$NXSV2Hvw0a4avTiH8+XQMbzO/LunKvKwp2ld1utFRA0"
	if ok, err := matches(text, []byte("correct horse")); err != nil || !ok {
		t.Errorf("%v, %v", ok, err)
	}
}

func TestHash(t *testing.T) {
	text, err := Hash([]byte("geheim"))
	if err != nil || !strings.HasPrefix(text, "pbkdf2-sha256$600000$") {
		t.Fatalf("%q, %v", text, err)
	}
	if other, err := Hash([]byte("geheim")); err != nil || other == text {
		t.Errorf("two hashes of a PIN: %s, %s, %v", text, other, err)
	}
	for given, want := range map[string]bool{"geheim": true, "geheim ": false, "Geheim": false} {
		if ok, err := matches(text, []byte(given)); err != nil || ok != want {
			t.Errorf("%q: %v, %v", given, ok, err)
		}
	}
	for _, given := range []string{"", strings.Repeat("1", Longest+1)} {
		if text, err := Hash([]byte(given)); err == nil {
			t.Errorf("a PIN of %d bytes: %s", len(given), text)
		}
	}
}

func TestCheckHash(t *testing.T) {
	const salt, key = "MDEyMzQ1Njc4OWFiY2RlZg", "TdzY9guYviGDDO5e8icB+WQaRBjQTAQUru/wiHazSrU"
	join := func(parts ...string) string { return strings.Join(parts, "$") }
	if err := CheckHash(join(scheme, "600000", salt, key)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing": "", "a PIN": "1234", "no key": join(scheme, "600000", salt), "more": join(scheme, "600000", salt, key, ""),
		"scheme": join("pbkdf2-sha1", "600000", salt, key), "few": join(scheme, "99999", salt, key), "many": join(scheme, "10000001", salt, key),
		"sign": join(scheme, "+600000", salt, key), "zero": join(scheme, "0600000", salt, key), "huge": join(scheme, strings.Repeat("9", 30), salt, key),
		"short salt": join(scheme, "600000", salt[:20], key), "long salt": join(scheme, "600000", strings.Repeat("MDEy", 22), key),
		"short key": join(scheme, "600000", salt, key[:42]), "padding": join(scheme, "600000", salt+"==", key),
		"other bits": join(scheme, "600000", salt[:21]+"h", key), "newline": join(scheme, "600000", salt, key+"\n"), "URL": join(scheme, "600000", salt, strings.ReplaceAll(key, "+", "-")),
	} {
		if err := CheckHash(text); err == nil || len(text) > 3 && strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := CheckHash("1234"); !errors.Is(err, ErrForm) {
		t.Error(err)
	}
}

// TestLock: ten wrong PINs in a row lock one caller, for the hashes that they were
// compared with.
func TestLock(t *testing.T) {
	g, one, two := quick(), "hash of 1", "hash of 2"
	check := func(who, given string, want error, known ...string) {
		t.Helper()
		got, err := g.Check(t.Context(), who, []string{one, two}, []byte(given))
		if !errors.Is(err, want) || !slices.Equal(got, known) {
			t.Fatalf("%s with %q: %v, %v; want %v, %v", who, given, got, err, known, want)
		}
	}
	for range Tries - 1 {
		check("eve", "x", ErrWrong)
	}
	check("eve", "1", nil, one) // and the other one is as near to the lock as it was
	check("eve", "", ErrWrong)
	check("eve", strings.Repeat("x", Longest+1), ErrWrong)
	check("eve", "2", nil, two)
	for range Tries - 1 {
		check("eve", "x", ErrWrong)
	}
	check("eve", "1", nil, one)
	check("eve", "x", ErrWrong) // the last for two
	check("eve", "2", ErrWrong)
	check("eve", "1", nil, one)
	for range Tries {
		check("eve", "x", ErrWrong)
	}
	check("eve", "1", ErrLocked)
	check("alice", "1", nil, one)
	if _, err := quick().Check(t.Context(), "eve", []string{one}, []byte("1")); err != nil {
		t.Errorf("a new guard: %v", err)
	}
	if len(g.callers) != 1 {
		t.Errorf("%d callers are remembered", len(g.callers))
	}
}

// TestGuard compares real hashes.
func TestGuard(t *testing.T) {
	text, err := Hash([]byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	g := NewGuard()
	if known, err := g.Check(t.Context(), "alice", []string{text}, []byte("1")); err != nil || !slices.Equal(known, []string{text}) {
		t.Errorf("%v, %v", known, err)
	}
	if _, err := g.Check(t.Context(), "alice", []string{text}, []byte("2")); !errors.Is(err, ErrWrong) {
		t.Error(err)
	}
	if _, err := g.Check(t.Context(), "alice", []string{"no hash"}, []byte("1")); !errors.Is(err, ErrForm) {
		t.Errorf("no hash: %v", err)
	}
}

// TestManyAtOnce: a caller with many connections has no more tries than with one.
func TestManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, right := quick(), "hash of 1"
		g.slots = make(chan struct{}, 3*Tries)
		g.matches = func(string, []byte) (bool, error) { time.Sleep(time.Second); return false, nil } // while all others come
		outcomes := make(chan error, 3*Tries)
		for range 3 * Tries {
			go func() { _, err := g.Check(t.Context(), "eve", []string{right}, []byte("x")); outcomes <- err }()
		}
		count := map[error]int{}
		for range 3 * Tries {
			count[<-outcomes]++
		}
		if count[ErrWrong] != Tries || count[ErrLocked] != 2*Tries {
			t.Errorf("%v", count)
		}
	})
}

// TestTurns: while one call of a caller goes on its others wait, those of others do
// not, and a slot bounds all.
func TestTurns(t *testing.T) {
	g, right := quick(), "hash of 1"
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	busy := g.enter("eve")
	busy.turn <- struct{}{}
	if _, err := g.Check(gone, "eve", []string{right}, []byte("1")); !errors.Is(err, context.Canceled) {
		t.Errorf("while another call goes on: %v", err)
	}
	if _, err := g.Check(t.Context(), "alice", []string{right}, []byte("1")); err != nil {
		t.Error(err)
	}
	<-busy.turn
	g.leave("eve", busy)
	for range cap(g.slots) {
		g.slots <- struct{}{}
	}
	patience, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { _, err := g.Check(patience, "alice", []string{right}, []byte("1")); done <- err }()
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("without a slot: %v", err)
	}
	if len(g.callers) != 0 {
		t.Errorf("%d callers are remembered", len(g.callers))
	}
}

// TestVeryMany: callers that are too many for counts of their own have one between
// them.
func TestVeryMany(t *testing.T) {
	g := NewGuard()
	for i := range mostCallers {
		g.callers[fmt.Sprint(i)] = &caller{wrong: map[string]int{"h": 1}}
	}
	first, second := g.enter("a"), g.enter("b")
	if first != second || first != &g.rest {
		t.Error("they have counts of their own")
	}
	g.leave("a", first)
	g.leave("b", second)
	if len(g.callers) != mostCallers || g.enter("0") == &g.rest {
		t.Error("those who were there are not")
	}
}

func FuzzCheckHash(f *testing.F) {
	f.Add("pbkdf2-sha256$600000$MDEyMzQ1Njc4OWFiY2RlZg$TdzY9guYviGDDO5e8icB+WQaRBjQTAQUru/wiHazSrU")
	f.Add("$$$")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := parse(text)
		if err != nil {
			return
		}
		again := fmt.Sprintf("%s$%d$%s$%s", scheme, h.iterations, encoding.EncodeToString(h.salt), encoding.EncodeToString(h.key))
		if again != text || h.iterations < LeastIterations || h.iterations > MostIterations {
			t.Errorf("%q is also %q", text, again)
		}
	})
}
