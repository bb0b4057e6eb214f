package system

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

const instanceID = "kst-hzz1"

// gateway is the dedicated gateway of a KMS instance, with a certificate of an
// authority that no system knows.
type gateway struct {
	*httptest.Server
	authority *authority

	mu      sync.Mutex
	actions []string
}

// startGateway has the daemon make its CMKs in an instance.
func startGateway(t *testing.T, s *stage.Stage) *gateway {
	t.Helper()
	g := &gateway{authority: newAuthority(t)}
	emulated := s.KMS.Gateway(instanceID)
	g.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		g.actions = append(g.actions, r.Header.Get("X-Acs-Action"))
		g.mu.Unlock()
		emulated.ServeHTTP(w, r)
	}))
	g.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that fail on purpose
	g.TLS = &tls.Config{Certificates: []tls.Certificate{g.authority.server()}}
	g.StartTLS()
	t.Cleanup(g.Close)
	s.Write("ca.pem", g.authority.PEM(), 0o644)
	s.Configure("[kms.regions.", fmt.Sprintf("[kms.instance]\nid = %q\nendpoint = %q\nca_file = %q\n\n[kms.regions.", instanceID, g.URL, s.Path("ca.pem")))
	return g
}

// seen returns the actions that came so far, each once and in order.
func (g *gateway) seen() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Compact(slices.Sorted(slices.Values(g.actions)))
}

func (g *gateway) requests() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.actions)
}

var dataActions = []string{"Decrypt", "Encrypt", "GenerateDataKey"}

// TestInstance: CMKs are made in the KMS instance; data goes through its gateway,
// and everything else through the shared one.
func TestInstance(t *testing.T) {
	s := stage.New(t, stage.Options{Luna: hsmsim.New(t, hsmsim.Luna), Instances: []string{instanceID}})
	g := startGateway(t, s)
	s.Start()
	key := s.Import("app-1", "--alias", "alias/app-1")
	if key.WrappingAlgorithm != kmsapi.WrapOAEPSHA256 {
		t.Errorf("wrapped with %s", key.WrappingAlgorithm)
	}
	if cmk, err := s.Client().DescribeKey(t.Context(), key.KeyID); err != nil || cmk.InstanceID != instanceID {
		t.Errorf("KMS says %+v, %v", cmk, err)
	}

	sealed := s.CtlInput([]byte("hello"), s.Application(), "encrypt", "--key", "app-1")
	s.Must(sealed, nil)
	broker, err := client.New(s.Application())
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	if _, err := broker.GenerateDataKey(t.Context(), "app-1", 32, nil); err != nil {
		t.Error(err)
	}
	s.Must(s.Ctl(s.Control(), "key", "rotate", "app-1"), nil)
	s.Must(s.Ctl(s.Control(), "key", "reimport", "app-1"), nil)
	s.Must(s.Ctl(s.Control(), "key", "verify", "app-1", "--material"), nil)
	s.Write("blobs", sealed.Stdout, 0o600)
	s.Must(s.Ctl(s.Application(), "reencrypt", "--key", "app-1", "--in", s.Path("blobs"), "--out", s.Path("moved")), nil)
	opened := s.CtlInput([]byte(s.Read("moved")), s.Application(), "decrypt")
	if opened.Stdout != "hello" {
		t.Errorf("decrypt: %+v", opened)
	}

	if seen := g.seen(); !slices.Equal(seen, dataActions) {
		t.Errorf("the gateway was asked for %v, want %v", seen, dataActions)
	}
	for _, action := range dataActions {
		if n := s.Actions(action); n != 0 {
			t.Errorf("the shared gateway was asked %d times for %s", n, action)
		}
	}
	if s.Actions("CreateKey") != 2 || s.Actions("ImportKeyMaterial") < 3 || s.Actions("UpdateAlias") != 1 {
		t.Error("imports did not go through the shared gateway")
	}
	status := s.Ctl(s.Control(), "-o", "json", "status")
	s.Must(status, nil)
	if !strings.Contains(status.Stdout, g.URL) {
		t.Errorf("status hides the gateway:\n%s", status.Stdout)
	}

	// The other region has no instance.
	s.Import("app-2", "--region", stage.OtherRegion)
	s.Must(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-2"), nil)
	if s.Actions("Encrypt") == 0 {
		t.Error("the other region's data did not go through the shared gateway")
	}
}

// TestInstanceTakesNoSHA1: SoftHSM does SHA-1 alone and an instance takes all but
// that, so that nothing is made.
func TestInstanceTakesNoSHA1(t *testing.T) {
	s := stage.New(t, stage.Options{Instances: []string{instanceID}})
	startGateway(t, s)
	s.Start()
	s.Refused(s.Ctl(s.Control(), "key", "import", "app-1", "--backend", "hsm"), 1,
		"no OAEP algorithm for both ends", "HSM token does RSAES_OAEP_SHA_1", "KMS endpoint accepts RSAES_OAEP_SHA_256", "hint:")
	if secret, other := s.Objects(); secret+other != 0 || s.Actions("CreateKey") != 0 {
		t.Errorf("%d objects and %d CMKs were made", secret+other, s.Actions("CreateKey"))
	}
}

// TestGatewayOfAnother: what is behind the gateway's name and does not hold a
// certificate of its authority gets no plaintext.
func TestGatewayOfAnother(t *testing.T) {
	s := stage.New(t, stage.Options{Luna: hsmsim.New(t, hsmsim.Luna), Instances: []string{instanceID}})
	g := startGateway(t, s)
	daemon := s.Start()
	s.Import("app-1")
	daemon.Stop()
	before := g.requests()

	s.Write("ca.pem", newAuthority(t).PEM(), 0o644)
	daemon = s.Start()
	s.Refused(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1"), 1, "certificate signed by unknown authority", "hint:")
	if n := g.requests() - before; n != 0 {
		t.Errorf("%d requests reached the gateway", n)
	}
	status := s.Ctl(s.Control(), "-o", "json", "status")
	if !strings.Contains(status.Stdout, g.URL) || !strings.Contains(status.Stdout, "unknown authority") {
		t.Errorf("status does not say it:\n%s", status.Stdout)
	}
	daemon.Stop()

	s.Write("ca.pem", "not a certificate", 0o644)
	for path, word := range map[string]string{s.Path("ca.pem"): "holds no PEM certificate", s.Path("gone.pem"): "no such file"} {
		s.Configure("ca_file = ", fmt.Sprintf("ca_file = %q # ", path))
		out, err := exec.Command(filepath.Join(stage.Binaries(t), "kmsbrokerd"), "--config", s.Config()).CombinedOutput()
		if err == nil || !strings.Contains(string(out), path) || !strings.Contains(string(out), word) {
			t.Errorf("with %s: %v, %s", path, err, out)
		}
	}
}
