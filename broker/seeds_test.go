package broker

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
)

var (
	direct = Provider{Name: "prod", Key: "k"}
	cached = Provider{Name: "prod", Key: "k", Envelope: true}
)

// inBothWays runs f for a provider that KMS serves and for one that envelopes do,
// whose key is there.
func inBothWays(t *testing.T, f func(t *testing.T, h *house, s *Seeds)) {
	t.Helper()
	for name, p := range map[string]Provider{"kms": direct, "envelope": cached} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, grant(1000, "k", authz.Encrypt, authz.Decrypt))
			h.importKey(t, "k")
			f(t, h, h.Seeds(p))
		})
	}
}

var aSeed = bytes.Repeat([]byte{7}, 32)

func (s *Seeds) mustEncrypt(t *testing.T) Seed {
	t.Helper()
	seed, err := s.Encrypt(t.Context(), alice, "uid-1", bytes.Clone(aSeed))
	if err != nil {
		t.Fatal(err)
	}
	return *seed
}

// opens expects a reason, or the seed.
func (s *Seeds) opens(t *testing.T, seed Seed, reason string) {
	t.Helper()
	opened, err := s.Decrypt(t.Context(), alice, "uid-2", seed)
	refused(t, err, reason)
	if bytes.Equal(opened, aSeed) != (reason == "") {
		t.Errorf("opened: %x", opened)
	}
}

func (h *house) rotate(t *testing.T) *keyring.Key {
	t.Helper()
	return h.importWith(t, importer.Request{Kind: keyring.Rotation, Name: "k"})
}

func TestSeeds(t *testing.T) {
	inBothWays(t, func(t *testing.T, h *house, s *Seeds) {
		seed := s.mustEncrypt(t)
		encrypted := h.lastRecord(t)
		s.opens(t, seed, "")
		decrypted := h.lastRecord(t)
		for request, record := range map[string]audit.Event{"uid-1": encrypted, "uid-2": decrypted} {
			if record.Key != "k" || record.KeyID != seed.KeyID || record.Outcome != audit.Done || record.Details[audit.DetailProvider] != "prod" ||
				record.Details[audit.DetailRequest] != request {
				t.Errorf("the record is %+v", record)
			}
		}
		if encrypted.Action != "encrypt" || decrypted.Action != "decrypt" || len(seed.Ciphertext) >= 1024 {
			t.Errorf("records %s and %s, %d bytes", encrypted.Action, decrypted.Action, len(seed.Ciphertext))
		}
		longest, err := s.Encrypt(t.Context(), alice, "", bytes.Repeat([]byte("x"), maxSeed))
		if err != nil || len(longest.Ciphertext) >= 1024 {
			t.Errorf("the longest seed: %v", err)
		}
		_, err = s.Encrypt(t.Context(), alice, "", bytes.Repeat([]byte("x"), maxSeed+1))
		refused(t, err, "PLAINTEXT_SIZE")
	})
}

// TestSeedsAfterRotation: new seeds have another KeyID, and all open.
func TestSeedsAfterRotation(t *testing.T) {
	inBothWays(t, func(t *testing.T, h *house, s *Seeds) {
		before := s.mustEncrypt(t)
		if id, err := s.Status(t.Context(), alice); id != before.KeyID || err != nil {
			t.Errorf("status %q, %v instead of %q", id, err, before.KeyID)
		}
		rotated := h.rotate(t)
		id, err := s.Status(t.Context(), alice)
		if id != rotated.Current().KeyID || id == before.KeyID || err != nil {
			t.Errorf("status %q, %v", id, err)
		}
		after := s.mustEncrypt(t)
		if after.KeyID != id {
			t.Errorf("KeyID %q, status said %q", after.KeyID, id)
		}
		s.opens(t, before, "")
		s.opens(t, after, "")
		mixed := after
		mixed.KeyID = before.KeyID
		s.opens(t, mixed, "FOREIGN_CIPHERTEXT")
	})
}

