package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/grpc"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/plugin/hsmv1"
	"github.com/kmsbroker/kmsbroker/internal/fault"
)

// client is the token behind a plugin process, as the daemon sees it.
type client struct {
	rpc hsmv1.TokenClient
	// alive ends with the process, and all calls with it.
	alive    context.Context
	inFlight chan struct{}
}

var _ hsm.Token = (*client)(nil)

func newClient(alive context.Context, rpc hsmv1.TokenClient) *client {
	return &client{rpc: rpc, alive: alive, inFlight: make(chan struct{}, maxInFlight)}
}

// call runs fn with a deadline and within the bound of calls in flight, and
// turns its failure into an error of package hsm. A call that the caller itself
// cancelled fails with context.Canceled.
func (c *client) call(ctx context.Context, what string, fn func(ctx context.Context) error) error {
	parent := ctx
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultDeadline)
		defer cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.alive, cancel)()

	select {
	case c.inFlight <- struct{}{}:
		defer func() { <-c.inFlight }()
	case <-ctx.Done():
		return c.notSent(ctx, parent, what)
	}
	if ctx.Err() != nil {
		return c.notSent(ctx, parent, what)
	}
	fault.Point("hsm/" + what + "/before")
	err := fn(ctx)
	fault.Point("hsm/" + what + "/after")
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*hsm.Error](err); ok {
		return e // the answer came, and a check refused it
	}
	failure := fromStatus(what, err)
	switch {
	case hsm.ReasonOf(failure) != hsm.TokenGone:
		return failure
	case errors.Is(parent.Err(), context.Canceled):
		return fmt.Errorf("%s: %w", what, context.Canceled)
	case c.alive.Err() != nil:
		return hsm.Errorf(hsm.TokenGone, "%s: the plugin process ended", what)
	default:
		return failure
	}
}

// notSent is the error of a call that the plugin never saw.
func (c *client) notSent(ctx, parent context.Context, what string) error {
	switch {
	case errors.Is(parent.Err(), context.Canceled):
		return fmt.Errorf("%s: %w", what, context.Canceled)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return hsm.Errorf(hsm.Busy, "%s: the deadline passed before the plugin could be asked, with at most %d calls at once", what, maxInFlight)
	default:
		return hsm.Errorf(hsm.TokenGone, "%s: the plugin process ended", what)
	}
}

