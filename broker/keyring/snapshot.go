package keyring

import (
	"errors"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// SnapshotName is what a copy of the registry is called, beside it.
const SnapshotName = "snapshot.db"

// Snapshot writes a consistent copy of the registry beside it, mode 0600, and returns
// where. It takes the place of the copy before. The registry is used meanwhile.
func (k *Keyring) Snapshot() (string, error) {
	path := filepath.Join(filepath.Dir(k.db.Path()), SnapshotName)
	temporary := path + ".new"
	err := k.db.View(func(tx *bbolt.Tx) error { return tx.CopyFile(temporary, 0o600) })
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(temporary))
	}
	return path, nil
}
