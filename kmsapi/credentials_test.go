package kmsapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCredentialsPrintWithoutSecrets(t *testing.T) {
	source := StaticCredentials(testCredentials)
	client, err := NewClient(ClientConfig{Region: "cn-hangzhou", Credentials: source})
	if err != nil {
		t.Fatal(err)
	}
	file := writeCredentials(t, t.TempDir(), goodCredentials)
	cached, err := CredentialsFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, v := range []any{testCredentials, &testCredentials, []Credentials{testCredentials}, source, client, cached} {
		fmt.Fprintf(&out, "%v %+v %#v %s %q %d %x\n", v, v, v, v, v, v, v)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("text", "credentials", testCredentials, "pointer", &testCredentials)
	text, err := json.Marshal(map[string]any{"c": testCredentials})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	for _, secret := range []string{testSecret, testToken, fmt.Sprintf("%x", testSecret), "file-secret"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q leaks in:\n%s", secret, out.String())
		}
	}
}

const goodCredentials = "access_key_id = 'LTAI1'\naccess_key_secret = 'file-secret'\n"

func writeCredentials(t *testing.T, dir, content string) string {
	t.Helper()
	path := filepath.Join(dir, "credentials.toml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCredentialsFile(t *testing.T) {
	const notOne = "is not one of access_key_id, access_key_secret and security_token"
	const other = "something else than access_key_id, access_key_secret and security_token"
	tests := []struct {
		name, content string
		want          Credentials
		says          string
	}{
		{"access key", goodCredentials, Credentials{"LTAI1", "file-secret", ""}, ""},
		{"role", goodCredentials + "security_token = 'tok'\n", Credentials{"LTAI1", "file-secret", "tok"}, ""},
		{"empty", "", Credentials{}, "access_key_id is missing"},
		{"no secret", "access_key_id = 'LTAI1'", Credentials{}, "access_key_secret is missing"},
		{"unknown key", goodCredentials + "file-secret2 = 'x'", Credentials{}, other},
		{"table", goodCredentials + "[kms]\nregion = 'x'", Credentials{}, other},
		{"wrong type", "access_key_id = 'LTAI1'\naccess_key_secret = 5", Credentials{}, other},
		{"unquoted", "access_key_id = 'LTAI1'\naccess_key_secret = file-secret", Credentials{}, "line 2 " + notOne},
		{"not UTF-8", "access_key_id = '\xff'", Credentials{}, "line 1 " + notOne},
		{"space", "access_key_id = 'LTAI1'\naccess_key_secret = 'file-secret '", Credentials{}, "such as a space"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := writeCredentials(t, t.TempDir(), tt.content)
			source, err := CredentialsFile(path)
			if tt.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got, err := source.Credentials(t.Context()); err != nil || got != tt.want {
					t.Errorf("got %v, %v", got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), path) {
				t.Fatalf("got %v, want %q and the path", err, tt.says)
			}
			if strings.Contains(err.Error(), "file-secret") {
				t.Errorf("the error quotes the file: %v", err)
			}
		})
	}
}

func TestCredentialsFileAccess(t *testing.T) {
	if _, err := CredentialsFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	dir := t.TempDir()
	path := writeCredentials(t, dir, goodCredentials)
	if err := os.Chmod(path, 0o440); err != nil {
		t.Fatal(err)
	}
	if _, err := CredentialsFile(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
		t.Errorf("open to the group: %v", err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if _, err := CredentialsFile(path); err != nil {
		t.Errorf("as a systemd credential: %v", err)
	}
}

func TestCredentialsRotate(t *testing.T) {
	dir := t.TempDir()
	path := writeCredentials(t, dir, goodCredentials)
	source, err := CredentialsFile(path)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(secret string) {
		t.Helper()
		if c, err := source.Credentials(t.Context()); err != nil || c.AccessKeySecret != secret {
			t.Errorf("got %v, %v, want the secret %q", c, err, secret)
		}
	}
	expect("file-secret")

	next := filepath.Join(dir, "next")
	if err := os.WriteFile(next, []byte("access_key_id = 'LTAI1'\naccess_key_secret = 'next-secret'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
	expect("next-secret")

	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := source.Credentials(t.Context()); err == nil {
		t.Error("the file was opened to the world and nobody noticed")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := source.Credentials(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
}

func FuzzParseCredentials(f *testing.F) {
	f.Add([]byte(goodCredentials))
	f.Add([]byte("access_key_id = 5"))
	f.Add([]byte("[a"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := ParseCredentials(data); err == nil && (c.AccessKeyID == "" || c.AccessKeySecret == "") {
			t.Errorf("incomplete: %v", c)
		}
	})
}

// TestEnvironmentGivesNoCredentials: whatever Alibaba's own tools would take from
// the environment and the home directory, the client uses and sends the
// credentials that it was given, and has none when there are none.
func TestEnvironmentGivesNoCredentials(t *testing.T) {
	home := t.TempDir()
	profile := home + "/.aliyun/config.json"
	if err := os.Mkdir(filepath.Dir(profile), 0o700); err != nil {
		t.Fatal(err)
	}
	stray := `{"current":"default","profiles":[{"name":"default","mode":"AK","access_key_id":"STRAYprofile","access_key_secret":"stray-profile"}]}`
	if err := os.WriteFile(profile, []byte(stray), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"HOME": home, "ALIBABA_CLOUD_ACCESS_KEY_ID": "STRAYid", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "stray-secret",
		"ALIBABA_CLOUD_SECURITY_TOKEN": "STRAYtoken", "ALIBABACLOUD_ACCESS_KEY_ID": "STRAYold", "ALIBABACLOUD_ACCESS_KEY_SECRET": "stray-old",
		"ALIBABA_CLOUD_ROLE_ARN": "acs:ram::1:role/STRAY", "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": "STRAY", "ALIBABA_CLOUD_OIDC_TOKEN_FILE": profile,
		"ALIBABA_CLOUD_ECS_METADATA": "STRAYrole", "ALIBABA_CLOUD_PROFILE": "default", "ALIBABA_CLOUD_CREDENTIALS_URI": "http://127.0.0.1:1/STRAY",
	} {
		t.Setenv(name, value)
	}
	var seen strings.Builder
	s, client := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(&seen, r.Header)
		fmt.Fprint(w, `{"RequestId":"r","KeyId":"k","CiphertextBlob":"b"}`)
	})
	// The server demands testCredentials and a signature made with them.
	if err := encryptFixed(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(&seen, s.calls())
	if strings.Contains(strings.ToLower(seen.String()), "stray") {
		t.Errorf("something of the environment was sent: %s", seen.String())
	}
	if _, err := NewClient(ClientConfig{Region: "cn-hangzhou", Endpoint: s.URL}); err == nil {
		t.Error("a client without credentials found some")
	}
	empty := StaticCredentials(Credentials{})
	client, err := NewClient(ClientConfig{Region: "cn-hangzhou", Endpoint: s.URL, Credentials: empty})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := encryptFixed(t.Context(), client); err == nil || !strings.Contains(err.Error(), "lack an AccessKey") {
		t.Errorf("with empty credentials: %v", err)
	}
	if n := len(s.calls()); n != 1 {
		t.Errorf("%d requests were sent", n)
	}
}
