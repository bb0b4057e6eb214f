package keyring

import (
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/kmsbroker/kmsbroker/broker/audit"
)

func TestAuditHead(t *testing.T) {
	dir := t.TempDir()
	k, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if head, err := k.AuditHead(); err != nil || head != (audit.Head{}) {
		t.Errorf("a new registry has head %v, %v", head, err)
	}
	want := audit.Head{Seq: 7, Hash: strings.Repeat("0a", 32)}
	if err := k.SetAuditHead(want); err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, dir, func(tx *bbolt.Tx) error {
		if got := string(tx.Bucket(metaBucket).Get(auditHeadKey)); got != want.String() {
			t.Errorf("stored as %q", got)
		}
		return nil
	})
	if k, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if head, err := k.AuditHead(); err != nil || head != want {
		t.Errorf("got %v, %v", head, err)
	}
}
