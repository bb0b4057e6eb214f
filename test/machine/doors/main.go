//go:build root

// Command doors does one operation through every door of the daemon that can carry
// it, as whoever runs it, and prints how each of them ended.
//
// It reads a task from standard input, and answers with a list of endings or, for
// the operation "make", with what it has encrypted.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// task is what to do.
type task struct {
	// Op is an operation of the policy; "make"; or "steal", which tries to get at
	// data keys and seeds with what is for ciphertexts.
	Op      string
	Key     string
	Context map[string]string
	Sealed  sealed // to decrypt or steal
	// App has an access key: then the task is done over TCP and nowhere else.
	App *struct{ ID, Secret string }
}

// sealed is one plaintext, encrypted in every way that there is.
type sealed struct {
	Blob    string // by KMS
	Message []byte // an envelope
	DataKey string // of the envelope, encrypted by KMS
	KeyID   string // the CMK
	Seed    *seed  // nil with a context, which a seed cannot have
}

// ending is how a door answered.
type ending struct {
	Door  string // as the audit trail calls it
	Way   string
	Ended string // allowed, denied, or what else was wrong
}

// way is one of doing an operation at a door.
type way struct {
	door, name string
	do         func(ctx context.Context, t *task) error
}

var plaintext = []byte("a secret of the doors")

var errPlaintext = errors.New("another plaintext came back")

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "doors:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var t task
	if err := json.NewDecoder(os.Stdin).Decode(&t); err != nil {
		return err
	}
	if t.Op == "make" {
		made, err := makeAll(ctx, &t)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(made)
	}
	ways, err := waysOf(&t)
	if err != nil {
		return err
	}
	endings := []ending{}
	for _, w := range ways {
		endings = append(endings, ending{w.door, w.name, word(w.do(ctx, &t))})
	}
	return json.NewEncoder(os.Stdout).Encode(endings)
}

func waysOf(t *task) ([]way, error) {
	if t.App != nil {
		tcp, err := overTCP(t.App.ID, t.App.Secret)
		return tcp.ways(t.Op), err
	}
	grpc, err := newCrypto()
	if err != nil {
		return nil, err
	}
	all := append(grpc.ways(t.Op), onSocket().ways(t.Op)...)
	if len(t.Context) > 0 {
		return all, nil
	}
	provider, err := newProvider(t.Key)
	return append(all, provider.ways(t.Op)...), err
}

// makeAll encrypts the plaintext in every way.
func makeAll(ctx context.Context, t *task) (*sealed, error) {
	grpc, err := newCrypto()
	if err != nil {
		return nil, err
	}
	made, err := grpc.make(ctx, t)
	if err != nil || len(t.Context) > 0 {
		return made, err
	}
	provider, err := newProvider(t.Key)
	if err != nil {
		return nil, err
	}
	made.Seed, err = provider.encrypt(ctx)
	return made, err
}

// word sums up an error of any door.
func word(err error) string {
	said, ours := errors.AsType[*kmsapi.Error](err)
	switch {
	case err == nil:
		return "allowed"
	case status.Code(err) == codes.PermissionDenied, ours && said.Code == kmsapi.CodeNoPermission:
		return "denied"
	default:
		return err.Error()
	}
}
