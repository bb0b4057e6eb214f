package system

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestClient uses the Go package the way an application does, across a restart
// of the daemon.
func TestClient(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	key := s.Import("app-1")
	c, err := client.New(s.Application())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sealed, err := c.Encrypt(t.Context(), "app-1", []byte("hello"), map[string]string{"a": "1"})
	if err != nil || sealed.KeyID != key.KeyID || sealed.RequestID == "" {
		t.Fatalf("Encrypt: %+v, %v", sealed, err)
	}

	daemon.Stop()
	_, err = c.Decrypt(t.Context(), sealed.CiphertextBlob, map[string]string{"a": "1"})
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Reason != client.ReasonUnreachable || e.Hint == "" {
		t.Errorf("without a daemon: %v", err)
	}
	s.Start()
	// gRPC waits a moment between attempts to connect; another client does not.
	fresh, err := client.New(s.Application())
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	opened, err := fresh.Decrypt(t.Context(), sealed.CiphertextBlob, map[string]string{"a": "1"})
	if err != nil || string(opened.Plaintext) != "hello" || opened.Key != "app-1" {
		t.Errorf("Decrypt: %+v, %v", opened, err)
	}

	data, err := fresh.GenerateDataKey(t.Context(), "app-1", 16, nil)
	if err != nil || len(data.Plaintext) != 16 {
		t.Fatalf("GenerateDataKey: %+v, %v", data, err)
	}
	again, err := fresh.DecryptWith(t.Context(), "app-1", data.CiphertextBlob, nil)
	if err != nil || string(again.Plaintext) != string(data.Plaintext) {
		t.Errorf("the data key's blob: %v", err)
	}
	hidden, err := fresh.GenerateDataKeyWithoutPlaintext(t.Context(), "app-1", 32, nil)
	if err != nil || hidden.Plaintext != nil {
		t.Errorf("without plaintext: %+v, %v", hidden, err)
	}
	_, err = fresh.Encrypt(t.Context(), "other", []byte("x"), nil)
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != codes.PermissionDenied || e.Reason != "NO_GRANT" {
		t.Errorf("without a grant: %v", err)
	}
}
