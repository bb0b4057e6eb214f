package secretfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, mode os.FileMode, size int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(strings.Repeat("s", size)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct{ name, path, want string }{
		{"private", write("private", 0o600, 8), ""},
		{"read-only", write("readonly", 0o400, 8), ""},
		{"group may read", write("group", 0o640, 8), "chmod 600"},
		{"world may read", write("world", 0o604, 8), "chmod 600"},
		{"too large", write("large", 0o600, maxSize+1), "larger than"},
		{"directory", dir, "not a regular file"},
		{"absent", filepath.Join(dir, "absent"), "no such file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			content, err := Read(tt.path)
			switch {
			case tt.want == "" && (err != nil || len(content) != 8):
				t.Errorf("Read = %d bytes, %v", len(content), err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("Read: %v, want %q", err, tt.want)
			case err != nil && strings.Contains(err.Error(), "sss"):
				t.Errorf("the error shows the content: %v", err)
			}
		})
	}
}

func TestSystemdCredential(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pin")
	if err := os.WriteFile(path, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o440); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil {
		t.Error("a group-readable file outside the credentials directory was accepted")
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if _, err := Read(path); err != nil {
		t.Errorf("a systemd credential was refused: %v", err)
	}
}
