package proxy

import (
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// TestRefusedKey: a key that cannot be digested leaves the digest as it was.
func TestRefusedKey(t *testing.T) {
	u := newHouse(t, grant(1, "*")).user(1)
	s := u.session()
	begin := &cryptoki.Call{Function: cryptoki.DigestInit, Numbers: [4]uint64{s}, Mechanism: &cryptoki.Mechanism{Type: cryptoki.CKM_SHA256}}
	update := &cryptoki.Call{Function: cryptoki.DigestUpdate, Numbers: [4]uint64{s}, Data: [2][]byte{[]byte("data")}}
	u.want(cryptoki.CKR_OK, begin)
	u.want(cryptoki.CKR_OK, update)
	u.want(cryptoki.CKR_OBJECT_HANDLE_INVALID, &cryptoki.Call{Function: cryptoki.DigestKey, Numbers: [4]uint64{s, 4711}})
	u.want(cryptoki.CKR_OK, update)
}
