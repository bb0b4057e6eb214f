package backend

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func TestReadPIN(t *testing.T) {
	write := func(content string, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "pin")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct {
		name, path, want, problem string
	}{
		{"plain", write("1234", 0o600), "1234", ""},
		{"one line ending is not part of it", write("1234\n", 0o600), "1234", ""},
		{"nor is a DOS one", write("1234\r\n", 0o600), "1234", ""},
		{"spaces are", write(" 12 34 ", 0o600), " 12 34 ", ""},
		{"empty", write("\n", 0o600), "", "is empty"},
		{"readable by others", write("1234", 0o644), "", "chmod 600"},
		{"absent", "/nonexistent/pin", "", "does not exist"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pin, err := readPIN(tt.path)
			if tt.problem == "" {
				if err != nil || string(pin) != tt.want {
					t.Errorf("readPIN = %q, %v", pin, err)
				}
				return
			}
			if hsm.ReasonOf(err) != hsm.Misconfigured || !strings.Contains(err.Error(), tt.problem) || strings.Contains(err.Error(), "1234") {
				t.Errorf("readPIN: %v", err)
			}
		})
	}
}

func TestExpectedSum(t *testing.T) {
	dir := t.TempDir()
	sum := strings.Repeat("ab", 32)
	if err := os.WriteFile(filepath.Join(dir, ManifestName), []byte(sum+"  softhsm\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, pinned, path, problem string
	}{
		{"listed", "", filepath.Join(dir, "softhsm"), ""},
		{"pinned", strings.Repeat("cd", 32), "/elsewhere/plugin", ""},
		{"not listed", "", filepath.Join(dir, "luna"), "does not list"},
		{"listed in another directory", "", "/elsewhere/softhsm", "does not list"},
		{"not a checksum", "abc", filepath.Join(dir, "softhsm"), "not a SHA-256"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := expectedSum(PluginConfig{Dir: dir, SHA256: tt.pinned}, tt.path)
			if tt.problem == "" && (err != nil || len(got) != 32) {
				t.Errorf("expectedSum = %x, %v", got, err)
			}
			if tt.problem != "" && (hsm.ReasonOf(err) != hsm.Misconfigured || !strings.Contains(err.Error(), tt.problem)) {
				t.Errorf("expectedSum: %v", err)
			}
		})
	}
}