// TestSeedsAreBound: what was made for one provider opens nowhere else, and nothing
// made elsewhere opens there.
func TestSeedsAreBound(t *testing.T) {
	inBothWays(t, func(t *testing.T, h *house, s *Seeds) {
		seed := s.mustEncrypt(t)
		another := s.provider
		another.Name = "test"
		elsewhere := h.Seeds(another)
		if _, err := elsewhere.Decrypt(t.Context(), alice, "", seed); err == nil {
			t.Error("a seed opens for another provider")
		}
		unknown := seed
		unknown.KeyID = "00000000-0000-0000-0000-000000000000"
		s.opens(t, unknown, "FOREIGN_CIPHERTEXT")
		changed := seed
		changed.Ciphertext = append(slices.Clone(seed.Ciphertext[:len(seed.Ciphertext)-8]), "AAAAAAAA"...)
		if _, err := s.Decrypt(t.Context(), alice, "", changed); err == nil {
			t.Error("a seed opens that was changed")
		}
		if s.provider.Envelope {
			_, _, err := h.Open(t.Context(), alice, Opening{}, slices.Concat(seed.Header, seed.Ciphertext))
			refused(t, err, "ENVELOPE_MISMATCH")
			_, _, err = h.Open(t.Context(), alice, Opening{Context: s.context()}, slices.Concat(seed.Header, seed.Ciphertext))
			refused(t, err, "RESERVED_CONTEXT")
			message := h.seal(t, alice, "k", nil)
			header, _ := headerOf(t, message)
			s.opens(t, Seed{KeyID: seed.KeyID, Header: header, Ciphertext: message[len(header):]}, "ENVELOPE_MISMATCH")
			return
		}
		if err := h.decrypt(t, alice, "k", string(seed.Ciphertext), nil); err == nil {
			t.Error("a seed opens at another door")
		}
		refused(t, h.decrypt(t, alice, "k", string(seed.Ciphertext), s.context()), "RESERVED_CONTEXT")
		blob := h.mustEncrypt(t, alice, "k", nil)
		if _, err := s.Decrypt(t.Context(), alice, "", Seed{KeyID: seed.KeyID, Ciphertext: []byte(blob)}); err == nil {
			t.Error("a blob of an application opens as a seed")
		}
	})
}

func TestSeedsNeedGrants(t *testing.T) {
	inBothWays(t, func(t *testing.T, h *house, s *Seeds) {
		seed := s.mustEncrypt(t)
		_, err := s.Encrypt(t.Context(), bob, "", bytes.Clone(aSeed))
		refused(t, err, "NO_GRANT")
		_, err = s.Decrypt(t.Context(), bob, "", seed)
		refused(t, err, "NO_GRANT")
		_, err = s.Encrypt(t.Context(), bob, "uid-3", bytes.Repeat(aSeed, 100))
		refused(t, err, "NO_GRANT")
		if record := h.lastRecord(t); record.Outcome != audit.Denied || record.Details[audit.DetailProvider] != "prod" || record.Details[audit.DetailRequest] != "uid-3" {
			t.Errorf("the record is %+v", record)
		}
		id, err := s.Status(t.Context(), bob)
		refused(t, err, "NO_GRANT")
		if record := h.lastRecord(t); id != "" || record.Action != audit.KeyDescribe || record.Outcome != audit.Denied || record.Caller.UID != 1001 {
			t.Errorf("KeyID %q, the record is %+v", id, record)
		}
	})
}

