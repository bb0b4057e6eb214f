// Package kubernetes has kube-apiserver's own code for encryption at rest call the
// daemon: it loads an EncryptionConfiguration, asks for the status, makes seeds and
// encrypts objects as they come to lie in etcd.
package kubernetes

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

var secret = []byte("a secret of the cluster")

// where an object lies is authenticated with it.
var where = value.DefaultContext("/registry/secrets/default/web")

// apiServer is the part of a kube-apiserver that encrypts.
type apiServer struct {
	*encryptionconfig.EncryptionConfiguration
	stop context.CancelFunc
}

// startAPIServer loads the file of docs/kubernetes for the stage's daemon.
func startAPIServer(t *testing.T, s *stage.Stage) *apiServer {
	t.Helper()
	documented, err := os.ReadFile("../../docs/kubernetes/encryption-configuration.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const socket = "/run/kmsbroker/kubernetes/prod.sock"
	if !bytes.Contains(documented, []byte(socket)) {
		t.Fatal("the documented configuration has another socket")
	}
	s.Write("encryption.yaml", strings.Replace(string(documented), socket, s.Path("run/kubernetes/prod.sock"), 1), 0o600)
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	loaded, err := encryptionconfig.LoadEncryptionConfig(ctx, s.Path("encryption.yaml"), false, "apiserver-test")
	if err != nil {
		t.Fatal(err)
	}
	return &apiServer{loaded, stop}
}

// health is what /healthz/kms-providers says.
func (a *apiServer) health(t *testing.T) error {
	return a.HealthChecks[0].Check(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/healthz", nil))
}

// await asks for the health, which rotates seeds too, until done.
func (a *apiServer) await(t *testing.T, what string, done func(health error) bool) {
	t.Helper()
	var health error
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if health = a.health(t); done(health) {
			return
		}
	}
	t.Fatalf("%s: not within 90 s; health: %v", what, health)
}

func healthy(err error) bool { return err == nil }

func (a *apiServer) secrets() value.Transformer {
	return a.Transformers[schema.GroupResource{Resource: "secrets"}]
}

func (a *apiServer) write(t *testing.T) []byte {
	t.Helper()
	stored, err := a.secrets().TransformToStorage(t.Context(), secret, where)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(stored, []byte("k8s:enc:kms:v2:kmsbroker:")) || bytes.Contains(stored, secret) {
		t.Fatalf("stored as %q", stored)
	}
	return stored
}

// reads expects the secret, and whether it is to be written anew under the current
// KeyID.
func (a *apiServer) reads(t *testing.T, stored []byte, stale bool) {
	t.Helper()
	read, isStale, err := a.secrets().TransformFromStorage(t.Context(), stored, where)
	if err != nil || !bytes.Equal(read, secret) || isStale != stale {
		t.Errorf("read %q, stale %t, %v", read, isStale, err)
	}
}

// newCluster starts a daemon with a provider, and its key.
func newCluster(t *testing.T, provider string) (*stage.Stage, *stage.Daemon, stage.Key) {
	t.Helper()
	s := stage.New(t, stage.Options{})
	s.Configure("[backend.hsm]", "[kubernetes.prod]\nkey = \"app-cluster\"\n"+provider+"\n\n[backend.hsm]")
	daemon := s.Start()
	return s, daemon, s.Import("app-cluster")
}

func TestAPIServer(t *testing.T) {
	for _, seeds := range []string{"kms", "envelope"} {
		t.Run(seeds, func(t *testing.T) {
			t.Parallel() // each waits for the interval in which an API server asks
			s, daemon, key := newCluster(t, fmt.Sprintf("seeds = %q", seeds))
			first := startAPIServer(t, s)
			first.await(t, "the start", healthy)
			stored := first.write(t)
			first.reads(t, stored, false)

			calls := len(s.AllActions())
			for range 100 {
				first.reads(t, first.write(t), false)
			}
			if after := len(s.AllActions()); after-calls > 2 {
				t.Errorf("%d calls to KMS for 100 objects", after-calls)
			}

			daemon.Stop()
			first.reads(t, stored, false) // what it has decrypted once it knows
			first.write(t)
			s.Start()
			second := startAPIServer(t, s)
			second.await(t, "another API server after a restart of the daemon", healthy)
			second.reads(t, stored, false)

			var rotated stage.Key
			s.Must(s.Ctl(s.Control(), "-o", "json", "key", "rotate", "app-cluster"), &rotated)
			if rotated.KeyID == key.KeyID {
				t.Fatalf("rotated to the same CMK: %+v", rotated)
			}
			first.await(t, "the rotation", func(error) bool {
				_, stale, err := first.secrets().TransformFromStorage(t.Context(), stored, where)
				return err == nil && stale
			})
			first.await(t, "the restart of the daemon", healthy)
			anew := first.write(t)
			first.reads(t, anew, false)
			third := startAPIServer(t, s)
			third.await(t, "a third API server", healthy)
			third.reads(t, anew, false)
			third.reads(t, stored, true)
		})
	}
}

// TestOutage: while KMS is away an API server that runs goes on, its health says
// why it is ill, and it recovers. One that starts then cannot.
func TestOutage(t *testing.T) {
	s, _, _ := newCluster(t, "")
	running := startAPIServer(t, s)
	running.await(t, "the start", healthy)
	stored := running.write(t)
	s.Intercept(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return false
	})
	starting := startAPIServer(t, s)
	if _, _, err := starting.secrets().TransformFromStorage(t.Context(), stored, where); err == nil {
		t.Error("an API server that starts without KMS reads")
	}
	starting.await(t, "the outage", func(health error) bool {
		return health != nil && strings.Contains(health.Error(), "unavailable: ")
	})
	running.await(t, "the outage", func(health error) bool { return health != nil })
	running.reads(t, stored, false)
	running.reads(t, running.write(t), false)

	s.Intercept(nil)
	running.await(t, "the recovery", healthy)
	starting.await(t, "the late start", healthy)
	starting.reads(t, stored, false)
}

// TestThrottled: KMS that is too busy is not ill.
func TestThrottled(t *testing.T) {
	s, _, _ := newCluster(t, "")
	s.Intercept(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) bool {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"RequestId":"7021b6ec-4be7-4d3c-8a68-000000000000","Code":"Throttling.User","Message":"slow down"}`)
		return false
	})
	server := startAPIServer(t, s)
	server.await(t, "the first seed", func(health error) bool {
		// Of which there is none yet, but for no other reason.
		return health != nil && strings.Contains(health.Error(), "failed to encrypt DEK") && !strings.Contains(health.Error(), "healthz status")
	})
	s.Intercept(nil)
	server.await(t, "the end", healthy)
	server.reads(t, server.write(t), false)
}

// TestWithoutGrant: an API server whom no grant names is told so.
func TestWithoutGrant(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Configure("[backend.hsm]", "[kubernetes.prod]\nkey = \"vault\"\n\n[backend.hsm]")
	s.Start()
	s.Import("vault")
	server := startAPIServer(t, s)
	server.await(t, "the refusal", func(health error) bool {
		return health != nil && strings.Contains(health.Error(), "no grant lets uid ")
	})
}
