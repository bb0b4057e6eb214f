package broker

import (
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// These hold the core to what happens when something happened in between: at the
// console, in another region, to another name.

const day = 24 * time.Hour

func (h *house) importWith(t *testing.T, req importer.Request) *keyring.Key {
	t.Helper()
	key, err := h.ImportKey(t.Context(), admin, req, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (h *house) state(t *testing.T, region, keyID string) kmsapi.KeyState {
	t.Helper()
	cmk, err := h.cloud.clients[region].DescribeKey(t.Context(), keyID)
	if err != nil {
		t.Fatal(err)
	}
	return cmk.State
}

// TestDeletedMaterialStaysDeleted: neither the daemon nor a check brings back what
// somebody deleted, here or at the console.
func TestDeletedMaterialStaysDeleted(t *testing.T) {
	for name, remove := range map[string]func(*house, string) error{
		"through the broker": func(h *house, _ string) error {
			_, err := h.ChangeKey(t.Context(), admin, DeleteKeyMaterial(), Target{Key: "k"})
			return err
		},
		"at the console": func(h *house, keyID string) error {
			_, err := h.kms.DeleteKeyMaterial(t.Context(), keyID)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			req := newKey("k")
			expires, ahead := "90d", "14d"
			req.Expires, req.Renew = &expires, &ahead
			keyID := h.importWith(t, req).Current().KeyID
			if err := remove(h, keyID); err != nil {
				t.Fatal(err)
			}
			for _, h.ahead = range []time.Duration{77 * day, 91 * day} {
				h.renewDue(t.Context())
				if state := h.state(t, "cn-hangzhou", keyID); state != kmsapi.PendingImport {
					t.Fatalf("after %v the CMK is %s", h.ahead, state)
				}
			}
			if _, checks, err := h.VerifyKey(t.Context(), admin, "k", true); err != nil || checks[len(checks)-1].Passed {
				t.Errorf("verify: %+v, %v", checks, err)
			}
			if state := h.state(t, "cn-hangzhou", keyID); state != kmsapi.PendingImport {
				t.Errorf("a check made the CMK %s", state)
			}
			if _, err := h.ReimportKey(t.Context(), admin, importer.Reimport{Name: "k", Expires: new("200d")}, quiet); err != nil {
				t.Fatal(err)
			}
			if key, _ := h.Keyring.Key("k"); !key.Current().MaterialDeletedAt.IsZero() {
				t.Error("imported on purpose, and still taken for deleted")
			}
		})
	}
}

// TestSealLooksEverywhere: one CMK whose material could not come back keeps the HSM
// key from being sealed.
func TestSealLooksEverywhere(t *testing.T) {
	h := newHouse(t)
	key := h.importKey(t, "k", "cn-hangzhou", "cn-shanghai")
	other, _ := key.CurrentIn("cn-shanghai")
	h.cloud.down["cn-shanghai"].Store(true)
	if _, err := h.SealKey(t.Context(), admin, "k"); failure.KindOf(failure.From(err)) != failure.Unavailable {
		t.Errorf("a region that does not answer: %v", err)
	}
	h.cloud.down["cn-shanghai"].Store(false)
	if _, err := h.cloud.clients["cn-shanghai"].DeleteKeyMaterial(t.Context(), other.KeyID); err != nil {
		t.Fatal(err)
	}
	if _, err := h.SealKey(t.Context(), admin, "k"); failure.From(err).Reason != "MATERIAL_MISSING" {
		t.Errorf("material that is gone: %v", err)
	}
	if h.token.Calls("SealKey") != 0 {
		t.Error("sealed")
	}
}

// TestSealOfASharedHSMKey: two names stand for one HSM key.
func TestSealOfASharedHSMKey(t *testing.T) {
	h := newHouse(t)
	key := h.importKey(t, "k", "cn-hangzhou", "cn-shanghai")
	other, _ := key.CurrentIn("cn-shanghai")
	if _, err := h.ForgetKey(t.Context(), admin, "k"); err != nil {
		t.Fatal(err)
	}
	for name, cmk := range map[string]*keyring.CMK{"a": key.Current(), "b": other} {
		if _, err := h.AdoptKey(t.Context(), admin, Adoption{
			Name: name, CMK: cmk.KeyID, Region: cmk.Region, Backend: "hsm", HSMKeyID: cmk.HSMKeyID,
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.ReimportKey(t.Context(), admin, importer.Reimport{Name: "b", Expires: new("30d")}, quiet); err != nil {
		t.Fatal(err)
	}
	if _, err := h.SealKey(t.Context(), admin, "a"); failure.From(err).Reason != "MATERIAL_EXPIRES" {
		t.Fatalf("the other name's material expires: %v", err)
	}
	if _, err := h.ReimportKey(t.Context(), admin, importer.Reimport{Name: "b", Expires: new("never")}, quiet); err != nil {
		t.Fatal(err)
	}
	if _, err := h.SealKey(t.Context(), admin, "a"); err != nil {
		t.Fatal(err)
	}
	if b, _ := h.Keyring.Key("b"); b.Current().SealedAt.IsZero() {
		t.Error("the other name does not know")
	}
}

// TestSealWaitsForImports: a re-import that is under way ends before the HSM key is
// sealed, or the key is not.
func TestSealWaitsForImports(t *testing.T) {
	h := newHouse(t)
	h.importKey(t, "k")
	var sealErr error
	_, err := h.ReimportKey(t.Context(), admin, importer.Reimport{Name: "k", Expires: new("30d")}, func(p importer.Progress) {
		if p.Step == "import" && p.State == importer.Started {
			_, sealErr = h.SealKey(t.Context(), admin, "k")
		}
	})
	if err != nil || failure.From(sealErr).Reason != "IMPORT_RUNNING" || h.token.Calls("SealKey") != 0 {
		t.Errorf("re-import: %v, seal: %v", err, sealErr)
	}
}

// TestHomeRegionUnfinished: nothing is encrypted where nobody will look for it.
func TestHomeRegionUnfinished(t *testing.T) {
	h := newHouse(t, grant(1000, "k", authz.Encrypt, authz.Decrypt))
	_, err := h.ImportKey(t.Context(), admin, newKey("k", "cn-hangzhou", "cn-shanghai"), func(p importer.Progress) {
		h.cloud.down["cn-hangzhou"].Store(p.Step == "import" && p.Region == "cn-hangzhou")
	})
	h.cloud.down["cn-hangzhou"].Store(false)
	if err == nil {
		t.Fatal("imported into a region that was down")
	}
	if _, err := h.Encrypt(t.Context(), alice, "k", "", []byte("x"), nil); failure.From(err).Reason != "REGION_UNFINISHED" {
		t.Errorf("encrypt: %v", err)
	}
	if _, err := h.Encrypt(t.Context(), alice, "k", "cn-shanghai", []byte("x"), nil); err != nil {
		t.Errorf("encrypt where it is finished: %v", err)
	}
	// The region that is finished keeps its expiry, so another is refused.
	req := newKey("k")
	req.Expires = new("30d")
	if _, err := h.ImportKey(t.Context(), admin, req, quiet); failure.From(err).Reason != "IMPORT_DIFFERS" {
		t.Errorf("another expiry: %v", err)
	}
}

// TestRotationTakesItsFlags: what was asked for is what the key does afterwards.
func TestRotationTakesItsFlags(t *testing.T) {
	h := newHouse(t)
	h.importKey(t, "k")
	rotate := importer.Request{Kind: keyring.Rotation, Name: "k", Expires: new("90d"), Renew: new("14d"), Alias: new("alias/k")}
	key := h.importWith(t, rotate)
	if key.Renewal.Ahead != 14*day || key.Alias != "alias/k" {
		t.Errorf("rotated: %+v", key)
	}
	rotate.Alias = new("alias/other")
	if _, err := h.ImportKey(t.Context(), admin, rotate, quiet); failure.From(err).Reason != "ALIAS" {
		t.Errorf("another alias: %v", err)
	}
	extend := importer.Request{Kind: keyring.Extension, Name: "k", Regions: []string{"cn-shanghai"}, Expires: new("never")}
	added, _ := h.importWith(t, extend).CurrentIn("cn-shanghai")
	if !added.MaterialExpiresAt.IsZero() {
		t.Errorf("material that shall never expire does at %v", added.MaterialExpiresAt)
	}
}

// TestOneCMKOneKey: a CMK of an unfinished import cannot be adopted by another name.
func TestOneCMKOneKey(t *testing.T) {
	h := newHouse(t)
	_, err := h.ImportKey(t.Context(), admin, newKey("a"), func(p importer.Progress) {
		h.cloud.down["cn-hangzhou"].Store(p.Step == "verify")
	})
	h.cloud.down["cn-hangzhou"].Store(false)
	if err == nil {
		t.Fatal("verified while down")
	}
	imp, _ := h.Keyring.Import("a")
	if _, err := h.AdoptKey(t.Context(), admin, Adoption{Name: "b", CMK: imp.KeyIDs()[0]}); failure.From(err).Reason != "CMK_TAKEN" {
		t.Errorf("adopted: %v", err)
	}
}

// TestHistoryOfAbandonedWork: an export stays in the key's history, whatever became
// of the import that it was made for.
func TestHistoryOfAbandonedWork(t *testing.T) {
	h := newHouse(t)
	h.importKey(t, "k")
	extend := importer.Request{Kind: keyring.Extension, Name: "k", Regions: []string{"cn-shanghai"}}
	_, err := h.ImportKey(t.Context(), admin, extend, func(p importer.Progress) {
		h.cloud.down["cn-shanghai"].Store(p.Step == "verify")
	})
	h.cloud.down["cn-shanghai"].Store(false)
	if err == nil {
		t.Fatal("verified while down")
	}
	if _, err := h.AbandonImport(t.Context(), admin, "k"); err != nil {
		t.Fatal(err)
	}
	key, err := h.Keyring.Key("k")
	if err != nil || len(key.Exports) != 2 || h.token.Calls("Wrap") != 2 {
		t.Errorf("%d exports are known of %d: %+v, %v", len(key.Exports), h.token.Calls("Wrap"), key, err)
	}
}

// TestDoneThoughHomeIsDown: a change of another region is done when it was.
func TestDoneThoughHomeIsDown(t *testing.T) {
	h := newHouse(t)
	key := h.importKey(t, "k", "cn-hangzhou", "cn-shanghai")
	h.cloud.down["cn-hangzhou"].Store(true)
	changed, err := h.ChangeKey(t.Context(), admin, DisableKey(), Target{Key: "k", Region: "cn-shanghai"})
	if err != nil {
		t.Fatal(err)
	}
	other, _ := changed.CurrentIn("cn-shanghai")
	if other.State != kmsapi.Disabled || changed.Current().KeyID != key.Current().KeyID {
		t.Errorf("changed: %+v", changed)
	}
}
