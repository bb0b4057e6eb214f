package system

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/faults"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestNothingLeaksUnderFaults: whatever goes wrong at KMS, and before or after its
// effect, no plaintext, PIN, access key or import token comes out of anything that
// the daemon or its command writes.
func TestNothingLeaksUnderFaults(t *testing.T) {
	s := stage.New(t, stage.Options{})
	var mu sync.Mutex
	var tokens []string
	s.Intercept(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Header.Get("X-Acs-Action") != "ImportKeyMaterial" {
			return true
		}
		body, err := io.ReadAll(r.Body)
		form, parseErr := url.ParseQuery(string(body))
		if err != nil || parseErr != nil || form.Get("ImportToken") == "" {
			t.Errorf("an import without a token: %v, %v", err, parseErr)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		mu.Lock()
		defer mu.Unlock()
		tokens = append(tokens, form.Get("ImportToken"))
		return true
	})
	daemon := s.Start()
	s.Import("app-1")
	plaintext := []byte("a plaintext that must not be seen 4711")
	sealed := s.CtlInput(plaintext, s.Application(), "encrypt", "--key", "app-1")
	s.Must(sealed, nil)
	blob := strings.TrimSpace(sealed.Stdout)
	s.Write("blobs", blob+"\n", 0o600)

	var written strings.Builder
	note := func(results ...stage.Result) {
		for _, r := range results {
			written.WriteString(r.Stderr)
			if r.Status != 0 {
				written.WriteString(r.Stdout)
			}
		}
	}
	kinds := []faults.Kind{
		faults.Throttling, faults.FlowControl, faults.Internal, faults.Unavailable, faults.HTML, faults.Reset, faults.Skew,
	}
	n := 0
	for _, kind := range kinds {
		for _, after := range []bool{false, true} {
			rule := faults.Rule{Kind: kind, After: after}
			if kind == faults.Skew {
				if after {
					continue
				}
				rule = faults.Rule{Kind: kind, Skew: faults.Duration(time.Hour)}
			}
			// Another daemon, whose circuits are closed.
			daemon.Stop()
			written.WriteString(daemon.Log.String())
			daemon = s.Start()
			if err := daemon.Wait("backend ready"); err != nil {
				t.Fatal(err)
			}
			before := len(s.AllActions())
			setFaults(t, s, faults.Plan{Rules: []faults.Rule{rule}})
			n++
			note(s.CtlInput(plaintext, s.Application(), "encrypt", "--key", "app-1"),
				s.CtlInput([]byte(blob), s.Application(), "decrypt"),
				s.Ctl(s.Application(), "reencrypt", "--key", "app-1", "--in", s.Path("blobs"), "--out", s.Path("moved")),
				s.Ctl(s.Control(), "key", "import", fmt.Sprintf("app-f%d", n), "--backend", "hsm"),
				s.Ctl(s.Control(), "key", "reimport", "app-1"), s.Ctl(s.Control(), "key", "show", "app-1"))
			setFaults(t, s, faults.Plan{})
			if len(s.AllActions()) < before+4 {
				t.Errorf("%s: KMS was hardly asked", kind)
			}
		}
	}
	if !strings.Contains(written.String(), "KMS") {
		t.Fatalf("nothing went wrong:\n%s", written.String())
	}
	note(s.Ctl(s.Control(), "status"), s.Ctl(s.Control(), "key", "list"))
	written.WriteString(s.Ctl(s.Control(), "-o", "json", "status").Stdout)
	for series := range scrape(t, s) {
		written.WriteString(series + "\n")
	}
	daemon.Stop()
	written.WriteString(daemon.Log.String())
	written.WriteString(s.AuditTrail())

	secrets := map[string][]byte{"PIN": []byte(s.HSM.PIN), "access key secret": []byte(stage.AccessKeySecret), "plaintext": plaintext, "ciphertext": []byte(blob)}
	for i, token := range tokens {
		secrets[fmt.Sprintf("import token %d", i)] = []byte(token)
	}
	for what, secret := range secrets {
		for form, text := range map[string]string{
			"": string(secret), " in base64": base64.StdEncoding.EncodeToString(secret), " in hex": hex.EncodeToString(secret),
		} {
			if at := strings.Index(written.String(), text); at >= 0 {
				t.Errorf("the %s%s was written: ...%s", what, form, written.String()[max(0, at-200):at])
			}
		}
	}
}

// setFaults has the stage's KMS misbehave.
func setFaults(t *testing.T, s *stage.Stage, plan faults.Plan) {
	t.Helper()
	body, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.EndpointURL()+"/-/faults", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatal(resp.Status)
	}
}
