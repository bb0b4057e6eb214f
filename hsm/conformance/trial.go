package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// trial is what a check works with.
type trial struct {
	*suite
	id    string
	token hsm.Token

	noting sync.Mutex
	note   string
}

// notef keeps something worth reporting of a check that passes.
func (t *trial) notef(format string, args ...any) {
	t.noting.Lock()
	defer t.noting.Unlock()
	t.note = fmt.Sprintf(format, args...)
}

func (t *trial) noted() string {
	t.noting.Lock()
	defer t.noting.Unlock()
	return t.note
}

// spec is a key that is removed after the check. The name tells keys of one
// check apart and may be empty.
func (t *trial) spec(name string) hsm.KeySpec {
	id := hsm.NewKeyID()
	t.track(id)
	return hsm.KeySpec{ID: id, Label: t.config.Prefix + t.id + name}
}

// prepare makes a key for a check that is about something else.
func (t *trial) prepare(ctx context.Context, name string) (*hsm.Key, error) {
	spec := t.spec(name)
	key, err := t.token.GenerateKey(ctx, spec)
	if err != nil {
		return nil, t.notGenerated(ctx, err)
	}
	// Whatever else the answer says is judged elsewhere.
	return &hsm.Key{ID: spec.ID, Label: spec.Label, Vendor: key.Vendor}, nil
}

// notGenerated judges a refused generation where it is only a preparation.
func (t *trial) notGenerated(ctx context.Context, err error) error {
	if t.readOnly(ctx, err) {
		return notSupported(err, "the crypto user may not generate keys")
	}
	return blocked(err, "no key could be generated for the check")
}

// readOnly reports whether err is how a Crypto User is told that its role cannot
// generate.
func (t *trial) readOnly(ctx context.Context, err error) bool {
	if !errors.Is(err, hsm.NotPermitted) {
		return false
	}
	info, describeErr := t.describe(ctx)
	return describeErr == nil && info.Role == hsm.CryptoUser
}

// describe returns what the token said of itself first.
func (t *trial) describe(ctx context.Context) (*hsm.Info, error) {
	t.describing.Lock()
	defer t.describing.Unlock()
	if t.info != nil {
		return t.info, nil
	}
	info, err := t.token.Describe(ctx)
	if err != nil {
		return nil, blocked(err, "the token does not describe itself")
	}
	kept := *info
	kept.WrappingAlgorithms = slices.Clone(info.WrappingAlgorithms)
	kept.Policies = slices.Clone(info.Policies)
	t.info = &kept
	return t.info, nil
}

// algorithms are those that the token declares and this package knows.
func (t *trial) algorithms(ctx context.Context) ([]hsm.WrappingAlgorithm, error) {
	info, err := t.describe(ctx)
	if err != nil {
		return nil, err
	}
	var declared []hsm.WrappingAlgorithm
	for _, a := range hsm.WrappingAlgorithms() {
		if slices.Contains(info.WrappingAlgorithms, a) {
			declared = append(declared, a)
		}
	}
	if len(declared) == 0 {
		return nil, notSupported(nil, "the token declares no wrapping algorithm")
	}
	return declared, nil
}

// algorithm is the strongest that the token declares.
func (t *trial) algorithm(ctx context.Context) (hsm.WrappingAlgorithm, error) {
	declared, err := t.algorithms(ctx)
	if err != nil {
		return "", err
	}
	return declared[0], nil
}

// export wraps a key under an RSA key of the suite and opens the blob, as its
// receiver would.
func (t *trial) export(ctx context.Context, id hsm.KeyID, algorithm hsm.WrappingAlgorithm, bits int) (*exported, error) {
	receiver, err := t.rsa.get(bits)
	if err != nil {
		return nil, blocked(err, "no RSA-%d key could be made", bits)
	}
	blob, err := t.token.Wrap(ctx, hsm.WrapRequest{Key: id, Algorithm: algorithm, PublicKey: receiver.spki})
	if err != nil {
		return nil, failedBy(err, "%s under RSA-%d", algorithm, bits)
	}
	opened, err := receiver.open(blob, algorithm)
	if err != nil {
		return nil, failed("%s under RSA-%d: the blob of %d bytes does not open: %v", algorithm, bits, len(blob), err)
	}
	t.witness.learn(opened.value)
	return opened, nil
}

// reopen closes the token and opens a fresh one.
func (t *trial) reopen(ctx context.Context) error {
	t.close(ctx)
	token, err := t.ensure(ctx)
	if err != nil {
		return failedBy(err, "the token does not open again")
	}
	t.token = token
	return nil
}

// parallel runs fn n times at once, waits for all and returns the first error
// in order.
func parallel(n int, fn func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = guarded(func() error { return fn(i) }) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
