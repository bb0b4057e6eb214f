package system

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestForeignCiphertext: the broker's own RAM user can open every CMK of the
// account, the broker's callers only theirs.
func TestForeignCiphertext(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	s.Import("app-mine")
	s.Import("theirs")
	kms := s.Client()
	foreign, err := kms.CreateKey(t.Context(), kmsapi.CreateKeyRequest{Origin: kmsapi.OriginAliyunKMS, KeySpec: kmsapi.KeySpecAES256, KeyUsage: kmsapi.UsageEncrypt})
	if err != nil {
		t.Fatal(err)
	}
	theirs := keyID(s, "theirs")
	for name, keyID := range map[string]string{"a CMK that is not the broker's": foreign.KeyID, "a key without a grant": theirs} {
		t.Run(name, func(t *testing.T) {
			sealed, err := kms.Encrypt(t.Context(), kmsapi.EncryptRequest{KeyID: keyID, Plaintext: []byte("their secret")})
			if err != nil {
				t.Fatal(err)
			}
			if opened, err := kms.Decrypt(t.Context(), kmsapi.DecryptRequest{CiphertextBlob: sealed.CiphertextBlob}); err != nil || string(opened.Plaintext) != "their secret" {
				t.Fatalf("the broker's credentials cannot open it: %v", err)
			}
			for _, args := range [][]string{{"decrypt"}, {"decrypt", "--key", "app-mine"}} {
				r := s.CtlInput([]byte(sealed.CiphertextBlob), s.Application(), args...)
				s.Refused(r, 4, "not made with a key")
				if strings.Contains(r.Stdout+r.Stderr, "their secret") {
					t.Error("the plaintext came out")
				}
			}
		})
	}
	daemon.Stop()
	if audit := s.AuditTrail(); !strings.Contains(audit, `"reason":"FOREIGN_CIPHERTEXT"`) || !strings.Contains(audit, `"outcome":"denied"`) {
		t.Errorf("the refusal is not in the audit trail:\n%s", audit)
	}
}

func keyID(s *stage.Stage, name string) string {
	var key stage.Key
	s.Must(s.Ctl(s.Control(), "-o", "json", "key", "show", name), &key)
	return key.KeyID
}

