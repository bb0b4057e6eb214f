package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

var root = Identity{ID: "LTAIscenario", Secret: "scenario-secret-4711"}

// start runs an emulator with nothing in it.
func start(t *testing.T, listen func(http.Handler) *httptest.Server) *httptest.Server {
	t.Helper()
	kms, err := emulator.New(emulator.Config{
		Regions: []string{"cn-hangzhou", "cn-shanghai"}, AccessKeyID: root.ID, AccessKeySecret: root.Secret, Control: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	web := listen(kms)
	t.Cleanup(func() {
		web.Close()
		if err := kms.Close(); err != nil {
			t.Error(err)
		}
	})
	return web
}

func load(t *testing.T) *Scenario {
	t.Helper()
	s, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGo(t *testing.T) {
	for name, client := range map[string]func(host string) Client{
		"SDK v1, POST":                 func(host string) Client { return sdkV1{host, http.MethodPost} },
		"SDK v1, GET":                  func(host string) Client { return sdkV1{host, http.MethodGet} },
		"SDK v2, ACS3-HMAC-SHA256":     func(host string) Client { return sdkV2{host: host} },
		"SDK v2, RPC v1 and HMAC-SHA1": func(host string) Client { return sdkV2{host, new("v2")} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			web := start(t, httptest.NewServer)
			s := load(t)
			run := NewRun(s, client(web.Listener.Addr().String()), root, func(rules []map[string]any) error {
				return putFaults(t.Context(), web.URL, rules)
			})
			for i, step := range s.Steps {
				if err := run.Do(step); err != nil {
					t.Fatalf("step %d, %s: %v", i+1, step.Name, err)
				}
			}
			t.Logf("%d steps", len(s.Steps))
		})
	}
}

func putFaults(ctx context.Context, url string, rules []map[string]any) error {
	body, err := json.Marshal(map[string]any{"rules": rules})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, url+"/-/faults", bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusNoContent {
		return fmt.Errorf("faults: %s", response.Status)
	}
	return nil
}

// TestNode holds the same conversation from Node.js with @alicloud/pop-core, over
// TLS and without. The lock file names its version, and those of all that it
// needs, with their hashes.
func TestNode(t *testing.T) {
	dir := stage.InstallNode(t, "node")
	for method, listen := range map[string]func(http.Handler) *httptest.Server{
		http.MethodPost: httptest.NewTLSServer, http.MethodGet: httptest.NewServer,
	} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			web, caFile := start(t, listen), ""
			if web.TLS != nil {
				caFile = writeCertificate(t, web)
			}
			runNode(t, dir, web.URL, method, load(t), caFile)
		})
	}
}

// runNode holds a conversation with an endpoint, whose certificate is trusted when
// there is a file of it.
func runNode(t *testing.T, dir, endpoint, method string, s *Scenario, caFile string) {
	t.Helper()
	input, err := json.Marshal(map[string]any{
		"endpoint": endpoint, "method": method, "versions": Versions, "scenario": s,
		"root": map[string]string{"id": root.ID, "secret": root.Secret},
	})
	if err != nil {
		t.Fatal(err)
	}
	run := exec.CommandContext(t.Context(), "node", "run.mjs")
	run.Dir, run.Stdin = dir, bytes.NewReader(input)
	if caFile != "" {
		run.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+caFile)
	}
	out, err := run.CombinedOutput()
	if done := strings.Count("\n"+string(out), "\nok "); err != nil || done != len(s.Steps) {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Fatalf("%d of %d steps: %v: %s", done, len(s.Steps), err, strings.Join(lines[max(0, len(lines)-8):], "\n"))
	}
	t.Logf("%d steps", len(s.Steps))
}

// writeCertificate writes the certificate of a server for others to trust.
func writeCertificate(t *testing.T, web *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}
	writeFile(t, path, pem.EncodeToMemory(block))
	return path
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
