package system

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
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
	brief, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = c.Decrypt(brief, sealed.CiphertextBlob, map[string]string{"a": "1"})
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Reason != client.ReasonUnreachable || e.Hint == "" {
		t.Errorf("without a daemon: %v", err)
	}
	s.Start()
	opened, err := c.Decrypt(t.Context(), sealed.CiphertextBlob, map[string]string{"a": "1"})
	if err != nil || string(opened.Plaintext) != "hello" || opened.Key != "app-1" {
		t.Errorf("Decrypt: %+v, %v", opened, err)
	}

	data, err := c.GenerateDataKey(t.Context(), "app-1", 16, nil)
	if err != nil || len(data.Plaintext) != 16 {
		t.Fatalf("GenerateDataKey: %+v, %v", data, err)
	}
	again, err := c.DecryptWith(t.Context(), "app-1", data.CiphertextBlob, nil)
	if err != nil || string(again.Plaintext) != string(data.Plaintext) {
		t.Errorf("the data key's blob: %v", err)
	}
	hidden, err := c.GenerateDataKeyWithoutPlaintext(t.Context(), "app-1", 32, nil)
	if err != nil || hidden.Plaintext != nil {
		t.Errorf("without plaintext: %+v, %v", hidden, err)
	}
	_, err = c.Encrypt(t.Context(), "other", []byte("x"), nil)
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != codes.PermissionDenied || e.Reason != "NO_GRANT" {
		t.Errorf("without a grant: %v", err)
	}
}

// TestBatches: items succeed and fail by themselves, keep their order, and are
// each in the audit trail.
func TestBatches(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	s.Import("app-1")
	c, err := client.New(s.Application())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	const items = 200 // two requests
	toEncrypt := make([]client.ToEncrypt, items)
	for i := range toEncrypt {
		toEncrypt[i] = client.ToEncrypt{Key: "app-1", Plaintext: []byte{byte(i)}, EncryptionContext: map[string]string{"i": "1"}}
	}
	toEncrypt[7].Key = "other"
	toEncrypt[8].Plaintext = make([]byte, 7000)
	toEncrypt[9].EncryptionContext = map[string]string{"kmsbroker.purpose": "x"}
	toDecrypt := make([]client.ToDecrypt, items)
	for i, result := range c.EncryptBatch(t.Context(), toEncrypt) {
		if want := map[int]string{7: "NO_GRANT", 8: "PLAINTEXT_SIZE", 9: "RESERVED_CONTEXT"}[i]; want != "" {
			if e, ok := errors.AsType[*client.Error](result.Err); !ok || e.Reason != want || e.Hint == "" {
				t.Errorf("item %d: %v, want %s", i, result.Err, want)
			}
			continue
		}
		if result.Err != nil {
			t.Fatalf("item %d: %v", i, result.Err)
		}
		toDecrypt[i] = client.ToDecrypt{CiphertextBlob: result.Value.CiphertextBlob, EncryptionContext: toEncrypt[i].EncryptionContext}
	}
	for i, result := range c.DecryptBatch(t.Context(), toDecrypt) {
		if failed := i >= 7 && i <= 9; failed != (result.Err != nil) || !failed && !bytes.Equal(result.Value.Plaintext, []byte{byte(i)}) {
			t.Fatalf("item %d: %+v", i, result)
		}
	}
	for i, result := range c.ReEncryptBatch(t.Context(), c, []client.ToReEncrypt{{Key: "app-1", CiphertextBlob: toDecrypt[0].CiphertextBlob, EncryptionContext: toDecrypt[0].EncryptionContext}}) {
		if result.Err != nil || !result.Value.Unchanged {
			t.Errorf("re-encrypt %d: %+v", i, result)
		}
	}
	seen := map[string]bool{}
	for i, result := range c.GenerateDataKeys(t.Context(), 3, "app-1", 16, nil) {
		if result.Err != nil || len(result.Value.Plaintext) != 16 || seen[result.Value.CiphertextBlob] {
			t.Fatalf("data key %d: %+v", i, result)
		}
		seen[result.Value.CiphertextBlob] = true
	}
	for i, result := range c.GenerateDataKeysWithoutPlaintext(t.Context(), 2, "app-1", 16, nil) {
		if result.Err != nil || result.Value.Plaintext != nil {
			t.Errorf("data key %d without plaintext: %+v", i, result)
		}
	}
	conn, err := client.Dial(s.Application())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, n := range []int{0, 129} {
		_, err := v1.NewCryptoClient(conn).EncryptBatch(t.Context(), &v1.EncryptBatchRequest{Items: make([]*v1.EncryptRequest, n)})
		if e, ok := errors.AsType[*client.Error](conn.Error(err)); !ok || e.Reason != "BATCH_SIZE" {
			t.Errorf("%d items: %v", n, err)
		}
	}
	daemon.Stop()
	trail := s.AuditTrail()
	for action, want := range map[string]int{"encrypt": items, "decrypt": items + 1, "generate-data-key": 3, "generate-data-key-without-plaintext": 2} {
		if got := bytes.Count([]byte(trail), []byte(`"action":"`+action+`"`)); got != want {
			t.Errorf("%d records of %s, want %d", got, action, want)
		}
	}
}