// TestSeedsStatus: it tells the truth about KMS, and asks it rarely.
func TestSeedsStatus(t *testing.T) {
	inBothWays(t, func(t *testing.T, h *house, s *Seeds) {
		before, kms := h.lastRecord(t), h.hook()
		for range 10 {
			if _, err := s.Status(t.Context(), alice); err != nil {
				t.Fatal(err)
			}
		}
		if kms.calls == 0 || kms.calls > 2 {
			t.Errorf("KMS was asked %d times", kms.calls)
		}
		if after := h.lastRecord(t); after.Action != before.Action {
			t.Errorf("on record: %+v", after)
		}
		s.health.Doubt()
		h.cloud.down["cn-hangzhou"].Store(true)
		id, err := s.Status(t.Context(), alice)
		if s.provider.Envelope {
			if err != nil {
				t.Errorf("with data keys that last: %v", err)
			}
			return
		}
		if failure.From(err).Kind != failure.Unavailable || id == "" {
			t.Errorf("while KMS is down: %q, %v", id, err)
		}
		h.cloud.down["cn-hangzhou"].Store(false)
		if _, again := s.Status(t.Context(), alice); !errors.Is(again, err) {
			t.Errorf("KMS was asked again at once: %v", again)
		}
		s.health.Doubt()
		if _, err := s.Status(t.Context(), alice); err != nil {
			t.Errorf("after the outage: %v", err)
		}
		// A call that fails is noticed before the next round trip is due.
		h.cloud.down["cn-hangzhou"].Store(true)
		if _, err := s.Encrypt(t.Context(), alice, "", bytes.Clone(aSeed)); err == nil {
			t.Error("encrypted without KMS")
		}
		if _, err := s.Status(t.Context(), alice); err == nil {
			t.Error("in order, though KMS is down")
		}
	})
}

// TestStatusNeedsBoth: an API server that could encrypt and never decrypt would be
// ill, and so it is told.
func TestStatusNeedsBoth(t *testing.T) {
	h := newHouse(t, grant(1000, "k", authz.Encrypt), grant(1001, "k", authz.Decrypt))
	h.importKey(t, "k")
	for _, call := range []Call{alice, bob} {
		_, err := h.Seeds(direct).Status(t.Context(), call)
		refused(t, err, "NO_GRANT")
	}
}

func TestSeedsOfDisabledKey(t *testing.T) {
	h := newHouse(t, grant(1000, "*", authz.Encrypt, authz.Decrypt))
	missing := h.Seeds(Provider{Name: "prod", Key: "none"})
	id, err := missing.Status(t.Context(), alice)
	refused(t, err, "KEY_NOT_FOUND")
	if id != "" {
		t.Errorf("the KeyID of no key is %q", id)
	}
	h.importKey(t, "k")
	if _, err := h.ChangeKey(t.Context(), admin, DisableKey(), Target{Key: "k"}); err != nil {
		t.Fatal(err)
	}
	id, err = h.Seeds(direct).Status(t.Context(), alice)
	if failure.From(err).Kind != failure.WrongState || id == "" {
		t.Errorf("disabled: %q, %v", id, err)
	}
}

// TestSeedsInRegions: the CMKs of all regions are the KeyID of an envelope, which
// opens in any of them.
func TestSeedsInRegions(t *testing.T) {
	h := newHouse(t, grant(1000, "k", authz.Encrypt, authz.Decrypt))
	key := h.importKey(t, "k", "cn-hangzhou", "cn-shanghai")
	s := h.Seeds(cached)
	h.cloud.down["cn-shanghai"].Store(true)
	partial := s.mustEncrypt(t)
	h.cloud.down["cn-shanghai"].Store(false)
	h.dataKeys.Drop("k")
	whole := s.mustEncrypt(t)
	current := key.CurrentCMKs()
	if want := current[0].KeyID + "," + current[1].KeyID; partial.KeyID != want || whole.KeyID != want {
		t.Errorf("KeyIDs %q and %q, want %q", partial.KeyID, whole.KeyID, want)
	}
	h.dataKeys.Drop("k")
	h.cloud.down["cn-hangzhou"].Store(true)
	s.opens(t, whole, "")
	if _, err := s.Decrypt(t.Context(), alice, "", partial); failure.From(err).Kind != failure.Unavailable {
		t.Errorf("a seed of the home region alone, which is down: %v", err)
	}
}

func TestSeedRequestNames(t *testing.T) {
	s := &Seeds{provider: direct}
	for uid, recorded := range map[string]bool{
		"6f1b7a1e-0b6c-4f0e-8f0a-000000000000": true, "": false, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false,
		base64.StdEncoding.EncodeToString([]byte("a seed by mistake???>>>")): false, "a\nb": false,
	} {
		if got := s.ours(uid).details[audit.DetailRequest]; (got == uid && uid != "") != recorded {
			t.Errorf("%q is on record as %q", uid, got)
		}
	}
}
