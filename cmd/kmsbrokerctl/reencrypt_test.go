package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/client"
)

// TestReencryptionIsOneJob: what was begun for one key, or before a rotation, is
// never finished for another.
func TestReencryptionIsOneJob(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, []byte("a\nb\nc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	run := func(job, cmk, until string) error {
		r := reencryption{in: in, out: out, job: job, progress: io.Discard, move: func(blob string) (*client.ReEncrypted, error) {
			if blob == until {
				return nil, stop
			}
			return &client.ReEncrypted{Encrypted: client.Encrypted{KeyID: cmk, CiphertextBlob: cmk + blob}}, nil
		}}
		return r.run()
	}
	if err := run("job", "1", "b"); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if err := run("another", "1", ""); err == nil || !strings.Contains(err.Error(), partialSuffix) {
		t.Errorf("continued for another key: %v", err)
	}
	if err := run("job", "2", ""); err == nil || !strings.Contains(err.Error(), "begin again") {
		t.Errorf("continued after a rotation: %v", err)
	}
	if err := run("job", "1", ""); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(out); err != nil || string(got) != "1a\n1b\n1c\n" {
		t.Errorf("moved to %q, %v", got, err)
	}
}