// TestOwnView: a caller learns who it is and what it may do, and of no other key.
func TestOwnView(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Write("kmsbrokerd.toml", s.Read("kmsbrokerd.toml")+`
[[grant]]
keys       = ["tenants"]
operations = ["decrypt"]
users      = [0, 65534]
context    = { uid = "{uid}" }
`, 0o644)
	s.Start()
	for _, name := range []string{"app-1", "hidden", "tenants"} {
		s.Import(name)
	}
	c, err := client.New(s.Application())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	me, err := c.WhoAmI(t.Context())
	if err != nil || me.UID != uint32(os.Getuid()) || me.PID != os.Getpid() || me.GID != uint32(os.Getgid()) {
		t.Errorf("WhoAmI: %+v, %v", me, err)
	}
	keys, err := c.ListKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	own := map[string][]string{}
	for _, key := range keys {
		for _, operation := range key.Operations {
			own[key.Name] = append(own[key.Name], operation.Name)
		}
		if key.Region != stage.Region || !slices.Equal(key.Regions, []string{stage.Region}) {
			t.Errorf("%+v", key)
		}
		if key.Name == "tenants" && key.Operations[0].RequiredContext["uid"] != "0" {
			t.Errorf("tenants needs %v", key.Operations[0].RequiredContext)
		}
	}
	if want := []string{"encrypt", "decrypt", "generate-data-key", "generate-data-key-without-plaintext"}; !slices.Equal(own["app-1"], want) {
		t.Errorf("own keys: %v", own)
	}
	if _, there := own["hidden"]; there || (len(own["tenants"]) > 0) != (os.Getuid() == 0) {
		t.Errorf("own keys: %v", own)
	}
}

// TestWhoami is the same for people and scripts.
func TestWhoami(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	shown := s.Ctl(s.Application(), "whoami")
	s.Must(shown, nil)
	if !strings.Contains(shown.Stdout, strconv.Itoa(os.Getuid())) || !strings.Contains(shown.Stdout, "No grant") {
		t.Errorf("whoami without a key:\n%s", shown.Stdout)
	}
	s.Import("app-1")
	if shown = s.Ctl(s.Application(), "whoami"); !strings.Contains(shown.Stdout, "generate-data-key") {
		t.Errorf("whoami:\n%s", shown.Stdout)
	}
	var me struct {
		UID  uint32
		Keys []struct {
			Name       string
			Operations []struct{ Name string }
		}
	}
	s.Must(s.Ctl(s.Application(), "-o", "json", "whoami"), &me)
	if me.UID != uint32(os.Getuid()) || len(me.Keys) != 1 || me.Keys[0].Name != "app-1" || len(me.Keys[0].Operations) != 4 {
		t.Errorf("whoami in JSON: %+v", me)
	}
	s.Refused(s.Ctl(s.Control(), "whoami"), 1, "right socket")
}

// TestReflectionAndHealth: what generic gRPC tools ask for.
func TestReflectionAndHealth(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	conn, err := client.Dial(s.Application())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}})
	if err != nil {
		t.Fatal(err)
	}
	listed, err := stream.Recv()
	if err != nil || !slices.ContainsFunc(listed.GetListServicesResponse().GetService(), func(s *grpc_reflection_v1.ServiceResponse) bool {
		return s.GetName() == v1.Crypto_ServiceDesc.ServiceName
	}) {
		t.Errorf("reflection lists %v, %v", listed, err)
	}

	health := grpc_health_v1.NewHealthClient(conn)
	check := func(want grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		answer, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: v1.Crypto_ServiceDesc.ServiceName})
		if err != nil || answer.GetStatus() != want {
			t.Errorf("health is %v, %v; want %v", answer, err, want)
		}
	}
	check(grpc_health_v1.HealthCheckResponse_SERVING)
	watch, err := health.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || first.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("who watches hears %v, %v", first, err)
	}

	if err := os.Remove(s.Path("state/audit/audit-00000000000000000001.log")); err != nil {
		t.Fatal(err)
	}
	s.Refused(s.Ctl(s.Control(), "policy", "reload"), 1, "audit trail")
	check(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	if next, err := watch.Recv(); err != nil || next.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("who watches hears %v, %v", next, err)
	}
	daemon.Stop() // who watches does not keep it
	if _, err := watch.Recv(); err == nil {
		t.Error("the stream outlived the daemon")
	}
}