func TestBadInput(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	s.Import("app-1")
	s.Import("vault")
	sealed := s.CtlInput([]byte("hello"), s.Application(), "encrypt", "--key", "app-1", "--context", "a=1")
	s.Must(sealed, nil)
	blob := strings.TrimSpace(sealed.Stdout)
	encrypt := func(input string, args ...string) stage.Result {
		return s.CtlInput([]byte(input), s.Application(), append([]string{"encrypt"}, args...)...)
	}
	decrypt := func(input string, args ...string) stage.Result {
		return s.CtlInput([]byte(input), s.Application(), append([]string{"decrypt"}, args...)...)
	}
	tests := []struct {
		name   string
		result stage.Result
		status int
		words  []string
	}{
		{"6145 bytes", encrypt(strings.Repeat("x", 6145), "--key", "app-1"), 1, []string{"6145", "6144"}},
		{"unknown key", encrypt("x", "--key", "app-none"), 5, []string{`"app-none"`, "key list"}},
		{"key without a grant", encrypt("x", "--key", "vault"), 4, []string{"no grant", "vault"}},
		{"unknown key without a grant", encrypt("x", "--key", "none"), 4, []string{"no grant"}},
		{"reserved context", encrypt("x", "--key", "app-1", "--context", "kmsbroker.purpose=verify"), 4, []string{"kmsbroker."}},
		{"context without a value", encrypt("x", "--key", "app-1", "--context", "a"), 2, []string{"NAME=VALUE"}},
		{"no key", encrypt("x"), 2, []string{"key"}},
		{"malformed ciphertext", decrypt("!!!not base64!!!"), 1, []string{"InvalidParameter"}},
		{"truncated ciphertext", decrypt(blob[:len(blob)/2], "--context", "a=1"), 1, []string{"InvalidParameter"}},
		{"empty ciphertext", decrypt(""), 1, []string{"ciphertext"}},
		{"wrong context", decrypt(blob, "--context", "a=2"), 1, []string{"InvalidParameter"}},
		{"context left out", decrypt(blob), 1, []string{"InvalidParameter"}},
		{"show an unknown key", s.Ctl(s.Control(), "key", "show", "none"), 5, []string{"none"}},
		{"import over a key", s.Ctl(s.Control(), "key", "import", "app-1", "--backend", "hsm"), 1, []string{"exists"}},
		{"import a bad name", s.Ctl(s.Control(), "key", "import", "a/b", "--backend", "hsm"), 1, []string{"a/b"}},
		{"import without a backend", s.Ctl(s.Control(), "key", "import", "app-2"), 2, []string{"backend"}},
		{"import with an unknown backend", s.Ctl(s.Control(), "key", "import", "app-2", "--backend", "x"), 5, []string{"backend list"}},
		{"import with an unknown algorithm", s.Ctl(s.Control(), "key", "import", "app-2", "--backend", "hsm", "--wrapping-algorithm", "RSA"), 1, []string{"RSAES_OAEP_SHA_256"}},
		{"import with what the HSM cannot do", s.Ctl(s.Control(), "key", "import", "app-2", "--backend", "hsm", "--wrapping-algorithm", "RSAES_OAEP_SHA_256"), 1, []string{"HSM token does RSAES_OAEP_SHA_1", "KMS endpoint accepts"}},
		{"import that has expired", s.Ctl(s.Control(), "key", "import", "app-2", "--backend", "hsm", "--expires", "2020-01-01T00:00:00Z"), 1, []string{"has passed"}},
		{"import into another region", s.Ctl(s.Control(), "key", "import", "app-2", "--backend", "hsm", "--region", "eu-central-1"), 1, []string{"eu-central-1", stage.Region}},
		{"a bad alias", s.Ctl(s.Control(), "key", "import", "app-2", "--backend", "hsm", "--alias", "payments"), 1, []string{"alias/NAME"}},
		{"a mistyped noun", s.Ctl(s.Control(), "keys", "list"), 2, []string{"keys"}},
		{"a mistyped verb", s.Ctl(s.Control(), "key", "lst"), 2, []string{"lst"}},
		{"the wrong socket", s.Ctl(s.Application(), "status"), 1, []string{"Control"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(*testing.T) { s.Refused(tt.result, tt.status, tt.words...) })
	}
	if n := s.Actions("CreateKey"); n != 2 {
		t.Errorf("KMS made %d CMKs, want 2", n)
	}
}

// TestWrongPIN: one login attempt and never another one, not even when the PIN
// would be right by then.
func TestWrongPIN(t *testing.T) {
	s := stage.New(t, stage.Options{PIN: "not-the-pin"})
	daemon := s.Start()
	if err := daemon.Wait("backend blocked"); err != nil {
		t.Fatal(err)
	}
	s.Refused(s.Ctl(s.Control(), "key", "import", "app-1", "--backend", "hsm"), 1, "CKR_PIN_INCORRECT", "not tried again")
	// Make the configured PIN the right one.
	s.HSM.RemoveToken(t, s.HSM.Serial)
	s.HSM.PIN = "not-the-pin"
	s.HSM.AddToken(t, s.HSM.Label)
	if b := s.Backend(); b.State != "blocked" {
		t.Errorf("backend: %+v", b)
	}
	s.Refused(s.Ctl(s.Control(), "key", "import", "app-1", "--backend", "hsm"), 1, "CKR_PIN_INCORRECT")
	s.Must(s.Ctl(s.Control(), "backend", "retry-login", "hsm"), nil)
	s.Import("app-1")
	if strings.Contains(daemon.Log.String(), "not-the-pin") {
		t.Error("the PIN is in the log")
	}
}

// TestUnusableBackend: the daemon runs, says what is wrong, and an import fails
// without leaving anything.
func TestUnusableBackend(t *testing.T) {
	text := filepath.Join(t.TempDir(), "library.so")
	if err := os.WriteFile(text, []byte("not a library"), 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		opts  stage.Options
		words []string
	}{
		{"PIN file missing", stage.Options{NoPINFile: true}, []string{"PIN file", "does not exist"}},
		{"token absent", stage.Options{Label: "no-such-token"}, []string{"no-such-token"}},
		{"library absent", stage.Options{Settings: map[string]string{"library": "/nonexistent/lib.so"}}, []string{"/nonexistent/lib.so"}},
		{"library is something else", stage.Options{Settings: map[string]string{"library": text}}, []string{text}},
		{"setting with a typo", stage.Options{Settings: map[string]string{"librray": "/x"}}, []string{"librray"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := stage.New(t, tt.opts)
			s.Start()
			s.Refused(s.Ctl(s.Control(), "key", "import", "app-1", "--backend", "hsm"), 1, tt.words...)
			for _, word := range tt.words {
				if b := s.Backend(); !strings.Contains(b.Error, word) {
					t.Errorf("backend show lacks %q: %+v", word, b)
				}
			}
			if s.Actions("CreateKey") != 0 {
				t.Error("a CMK was made")
			}
			if r := s.Ctl(s.Control(), "key", "list"); strings.Contains(r.Stderr, "unfinished") {
				t.Errorf("an import was begun: %s", r.Stderr)
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Refused(s.Ctl(s.Control(), "key", "list"), 3, s.Control(), "is it running")
	s.Refused(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1"), 3, s.Application())
	daemon := s.Start()
	s.Import("app-1")
	s.CloseKMS()
	s.Refused(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1"), 1, "no answer from KMS", "hint:")
	s.Refused(s.Ctl(s.Control(), "key", "import", "app-2", "--backend", "hsm"), 1, "no answer from KMS")
	daemon.Stop()
	s.Refused(s.Ctl(s.Control(), "key", "list"), 3)
	for _, socket := range []string{s.Control(), s.Application()} {
		if _, err := os.Lstat(socket); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", socket, err)
		}
	}
}

func TestConfigWithATypo(t *testing.T) {
	s := stage.New(t, stage.Options{})
	config := strings.Replace(s.Read("kmsbrokerd.toml"), "credentials_file", "credential_file", 1)
	s.Write("kmsbrokerd.toml", config, 0o644)
	out, err := exec.Command(filepath.Join(stage.Binaries(t), "kmsbrokerd"), "--check-config", "--config", s.Config()).CombinedOutput()
	line := 1 + strings.Count(config[:strings.Index(config, "credential_file")], "\n")
	if err == nil || !strings.Contains(string(out), fmt.Sprintf("kmsbrokerd.toml:%d:", line)) || !strings.Contains(string(out), `"credentials_file"`) {
		t.Errorf("check-config: %v\n%s", err, out)
	}
	if code := exec.Command(filepath.Join(stage.Binaries(t), "kmsbrokerd"), "--config", s.Config()).Run(); code == nil || code.Error() != "exit status 2" {
		t.Errorf("the daemon started with it: %v", code)
	}
}

// TestNothingSecretComesOut greps everything that the daemon wrote and shows.
func TestNothingSecretComesOut(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	secret := make([]byte, 24)
	rand.Read(secret)
	plaintext := fmt.Appendf(nil, "plaintext-%x", secret)
	s.Import("app-1")
	sealed := s.CtlInput(plaintext, s.Application(), "encrypt", "--key", "app-1")
	s.Must(sealed, nil)
	s.Must(s.CtlInput([]byte(sealed.Stdout), s.Application(), "decrypt"), nil)
	plugin := s.Backend().PID
	seen := map[string]string{
		"daemon log": daemon.Log.String(), "audit trail": s.AuditTrail(),
		"registry": s.Read("state/keyring.db"), "status": s.Ctl(s.Control(), "-o", "json", "status").Stdout,
	}
	for name, pid := range map[string]int{"daemon": daemon.PID(), "plugin": plugin} {
		seen[name+" argv"] = processFile(t, pid, "cmdline")
		seen[name+" environment"] = processFile(t, pid, "environ")
	}
	for where, content := range seen {
		for what, secret := range map[string]string{
			"PIN": s.HSM.PIN, "access key secret": stage.AccessKeySecret, "plaintext": string(plaintext),
			"ciphertext": strings.TrimSpace(sealed.Stdout),
		} {
			if strings.Contains(content, secret) {
				t.Errorf("the %s is in the %s", what, where)
			}
		}
	}
	for line := range bytes.SplitSeq(bytes.TrimSpace([]byte(seen["audit trail"])), []byte("\n")) {
		if !json.Valid(line) {
			t.Errorf("audit line is not JSON: %s", line)
		}
	}
}

// processFile reads a file of /proc; what a process hides from its own user
// cannot leak to others.
func processFile(t *testing.T, pid int, name string) string {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil && !os.IsPermission(err) {
		t.Fatal(err)
	}
	return string(content)
}

func TestSocketRights(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	for path, want := range map[string]os.FileMode{
		"run/admin": 0o750, "run/admin/control.sock": 0o660, "run/kms.sock": 0o666, "run/plugins": 0o700,
		"state": 0o700, "state/keyring.db": 0o600, "state/audit/audit-00000000000000000001.log": 0o600, "state/audit/epoch.key": 0o600,
	} {
		if info, err := os.Stat(s.Path(path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}
