package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/kmsbroker/kmsbroker/client"
)

// In the examples, socket is where kmsbrokerd listens; a program passes "" for
// /run/kmsbroker/kms.sock.
func Example() {
	c, err := client.New(socket)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()

	purpose := map[string]string{"purpose": "card"}
	sealed, err := c.Encrypt(ctx, "payments", []byte("4111 1111 1111 1111"), purpose)
	if err != nil {
		log.Fatal(err)
	}
	opened, err := c.Decrypt(ctx, sealed.CiphertextBlob, purpose)
	if err != nil {
		log.Fatal(err)
	}
	defer clear(opened.Plaintext)
	fmt.Printf("%s opened %s\n", opened.Key, opened.Plaintext)
	// Output: payments opened 4111 1111 1111 1111
}

// A failure says what kind it is, why, and what to do about it.
func ExampleError() {
	c, err := client.New(socket)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	_, err = c.Encrypt(context.Background(), "salaries", []byte("secret"), nil)
	if e, ok := errors.AsType[*client.Error](err); ok && e.Code == codes.PermissionDenied {
		fmt.Println(e.Reason, "-", e.Hint)
	}
	// Output: NO_GRANT - ask for one
}

// Each item of a batch succeeds or fails by itself.
func ExampleClient_EncryptBatch() {
	c, err := client.New(socket)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	results := c.EncryptBatch(context.Background(), []client.ToEncrypt{
		{Key: "payments", Plaintext: []byte("one")},
		{Key: "salaries", Plaintext: []byte("two")},
		{Key: "payments", Plaintext: []byte("three")},
	})
	for i, result := range results {
		if result.Err != nil {
			fmt.Println(i, "failed:", result.Err)
			continue
		}
		fmt.Println(i, "is", result.Value.CiphertextBlob)
	}
	// Output:
	// 0 is ZW5v
	// 1 failed: no
	// 2 is ZWVyaHQ=
}

// What may I do?
func ExampleClient_ListKeys() {
	c, err := client.New(socket)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	keys, err := c.ListKeys(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	for _, key := range keys {
		for _, operation := range key.Operations {
			fmt.Println(operation.Name, "with", key.Name, operation.RequiredContext)
		}
	}
	// Output:
	// encrypt with payments map[]
	// decrypt with payments map[tenant:a]
}

// A message of any length is encrypted here, and seldom needs KMS.
func ExampleClient_SealStream() {
	c, err := client.New(socket)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, purpose := context.Background(), map[string]string{"purpose": "backup"}

	var message, back bytes.Buffer // files, as a rule
	backup := strings.NewReader(strings.Repeat("all work and no play ", 100_000))
	if err := c.SealStream(ctx, "payments", &message, backup, purpose); err != nil {
		log.Fatal(err)
	}
	if err := c.OpenStream(ctx, &back, &message, purpose); err != nil {
		log.Fatal(err) // what is in back may not be all: throw it away
	}
	fmt.Println(back.Len(), "bytes")
	// Output: 2100000 bytes
}
