// Command go is an application in Go: it encrypts what it reads, and decrypts it
// again, once with KMS itself and once as an envelope, which may have any length.
//
//	echo secret | go run . KEY [SOCKET]
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/kmsbroker/kmsbroker/client"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 1 || len(args) > 2 {
		return errors.New("usage: go KEY [SOCKET]")
	}
	key, socket := args[0], client.DefaultSocket
	if len(args) == 2 {
		socket = args[1]
	}
	kms, err := client.New(socket)
	if err != nil {
		return err
	}
	defer kms.Close()
	secret, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	// Authenticated with the ciphertext: who decrypts has to say the same.
	purpose := map[string]string{"purpose": "example"}

	// KMS encrypts up to 6144 bytes.
	encrypted, err := kms.Encrypt(ctx, key, secret, purpose)
	if err != nil {
		return err
	}
	decrypted, err := kms.Decrypt(ctx, encrypted.CiphertextBlob, purpose)
	if err != nil {
		return err
	}
	defer clear(decrypted.Plaintext)

	// A stream is encrypted by this process, with a key for it alone.
	var sealed, opened bytes.Buffer
	if err := kms.SealStream(ctx, key, &sealed, bytes.NewReader(decrypted.Plaintext), purpose); err != nil {
		return err
	}
	if err := kms.OpenStream(ctx, &opened, &sealed, purpose); err != nil {
		return err // and nothing of opened may be used
	}
	_, err = opened.WriteTo(os.Stdout)
	return err
}
