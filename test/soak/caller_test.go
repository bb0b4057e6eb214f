package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"google.golang.org/grpc"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
)

const (
	maxKeys  = 3  // of a caller
	maxBlobs = 20 // that a caller remembers
)

// blob is something that a caller encrypted and will open again at the end.
type blob struct{ ciphertext, plaintext string }

// caller is one user with keys of its own.
type caller struct {
	run     *run
	id      int
	random  *rand.Rand
	app     *client.Client
	conn    *client.Conn
	control v1.ControlClient

	keys     []string        // that were asked for
	disabled map[string]bool // those that may be
	blobs    []blob
	done     int
}

func (r *run) caller(id int, random *rand.Rand) *caller {
	r.t.Helper()
	app, err := client.New(r.stage.Application())
	if err != nil {
		r.t.Fatal(err)
	}
	conn, err := client.Dial(r.stage.Control())
	if err != nil {
		r.t.Fatal(err)
	}
	return &caller{
		run: r, id: id, random: random, app: app, conn: conn, control: v1.NewControlClient(conn),
		disabled: map[string]bool{},
	}
}

func (c *caller) close() {
	_ = c.app.Close()
	_ = c.conn.Close()
}

func (c *caller) work(ctx context.Context) {
	for ctx.Err() == nil {
		if err := c.step(); err != nil {
			c.run.judge(fmt.Sprintf("caller %d", c.id), err)
		} else {
			c.done++
		}
	}
}

// step makes one call, with a deadline of its own: the end of the test interrupts
// nobody.
func (c *caller) step() error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if len(c.keys) == 0 {
		return c.importKey(ctx)
	}
	key := c.keys[c.random.IntN(len(c.keys))]
	switch n := c.random.IntN(1000); {
	case n < 10 && len(c.keys) < maxKeys:
		return c.importKey(ctx)
	case n < 15:
		return c.follow(c.control.RotateKey(ctx, &v1.ImportKeyRequest{Name: key}))
	case n < 20:
		return c.follow(c.control.ReimportKey(ctx, &v1.ReimportKeyRequest{Name: key}))
	case n < 30:
		return c.toggle(ctx, key)
	case n < 40:
		_, err := c.control.ShowKey(ctx, &v1.KeyRequest{Name: key})
		return c.conn.Error(err)
	case n < 300 && len(c.blobs) > 0:
		return c.open(ctx, c.blobs[c.random.IntN(len(c.blobs))])
	default:
		return c.seal(ctx, key)
	}
}

func (c *caller) importKey(ctx context.Context) error {
	name := keyName(c.id, len(c.keys))
	if err := c.follow(c.control.ImportKey(ctx, &v1.ImportKeyRequest{Name: name, Backend: "hsm"})); err != nil {
		return err
	}
	c.keys = append(c.keys, name)
	return nil
}

// follow reads an import to its end.
func (c *caller) follow(stream grpc.ServerStreamingClient[v1.ImportEvent], err error) error {
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return c.conn.Error(err)
}

func (c *caller) toggle(ctx context.Context, key string) error {
	if c.disabled[key] {
		_, err := c.control.EnableKey(ctx, &v1.Target{Name: key})
		if err == nil {
			c.disabled[key] = false
		}
		return c.conn.Error(err)
	}
	c.disabled[key] = true
	_, err := c.control.DisableKey(ctx, &v1.Target{Name: key})
	return c.conn.Error(err)
}

func (c *caller) seal(ctx context.Context, key string) error {
	plaintext := fmt.Sprintf("caller %d, %d", c.id, c.random.Uint64())
	sealed, err := c.app.Encrypt(ctx, key, []byte(plaintext), nil)
	if err != nil {
		return err
	}
	if len(c.blobs) < maxBlobs {
		c.blobs = append(c.blobs, blob{sealed.CiphertextBlob, plaintext})
	}
	return nil
}

func (c *caller) open(ctx context.Context, b blob) error {
	opened, err := c.app.Decrypt(ctx, b.ciphertext, nil)
	if err != nil {
		return err
	}
	if string(opened.Plaintext) != b.plaintext {
		c.run.t.Errorf("caller %d: a blob opened to something else", c.id)
	}
	return nil
}

// settle finishes, with a KMS in good order, what was left unfinished, and opens
// all blobs.
func (c *caller) settle() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*deadline)
	defer cancel()
	list, err := c.control.ListKeys(ctx, &v1.ListKeysRequest{})
	if err != nil {
		c.run.t.Error(c.conn.Error(err))
		return
	}
	for _, imp := range list.GetUnfinished() {
		var mine int
		if n, _ := fmt.Sscanf(imp.GetName(), "app-%d-", &mine); n != 1 || mine != c.id {
			continue
		}
		resume := c.control.ImportKey
		if imp.GetKind() == "rotate" {
			resume = c.control.RotateKey
		}
		if err := c.follow(resume(ctx, &v1.ImportKeyRequest{Name: imp.GetName(), Backend: imp.GetBackend()})); err != nil {
			c.run.t.Errorf("%s of %s does not end: %v", imp.GetKind(), imp.GetName(), err)
		}
	}
	for _, key := range c.keys {
		c.enable(ctx, key)
	}
	for _, b := range c.blobs {
		if err := c.open(ctx, b); err != nil {
			c.run.t.Errorf("caller %d: a blob does not open: %v", c.id, err)
		}
	}
}

// enable enables the CMKs of a key, of all generations.
func (c *caller) enable(ctx context.Context, name string) {
	key, err := c.control.ShowKey(ctx, &v1.KeyRequest{Name: name})
	if err != nil {
		c.run.t.Errorf("show %s: %v", name, c.conn.Error(err))
		return
	}
	for _, cmk := range key.GetCmks() {
		if cmk.GetState() != "Disabled" {
			continue
		}
		if _, err := c.control.EnableKey(ctx, &v1.Target{Name: name, KeyId: cmk.GetKeyId()}); err != nil {
			c.run.t.Errorf("enable %s: %v", name, c.conn.Error(err))
		}
	}
}

// reachesKMS reports that the broker speaks to KMS.
func (c *caller) reachesKMS() bool {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	_, err := c.control.PlanKey(ctx, &v1.PlanKeyRequest{
		Kind: v1.PlanKeyRequest_KIND_IMPORT, Request: &v1.ImportKeyRequest{Name: "app-plan", Backend: "hsm"},
	})
	return err == nil
}
