package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"google.golang.org/grpc/codes"

	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/envelope"
)

// newFake returns a daemon of one's own and a client of it.
func newFake(t *testing.T) (*fake, *client.Client) {
	t.Helper()
	path, remove, err := socketPath()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	daemon := &fake{}
	stop, err := daemon.serve(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	c, err := client.New(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return daemon, c
}

func reason(err error) string {
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Reason
	}
	return fmt.Sprint(err)
}

// TestEnvelopes: what is small the daemon does, the rest happens here, and each
// opens what the other sealed.
func TestEnvelopes(t *testing.T) {
	daemon, c := newFake(t)
	purpose := map[string]string{"purpose": "card"}
	for _, size := range []int{0, 1, 64 << 10, 64<<10 + 1, 1 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			daemon.whole.Store(0)
			daemon.size.Store(0)
			plaintext := bytes.Repeat([]byte("x"), size)
			sealed, err := c.Seal(t.Context(), "payments", plaintext, purpose)
			if err != nil {
				t.Fatal(err)
			}
			opened, err := c.Open(t.Context(), sealed, purpose)
			if err != nil || opened.Key != "payments" || !bytes.Equal(opened.Plaintext, plaintext) {
				t.Errorf("Open: %v", err)
			}
			long := size > 64<<10
			if whole := daemon.whole.Load(); (whole == 0) != long || (daemon.size.Load() == uint64(size)) != (long || size == 0) {
				t.Errorf("the daemon did %d, and was told of %d bytes", whole, daemon.size.Load())
			}
			var streamed, back bytes.Buffer
			if err := c.SealStream(t.Context(), "payments", &streamed, iotest.HalfReader(bytes.NewReader(plaintext)), purpose); err != nil {
				t.Fatal(err)
			}
			if opened, err := c.Open(t.Context(), streamed.Bytes(), purpose); err != nil || !bytes.Equal(opened.Plaintext, plaintext) {
				t.Errorf("Open of a stream: %v", err)
			}
			if err := c.OpenStream(t.Context(), &back, iotest.HalfReader(bytes.NewReader(sealed)), purpose); err != nil || !bytes.Equal(back.Bytes(), plaintext) {
				t.Errorf("OpenStream: %v", err)
			}
		})
	}
}

// TestEnvelopeRefusals: a client believes no daemon that a message is in order.
func TestEnvelopeRefusals(t *testing.T) {
	_, c := newFake(t)
	sealed, err := c.Seal(t.Context(), "payments", bytes.Repeat([]byte("x"), 200_000), nil)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(sealed)
	changed[len(changed)-1] ^= 1
	for name, tt := range map[string]struct {
		message []byte
		context map[string]string
		reason  string
		code    codes.Code
	}{
		"nothing": {nil, nil, "ENVELOPE_FORMAT", codes.InvalidArgument},
		"garbage": {[]byte("hello"), nil, "ENVELOPE_FORMAT", codes.InvalidArgument},
		"context": {sealed, map[string]string{"a": "b"}, "ENVELOPE_MISMATCH", codes.InvalidArgument},
		"cut off": {sealed[:len(sealed)-70_000], nil, "ENVELOPE_DAMAGED", codes.DataLoss},
		"changed": {changed, nil, "ENVELOPE_DAMAGED", codes.DataLoss},
	} {
		opened, err := c.Open(t.Context(), tt.message, tt.context)
		if e, ok := errors.AsType[*client.Error](err); !ok || opened != nil || e.Reason != tt.reason || e.Code != tt.code || e.Message == "" {
			t.Errorf("%s: Open: %+v", name, err)
		}
		if err := c.OpenStream(t.Context(), io.Discard, bytes.NewReader(tt.message), tt.context); reason(err) != tt.reason {
			t.Errorf("%s: OpenStream: %v", name, err)
		}
	}
}

// TestStreamErrors: errors of the source and the destination come back as they are,
// and a stream that was not finished does not open.
func TestStreamErrors(t *testing.T) {
	_, c := newFake(t)
	broken := errors.New("the disk is gone")
	var half bytes.Buffer
	src := io.MultiReader(bytes.NewReader(make([]byte, 300_000)), iotest.ErrReader(broken))
	if err := c.SealStream(t.Context(), "payments", &half, src, nil); !errors.Is(err, broken) {
		t.Errorf("a broken source: %v", err)
	}
	if err := c.OpenStream(t.Context(), io.Discard, &half, nil); reason(err) != "ENVELOPE_DAMAGED" {
		t.Errorf("an unfinished stream: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	endless := readerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	if err := c.SealStream(ctx, "payments", io.Discard, endless, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("an endless source: %v", err)
	}
	r, w := io.Pipe()
	r.CloseWithError(broken)
	if err := c.SealStream(t.Context(), "payments", w, bytes.NewReader(nil), nil); !errors.Is(err, broken) {
		t.Errorf("a broken destination: %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestRegions: those that are named, or the client's own, or all.
func TestRegions(t *testing.T) {
	_, c := newFake(t)
	for _, tt := range []struct {
		client *client.Client
		named  []string
		want   []string
	}{
		{c, nil, []string{"cn-hangzhou", "cn-shanghai"}},
		{c, []string{"eu-central-1"}, []string{"eu-central-1"}},
		{c.In("eu-west-1"), nil, []string{"eu-west-1"}},
		{c.In("eu-west-1"), []string{"a", "b"}, []string{"a", "b"}},
	} {
		var message bytes.Buffer
		if err := tt.client.SealWith(t.Context(), &message, bytes.NewReader(nil), client.ToSeal{Key: "payments", Regions: tt.named}); err != nil {
			t.Fatal(err)
		}
		raw, err := envelope.ReadHeader(&message)
		if err != nil {
			t.Fatal(err)
		}
		header, err := envelope.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, w := range header.WrappedKeys {
			got = append(got, w.Region)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("regions %v, want %v", got, tt.want)
		}
	}
}
