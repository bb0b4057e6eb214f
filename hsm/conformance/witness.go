package conformance

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// Limits of hsm.proto, in bytes.
const (
	maxDetail = 1024
	maxCode   = 64
)

// witness sees every answer of the token, because some promises hold for all of
// them.
type witness struct {
	leaks func(string) bool

	mu     sync.Mutex
	code   string              // the last one since begin
	ours   map[hsm.KeyID]bool  // keys of the suite
	texts  map[string]struct{} // that came with errors and with the suite's keys
	values [][]byte            // of the suite's keys

	untyped, unknown, ugly, leaking complaints
}

// complaints keeps the first few examples.
type complaints struct {
	examples []string
	total    int
}

func (c *complaints) add(example string) {
	const enough = 3
	c.total++
	if len(c.examples) < enough && !slices.Contains(c.examples, example) {
		c.examples = append(c.examples, example)
	}
}

func newWitness(leaks func(string) bool) *witness {
	return &witness{leaks: leaks, ours: map[hsm.KeyID]bool{}, texts: map[string]struct{}{}}
}

func (w *witness) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.code = ""
}

func (w *witness) lastCode() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.code
}

// watch makes the texts of a key be kept.
func (w *witness) watch(id hsm.KeyID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ours[id] = true
}

// learn keeps the value of a throw-away key, to look for it in texts.
func (w *witness) learn(value []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.ContainsFunc(w.values, func(known []byte) bool { return bytes.Equal(known, value) }) {
		w.values = append(w.values, value)
	}
}

// saw judges the error of a call.
func (w *witness) saw(call string, err error) {
	if err == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keep(err.Error())
	if w.leaks != nil && w.leaks(err.Error()) {
		w.leaking.add(call)
	}
	e, ok := errors.AsType[*hsm.Error](err)
	if !ok {
		if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			w.untyped.add(fmt.Sprintf("%s: a %T", call, err))
		}
		return
	}
	if e.Code != "" {
		w.code = e.Code
	}
	if !slices.Contains(hsm.Reasons(), e.Reason) {
		w.unknown.add(fmt.Sprintf("%s: %q", call, string(e.Reason)))
	}
	switch {
	case e.Error() == "":
		w.ugly.add(call + ": no text")
	case len(e.Detail) > maxDetail || len(e.Code) > maxCode:
		w.ugly.add(fmt.Sprintf("%s: a detail of %d bytes and a code of %d", call, len(e.Detail), len(e.Code)))
	case !isPrintable(e.Error()):
		w.ugly.add(fmt.Sprintf("%s: %.80q", call, e.Error()))
	}
}

// read keeps the texts of a key of the suite.
func (w *witness) read(keys ...hsm.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range keys {
		if !w.ours[k.ID] {
			continue
		}
		w.keep(k.Label)
		for name, value := range k.Vendor {
			w.keep(name)
			w.keep(value)
		}
	}
}

// keep remembers a text within bounds.
func (w *witness) keep(text string) {
	const most = 10_000
	if len(w.texts) < most {
		w.texts[text] = struct{}{}
	}
}

// spills counts the texts that contain the value of a key.
func (w *witness) spills() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for text := range w.texts {
		if slices.ContainsFunc(w.values, func(value []byte) bool { return contains(text, value) }) {
			n++
		}
	}
	return n
}

// contains looks for a value in the forms in which one slips out.
func contains(text string, value []byte) bool {
	return len(value) > 0 && (strings.Contains(text, string(value)) ||
		strings.Contains(strings.ToLower(text), hex.EncodeToString(value)) ||
		strings.Contains(text, base64.RawStdEncoding.EncodeToString(value)))
}

func isPrintable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// printable makes foreign words fit for a report.
func printable(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(s, "?"))
}

// observed is the token with a witness.
type observed struct {
	hsm.Token
	witness *witness
}

func (o *observed) Describe(ctx context.Context) (*hsm.Info, error) {
	info, err := o.Token.Describe(ctx)
	o.witness.saw("Describe", err)
	return info, err
}

func (o *observed) GenerateKey(ctx context.Context, spec hsm.KeySpec) (*hsm.Key, error) {
	key, err := o.Token.GenerateKey(ctx, spec)
	o.witness.saw("GenerateKey", err)
	if err == nil {
		o.witness.read(*key)
	}
	return key, err
}

func (o *observed) Keys(ctx context.Context) ([]hsm.Key, error) {
	keys, err := o.Token.Keys(ctx)
	o.witness.saw("Keys", err)
	o.witness.read(keys...)
	return keys, err
}

func (o *observed) Key(ctx context.Context, id hsm.KeyID) (*hsm.Key, error) {
	key, err := o.Token.Key(ctx, id)
	o.witness.saw("Key", err)
	if err == nil {
		o.witness.read(*key)
	}
	return key, err
}

func (o *observed) CheckValue(ctx context.Context, id hsm.KeyID) (hsm.CheckValue, error) {
	value, err := o.Token.CheckValue(ctx, id)
	o.witness.saw("CheckValue", err)
	return value, err
}

func (o *observed) Wrap(ctx context.Context, req hsm.WrapRequest) ([]byte, error) {
	blob, err := o.Token.Wrap(ctx, req)
	o.witness.saw("Wrap", err)
	return blob, err
}

func (o *observed) SealKey(ctx context.Context, id hsm.KeyID) (*hsm.Key, error) {
	key, err := o.Token.SealKey(ctx, id)
	o.witness.saw("SealKey", err)
	if err == nil {
		o.witness.read(*key)
	}
	return key, err
}

func (o *observed) DestroyKey(ctx context.Context, id hsm.KeyID) error {
	err := o.Token.DestroyKey(ctx, id)
	o.witness.saw("DestroyKey", err)
	return err
}

func (o *observed) Health(ctx context.Context) error {
	err := o.Token.Health(ctx)
	o.witness.saw("Health", err)
	return err
}

func (o *observed) Close(ctx context.Context) error {
	err := o.Token.Close(ctx)
	o.witness.saw("Close", err)
	return err
}
