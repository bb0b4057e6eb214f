package boltfile

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// TestDamage opens and reads files with every page overwritten in turn, and cut
// at every page: whatever happens, it is an error or a sound file.
func TestDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("b"))
		if err != nil {
			return err
		}
		return b.Put([]byte("k"), bytes.Repeat([]byte("v"), 3*os.Getpagesize()))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for at := 0; at < len(sound); at += os.Getpagesize() {
		page := bytes.Clone(sound)
		copy(page[at:at+os.Getpagesize()], bytes.Repeat([]byte{0xff}, os.Getpagesize()))
		for _, damaged := range [][]byte{page, sound[:at]} {
			if readAll(t, damaged) != nil {
				failed++
			}
		}
	}
	if failed == 0 {
		t.Error("no damage was noticed")
	}
	if err := readAll(t, sound); err != nil {
		t.Errorf("the sound file: %v", err)
	}
}

func readAll(t *testing.T, content []byte) error {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := Open(path)
	if err != nil {
		return err
	}
	return Survive(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
				return b.ForEach(func(_, v []byte) error { _ = bytes.Count(v, []byte("v")); return nil })
			})
		})
	})
}
