package bench

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkOpenBao compares sealing a message of 1 KiB with OpenBao's transit engine,
// where `bao` is on the PATH: both on a Unix socket, authorized and on record for each
// message, with the key in the server's memory. OpenBao keeps what it has in memory too.
func BenchmarkOpenBao(b *testing.B) {
	if _, err := exec.LookPath("bao"); err != nil {
		b.Skip("OpenBao is not installed")
	}
	r, transit := newBroker(b, nil), startBao(b)
	plaintext := make([]byte, 1<<10)
	body, err := json.Marshal(map[string]string{"plaintext": base64.StdEncoding.EncodeToString(plaintext)})
	if err != nil {
		b.Fatal(err)
	}
	theirs := side{"transit", func(ctx context.Context) error { return transit.post(ctx, "transit/encrypt/k", body, nil) }}
	ours := side{"seal", func(ctx context.Context) error {
		_, err := r.client.Seal(ctx, "app-1", plaintext, nil)
		return err
	}}
	for _, callers := range []int{1, 16} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { compare(b, callers, theirs, ours) })
	}
}

// bao is a server with a transit key k.
type bao struct {
	client *http.Client
	token  string
}

func startBao(b *testing.B) *bao {
	b.Helper()
	dir := b.TempDir()
	socket, config := filepath.Join(dir, "s"), filepath.Join(dir, "config.hcl")
	text := fmt.Sprintf(`
storage "inmem" {}
disable_mlock = true
listener "unix" { address = %q }
audit "file" "trail" {
  description = "every request"
  options { file_path = %q }
}
`, socket, filepath.Join(dir, "audit.log"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	server := exec.CommandContext(b.Context(), "bao", "server", "-config", config)
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	s := &bao{client: &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 64, //nolint:mnd // more than there are callers
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}}
	s.unseal(b)
	s.must(b, "sys/mounts/transit", `{"type":"transit"}`, nil)
	s.must(b, "transit/keys/k", `{"type":"aes256-gcm96"}`, nil)
	return s
}

// unseal waits for the server and makes it ready.
func (s *bao) unseal(b *testing.B) {
	b.Helper()
	var made struct {
		Keys      []string `json:"keys"`
		RootToken string   `json:"root_token"`
	}
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = s.post(b.Context(), "sys/init", []byte(`{"secret_shares":1,"secret_threshold":1}`), &made); err == nil {
			break
		}
	}
	if err != nil {
		b.Fatal(err)
	}
	s.must(b, "sys/unseal", fmt.Sprintf(`{"key":%q}`, made.Keys[0]), nil)
	s.token = made.RootToken
}

func (s *bao) must(b *testing.B, path, body string, into any) {
	b.Helper()
	if err := s.post(b.Context(), path, []byte(body), into); err != nil {
		b.Fatal(err)
	}
}

func (s *bao) post(ctx context.Context, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://bao/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("X-Vault-Token", s.token)
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode >= http.StatusBadRequest:
		return fmt.Errorf("%s: %s: %s", path, resp.Status, answer)
	case into == nil:
		return nil
	default:
		return json.Unmarshal(answer, into)
	}
}
