package keyring

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kmsbroker/kmsbroker/internal/boltfile"
)

// SnapshotName matches the names of copies of the registry, which lie beside it.
var SnapshotName = regexp.MustCompile(`^snapshot-[a-z0-9]+\.db$`)

// snapshotAge is how long a copy may be left by whoever asked for it.
const snapshotAge = time.Minute

// Snapshot writes a consistent copy of the registry beside it, mode 0600, and returns
// where. The registry is used meanwhile. Copies are removed by whoever packs them, or
// when another is made after a while, or when the registry is opened.
func (k *Keyring) Snapshot() (string, error) {
	k.copying.Lock()
	defer k.copying.Unlock()
	dir := filepath.Dir(k.db.Path())
	removeSnapshots(dir, snapshotAge)
	path := filepath.Join(dir, "snapshot-"+strings.ToLower(rand.Text())+".db")
	err := k.db.View(func(tx *bbolt.Tx) error { return tx.CopyFile(path, 0o600) })
	if err == nil {
		err = CheckFile(path)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return path, nil
}

// CheckFile reports damage of a registry that nobody has open.
func CheckFile(path string) error {
	err := boltfile.Survive(func() (err error) {
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		return db.View(func(tx *bbolt.Tx) error {
			for err := range tx.Check() {
				return err
			}
			_, err := readAll(tx)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("registry %s: %w", path, err)
	}
	return nil
}

// removeSnapshots removes copies that are older than age.
func removeSnapshots(dir string, age time.Duration) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err == nil && SnapshotName.MatchString(entry.Name()) && time.Since(info.ModTime()) >= age {
			os.Remove(filepath.Join(dir, entry.Name()))
		}
	}
}
