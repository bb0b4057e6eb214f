package keyring

import (
	"go.etcd.io/bbolt"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/internal/boltfile"
)

var auditHeadKey = []byte("audit-head")

// AuditHead returns the last known head of the audit trail, zero if there is none.
func (k *Keyring) AuditHead() (audit.Head, error) {
	var text string
	err := boltfile.Survive(func() error {
		return k.db.View(func(tx *bbolt.Tx) error {
			text = string(tx.Bucket(metaBucket).Get(auditHeadKey))
			return nil
		})
	})
	if err != nil || text == "" {
		return audit.Head{}, err
	}
	head, err := audit.ParseHead(text)
	if err != nil {
		return audit.Head{}, damaged("meta", string(auditHeadKey), err)
	}
	return head, nil
}

// SetAuditHead remembers the head of the audit trail, so that a trail that was cut
// off or exchanged is noticed.
func (k *Keyring) SetAuditHead(head audit.Head) error {
	return k.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(metaBucket).Put(auditHeadKey, []byte(head.String()))
	})
}
