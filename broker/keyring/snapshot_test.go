package keyring

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestSnapshots: several at once, while the registry is written, are whole copies of
// their own; those that are left are removed with the next start.
func TestSnapshots(t *testing.T) {
	dir := t.TempDir()
	k, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var making sync.WaitGroup
	for range 3 {
		making.Go(func() {
			for range 20 {
				path, err := k.Snapshot()
				if err != nil {
					t.Error(err)
					return
				}
				if err := CheckFile(path); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 50 {
		if err := k.Add(&Key{Name: fmt.Sprint("k", i), Region: "r", CMKs: []CMK{{KeyID: fmt.Sprint(i), Region: "r"}}}); err != nil {
			t.Fatal(err)
		}
	}
	making.Wait()
	left, err := filepath.Glob(filepath.Join(dir, "snapshot-*.db"))
	if err != nil || len(left) != 60 {
		t.Errorf("%d copies, %v", len(left), err)
	}
	for _, path := range left {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if k, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if left, _ = filepath.Glob(filepath.Join(dir, "snapshot-*.db")); len(left) > 0 {
		t.Errorf("left after a start: %v", left)
	}
}