func (c *client) open(ctx context.Context, config OpenConfig) error {
	var forbidden error // by the source of the PIN, which knows better than the carrier
	err := c.call(ctx, "open token", func(ctx context.Context) error {
		// The end of this context ends the stream, however the call ends.
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := c.rpc.Open(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(&hsmv1.OpenRequest{Settings: config.Settings}); err != nil {
			return sendError(stream, err)
		}
		answer, err := stream.Recv()
		if err != nil || !answer.GetWantsPin() {
			return err
		}
		token, err := tokenFromProto(answer.GetToken())
		if err != nil {
			return err
		}
		if forbidden = sendPIN(ctx, stream, config.PIN, token); forbidden != nil {
			return forbidden
		}
		answer, err = stream.Recv()
		if err == nil && answer.GetWantsPin() {
			return hsm.Errorf(hsm.Corrupt, "the plugin asked for the PIN twice")
		}
		return err
	})
	if forbidden != nil {
		return forbidden
	}
	return err
}

type openStream = grpc.BidiStreamingClient[hsmv1.OpenRequest, hsmv1.OpenResponse]

func sendPIN(ctx context.Context, stream openStream, source hsm.PINSource, token hsm.TokenID) error {
	if source == nil {
		return hsm.Errorf(hsm.PINMissing, "the token needs a PIN and none is configured")
	}
	pin, err := source(ctx, token)
	if err != nil {
		return err
	}
	defer clear(pin)
	// What is wrong with the stream is what the next answer says.
	_ = stream.Send(&hsmv1.OpenRequest{Pin: pin})
	return nil
}

// sendError is why a stream that cannot be written to has ended.
func sendError(stream openStream, err error) error {
	if _, ended := stream.Recv(); ended != nil {
		return ended
	}
	return err
}

func (c *client) initToken(ctx context.Context, spec hsm.TokenSpec) (serial string, err error) {
	err = c.call(ctx, "initialise token", func(ctx context.Context) error {
		m, err := c.rpc.InitToken(ctx, &hsmv1.InitTokenRequest{
			Settings: spec.Settings, Label: spec.Label, SoPin: spec.SOPIN, Pin: spec.PIN,
		})
		if err != nil {
			return err
		}
		serial = m.GetSerial()
		return checkName("serial", serial)
	})
	return serial, err
}

func (c *client) Describe(ctx context.Context) (info *hsm.Info, err error) {
	err = c.call(ctx, "describe token", func(ctx context.Context) error {
		m, err := c.rpc.Describe(ctx, &hsmv1.DescribeRequest{})
		if err != nil {
			return err
		}
		info, err = infoFromProto(m)
		return err
	})
	return info, err
}

func (c *client) GenerateKey(ctx context.Context, spec hsm.KeySpec) (key *hsm.Key, err error) {
	id, err := hsm.ParseKeyID(string(spec.ID))
	if err != nil {
		return nil, err
	}
	err = c.call(ctx, "generate HSM key", func(ctx context.Context) error {
		m, err := c.rpc.GenerateKey(ctx, &hsmv1.GenerateKeyRequest{Id: id.Bytes(), Label: spec.Label})
		if err != nil {
			return err
		}
		key, err = generatedKey(m.GetKey(), id)
		return err
	})
	return key, err
}

func (c *client) Keys(ctx context.Context) (keys []hsm.Key, err error) {
	err = c.call(ctx, "list HSM keys", func(ctx context.Context) error {
		stream, err := c.rpc.Keys(ctx, &hsmv1.KeysRequest{})
		if err != nil {
			return err
		}
		keys, err = collect(stream.Recv)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(keys, func(a, b hsm.Key) int { return cmp.Compare(a.ID, b.ID) })
	return keys, nil
}

// collect reads a list of keys to its end.
func collect(next func() (*hsmv1.KeysResponse, error)) ([]hsm.Key, error) {
	keys := []hsm.Key{}
	for {
		m, err := next()
		if errors.Is(err, io.EOF) {
			return keys, nil
		}
		if err != nil {
			return nil, err
		}
		if len(keys)+len(m.GetKeys()) > maxKeys {
			return nil, corrupt("keys", "more than %d", maxKeys)
		}
		for _, k := range m.GetKeys() {
			key, err := listedKey(k)
			if err != nil {
				return nil, err
			}
			keys = append(keys, *key)
		}
	}
}

func (c *client) Key(ctx context.Context, id hsm.KeyID) (key *hsm.Key, err error) {
	if id, err = hsm.ParseKeyID(string(id)); err != nil {
		return nil, err
	}
	err = c.call(ctx, "read HSM key", func(ctx context.Context) error {
		m, err := c.rpc.Key(ctx, &hsmv1.KeyRequest{Id: id.Bytes()})
		if err != nil {
			return err
		}
		key, err = keyFromProto(m.GetKey(), id)
		return err
	})
	return key, err
}

func (c *client) CheckValue(ctx context.Context, id hsm.KeyID) (value hsm.CheckValue, err error) {
	if id, err = hsm.ParseKeyID(string(id)); err != nil {
		return value, err
	}
	err = c.call(ctx, "compute check value", func(ctx context.Context) error {
		m, err := c.rpc.CheckValue(ctx, &hsmv1.CheckValueRequest{Id: id.Bytes()})
		if err != nil {
			return err
		}
		value, err = checkValueFromProto(m, id)
		return err
	})
	return value, err
}

func (c *client) Wrap(ctx context.Context, req hsm.WrapRequest) (wrapped []byte, err error) {
	if req.Key, err = hsm.ParseKeyID(string(req.Key)); err != nil {
		return nil, err
	}
	size, err := modulusSize(req.PublicKey)
	if err != nil {
		return nil, err
	}
	err = c.call(ctx, "wrap HSM key", func(ctx context.Context) error {
		m, err := c.rpc.Wrap(ctx, &hsmv1.WrapRequest{
			Id: req.Key.Bytes(), Algorithm: string(req.Algorithm), PublicKey: req.PublicKey,
		})
		if err != nil {
			return err
		}
		wrapped, err = wrappedFromProto(m, req, size)
		return err
	})
	return wrapped, err
}

func (c *client) SealKey(ctx context.Context, id hsm.KeyID) (key *hsm.Key, err error) {
	if id, err = hsm.ParseKeyID(string(id)); err != nil {
		return nil, err
	}
	err = c.call(ctx, "seal HSM key", func(ctx context.Context) error {
		m, err := c.rpc.SealKey(ctx, &hsmv1.SealKeyRequest{Id: id.Bytes()})
		if err != nil {
			return err
		}
		key, err = sealedKey(m.GetKey(), id)
		return err
	})
	return key, err
}

func (c *client) DestroyKey(ctx context.Context, id hsm.KeyID) error {
	id, err := hsm.ParseKeyID(string(id))
	if err != nil {
		return err
	}
	return c.call(ctx, "destroy HSM key", func(ctx context.Context) error {
		m, err := c.rpc.DestroyKey(ctx, &hsmv1.DestroyKeyRequest{Id: id.Bytes()})
		if err != nil {
			return err
		}
		return checkID(m.GetId(), id)
	})
}

func (c *client) Health(ctx context.Context) error {
	return c.call(ctx, "check token", func(ctx context.Context) error {
		_, err := c.rpc.Health(ctx, &hsmv1.HealthRequest{})
		return err
	})
}

func (c *client) Close(ctx context.Context) error {
	return c.call(ctx, "close token", func(ctx context.Context) error {
		_, err := c.rpc.Close(ctx, &hsmv1.CloseRequest{})
		return err
	})
}
