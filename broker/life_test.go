package broker

import (
	"slices"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

func quiet(importer.Progress) {}

func TestRotation(t *testing.T) {
	h := newHouse(t, grant(1000, "k", authz.Encrypt, authz.Decrypt))
	alias := "alias/k"
	req := newKey("k", "cn-hangzhou", "cn-shanghai")
	req.Alias = &alias
	old, err := h.ImportKey(t.Context(), admin, req, quiet)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := h.Encrypt(t.Context(), alice, "k", "", []byte("before"), nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := h.ImportKey(t.Context(), admin, importer.Request{Kind: keyring.Rotation, Name: "k"}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if len(key.CMKs) != 4 || key.Current().HSMKeyID == old.Current().HSMKeyID || len(key.Births) != 2 {
		t.Errorf("after the rotation: %+v", key)
	}
	for _, region := range []string{"cn-hangzhou", "cn-shanghai"} {
		now, _ := key.CurrentIn(region)
		before, _ := old.CurrentIn(region)
		named, err := h.cloud.clients[region].DescribeKey(t.Context(), alias)
		if err != nil || named.KeyID != now.KeyID || now.KeyID == before.KeyID {
			t.Errorf("in %s the alias is of %+v, %v; the key has %s, had %s", region, named, err, now.KeyID, before.KeyID)
		}
	}
	again, err := h.Encrypt(t.Context(), alice, "k", "", []byte("after"), nil)
	if err != nil || again.KeyID != key.Current().KeyID {
		t.Errorf("encrypted with %+v, %v", again, err)
	}
	opened, err := h.Decrypt(t.Context(), alice, "k", "", sealed.CiphertextBlob, nil)
	if err != nil || string(opened.Plaintext) != "before" {
		t.Errorf("the old ciphertext: %+v, %v", opened, err)
	}
}

// TestRegions: a region that fails does not keep the others from being finished,
// and the same command finishes it later, with the same HSM key.
func TestRegions(t *testing.T) {
	h := newHouse(t, grant(1000, "k", authz.Encrypt, authz.Decrypt))
	req := newKey("k", "cn-hangzhou", "cn-shanghai")
	down := func(p importer.Progress) {
		h.cloud.down["cn-hangzhou"].Store(p.Step == "import" && p.Region == "cn-hangzhou")
	}
	_, err := h.ImportKey(t.Context(), admin, req, down)
	if f := failure.From(err); f == nil || f.Kind != failure.Unavailable {
		t.Fatalf("with a region down: %v", err)
	}
	h.cloud.down["cn-hangzhou"].Store(false)
	partial, err := h.Keyring.Key("k")
	if err != nil || !slices.Equal(partial.Regions(), []string{"cn-hangzhou", "cn-shanghai"}) || len(partial.CMKs) != 1 {
		t.Fatalf("partial success: %+v, %v", partial, err)
	}
	key, err := h.ImportKey(t.Context(), admin, newKey("k"), quiet)
	if err != nil {
		t.Fatal(err)
	}
	one, _ := key.CurrentIn("cn-hangzhou")
	two, _ := key.CurrentIn("cn-shanghai")
	if len(key.CMKs) != 2 || one.HSMKeyID != two.HSMKeyID || two.KeyID != partial.CMKs[0].KeyID || h.token.Calls("GenerateKey") != 1 {
		t.Errorf("finished: %+v after %d generations", key, h.token.Calls("GenerateKey"))
	}
	sealed, err := h.Encrypt(t.Context(), alice, "k", "cn-shanghai", []byte("x"), nil)
	if err != nil || sealed.KeyID != two.KeyID {
		t.Fatalf("encrypt in the other region: %+v, %v", sealed, err)
	}
	if _, err := h.Decrypt(t.Context(), alice, "k", "", sealed.CiphertextBlob, nil); err == nil {
		t.Error("a region opened the ciphertext of another")
	}
	if opened, err := h.Decrypt(t.Context(), alice, "", "cn-shanghai", sealed.CiphertextBlob, nil); err != nil || string(opened.Plaintext) != "x" {
		t.Errorf("decrypt in the other region: %v", err)
	}
	if _, err := h.Encrypt(t.Context(), alice, "k", "cn-beijing", []byte("x"), nil); failure.KindOf(err) != failure.NotFound {
		t.Errorf("a region without a CMK: %v", err)
	}
}

func TestAddRegion(t *testing.T) {
	h := newHouse(t)
	old := h.importKey(t, "k")
	extend := importer.Request{Kind: keyring.Extension, Name: "k", Regions: []string{"cn-shanghai"}}
	key, err := h.ImportKey(t.Context(), admin, extend, quiet)
	if err != nil {
		t.Fatal(err)
	}
	added, ok := key.CurrentIn("cn-shanghai")
	if !ok || added.HSMKeyID != old.Current().HSMKeyID || key.Current().KeyID != old.Current().KeyID || h.token.Calls("GenerateKey") != 1 {
		t.Errorf("extended: %+v", key)
	}
	if _, err := h.ImportKey(t.Context(), admin, extend, quiet); failure.From(err).Reason != "REGION_TAKEN" {
		t.Errorf("again: %v", err)
	}
	extend.Regions = []string{"cn-beijing"}
	if _, err := h.ImportKey(t.Context(), admin, extend, quiet); failure.KindOf(err) != failure.Invalid {
		t.Errorf("a region that is not configured: %v", err)
	}
}

func TestPlanMakesNothing(t *testing.T) {
	h := newHouse(t)
	planned, err := h.PlanImport(t.Context(), admin, newKey("k"))
	if err != nil || len(planned) < 8 {
		t.Fatalf("plan: %+v, %v", planned, err)
	}
	if _, unfinished := h.Keys(); len(unfinished) != 0 || h.token.Calls("GenerateKey") != 0 {
		t.Error("planning left something")
	}
	if keys, err := h.kms.ListKeys(t.Context(), kmsapi.Page{}); err != nil || keys.Total != 0 {
		t.Errorf("CMKs: %+v, %v", keys, err)
	}
}

func TestAdoptAndForget(t *testing.T) {
	h := newHouse(t, grant(1000, "mine", authz.Encrypt, authz.Decrypt))
	made := h.importKey(t, "k")
	cmk := made.Current()
	if _, err := h.AdoptKey(t.Context(), admin, Adoption{Name: "mine", CMK: cmk.KeyID}); failure.From(err).Reason != "CMK_TAKEN" {
		t.Errorf("a CMK that has a name: %v", err)
	}
	left, err := h.ForgetKey(t.Context(), admin, "k")
	if err != nil || left.Current().KeyID != cmk.KeyID {
		t.Fatalf("forget: %+v, %v", left, err)
	}
	adopted, err := h.AdoptKey(t.Context(), admin, Adoption{Name: "mine", CMK: cmk.ARN, Backend: "hsm", HSMKeyID: cmk.HSMKeyID})
	if err != nil || adopted.Current().KeyID != cmk.KeyID || adopted.Current().CheckValue != cmk.CheckValue {
		t.Fatalf("adopt: %+v, %v", adopted, err)
	}
	if _, err := h.Encrypt(t.Context(), alice, "mine", "", []byte("x"), nil); err != nil {
		t.Error(err)
	}
	_, checks, err := h.VerifyKey(t.Context(), admin, "mine", true)
	if err != nil || len(checks) != 4 || slices.ContainsFunc(checks, func(c importer.Check) bool { return !c.Passed }) {
		t.Errorf("verify: %+v, %v", checks, err)
	}
	for _, bad := range []Adoption{
		{Name: "other", CMK: "no-such-cmk"},
		{Name: "other", CMK: cmk.KeyID, Backend: "hsm", HSMKeyID: hsm.NewKeyID()},
		{Name: "other", CMK: cmk.KeyID, Backend: "hsm"},
	} {
		if _, err := h.AdoptKey(t.Context(), admin, bad); err == nil {
			t.Errorf("adopted %+v", bad)
		}
	}
}

func TestRenewal(t *testing.T) {
	h := newHouse(t)
	expires, ahead := "90d", "14d"
	req := newKey("k")
	req.Expires, req.Renew = &expires, &ahead
	key, err := h.ImportKey(t.Context(), admin, req, quiet)
	if err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	if key.Renewal != (keyring.Renewal{Ahead: 14 * day, Lifetime: 90 * day}) {
		t.Fatalf("renewal: %+v", key.Renewal)
	}
	pass := func() *keyring.Key {
		t.Helper()
		h.renewDue(t.Context())
		k, err := h.Keyring.Key("k")
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	h.ahead = 75 * day
	if k := pass(); !k.Current().MaterialExpiresAt.Equal(key.Current().MaterialExpiresAt) {
		t.Errorf("renewed 15 days ahead")
	}
	h.ahead = 77 * day
	h.cloud.down["cn-hangzhou"].Store(true)
	if k := pass(); k.Current().Renewed.Error == "" {
		t.Errorf("no outcome of a failed renewal: %+v", k.Current())
	}
	s := h.Status()
	if len(s.Expiring) != 1 || s.Expiring[0].Ahead != 14*day || s.Expiring[0].Renewed.Error == "" || s.Renewals != (Renewals{Failed: 1}) {
		t.Errorf("status after a failed renewal: %+v, %+v", s.Expiring, s.Renewals)
	}
	h.cloud.down["cn-hangzhou"].Store(false)
	wraps := h.token.Calls("Wrap")
	pass()
	if h.token.Calls("Wrap") != wraps {
		t.Error("tried again at once")
	}
	h.ahead += renewAgain
	k := pass()
	if got := k.Current(); got.Renewed.Error != "" || got.MaterialExpiresAt.Before(time.Now().Add(h.ahead+89*day)) {
		t.Errorf("not renewed: %+v", got)
	}
	if r := h.lastRecord(t); r.Action != "key.reimport" || r.Caller != nil {
		t.Errorf("record: %+v", r)
	}
	if s := h.Status(); s.Renewals != (Renewals{Done: 1, Failed: 1}) {
		t.Errorf("status after both: %+v", s.Renewals)
	}
}

// TestRenewalByHand mends what the daemon could not renew.
func TestRenewalByHand(t *testing.T) {
	h := newHouse(t)
	expires, ahead := "90d", "14d"
	req := newKey("k")
	req.Expires, req.Renew = &expires, &ahead
	if _, err := h.ImportKey(t.Context(), admin, req, quiet); err != nil {
		t.Fatal(err)
	}
	h.ahead = 77 * 24 * time.Hour
	h.cloud.down["cn-hangzhou"].Store(true)
	h.renewDue(t.Context())
	h.cloud.down["cn-hangzhou"].Store(false)
	if e := h.Status().Expiring; len(e) != 1 || e[0].Renewed.Error == "" {
		t.Fatalf("with KMS away: %+v", e)
	}
	if _, err := h.ReimportKey(t.Context(), admin, importer.Reimport{Name: "k", Expires: &expires}, quiet); err != nil {
		t.Fatal(err)
	}
	if e := h.Status().Expiring; len(e) != 1 || e[0].Renewed.Error != "" {
		t.Errorf("mended: %+v", e)
	}
}

// TestExpiring lists material of all regions and generations that is to stay, the
// soonest first.
func TestExpiring(t *testing.T) {
	h := newHouse(t)
	for name, expires := range map[string]string{"late": "90d", "soon": "30d", "never": "never", "going": "10d", "emptied": "20d"} {
		req := newKey(name, "cn-hangzhou", "cn-shanghai")
		req.Expires = &expires
		if _, err := h.ImportKey(t.Context(), admin, req, quiet); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.ChangeKey(t.Context(), admin, ScheduleKeyDeletion(7), Target{Key: "going"}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.ChangeKey(t.Context(), admin, DeleteKeyMaterial(), Target{Key: "emptied"}); err != nil {
		t.Fatal(err)
	}
	listed := func() (names []string) {
		for _, e := range h.Status().Expiring {
			names = append(names, e.Key)
		}
		return names
	}
	if got := listed(); !slices.Equal(got, []string{"soon", "soon", "late", "late"}) {
		t.Errorf("listed %q", got)
	}
	h.ahead = 31 * 24 * time.Hour
	if got := listed(); !slices.Equal(got, []string{"soon", "soon", "late", "late"}) {
		t.Errorf("listed %q a month later", got)
	}
	count := h.Status().CMKs
	if n := count[CMKState{"cn-shanghai", kmsapi.Enabled}]; n != 3 || count[CMKState{"cn-hangzhou", kmsapi.PendingDeletion}] != 1 {
		t.Errorf("CMKs: %v", count)
	}
}

func TestSeal(t *testing.T) {
	h := newHouse(t, grant(1000, "k", authz.Encrypt))
	expires := "90d"
	req := newKey("k")
	req.Expires = &expires
	if _, err := h.ImportKey(t.Context(), admin, req, quiet); err != nil {
		t.Fatal(err)
	}
	if _, err := h.SealKey(t.Context(), admin, "k"); failure.From(err).Reason != "MATERIAL_EXPIRES" || h.token.Calls("SealKey") != 0 {
		t.Fatalf("material that expires: %v", err)
	}
	never := "never"
	if _, err := h.ReimportKey(t.Context(), admin, importer.Reimport{Name: "k", Expires: &never}, quiet); err != nil {
		t.Fatal(err)
	}
	key, err := h.SealKey(t.Context(), admin, "k")
	if err != nil || key.Current().SealedAt.IsZero() {
		t.Fatalf("seal: %+v, %v", key, err)
	}
	if r := h.lastRecord(t); r.Action != "key.seal" || r.Key != "k" {
		t.Errorf("record: %+v", r)
	}
	if _, err := h.ReimportKey(t.Context(), admin, importer.Reimport{Name: "k"}, quiet); failure.From(err).Reason != "KEY_SEALED" {
		t.Errorf("re-import of a sealed key: %v", err)
	}
	extend := importer.Request{Kind: keyring.Extension, Name: "k", Regions: []string{"cn-shanghai"}}
	if _, err := h.ImportKey(t.Context(), admin, extend, quiet); failure.From(err).Reason != "KEY_SEALED" {
		t.Errorf("another region for a sealed key: %v", err)
	}
	if _, err := h.ImportKey(t.Context(), admin, importer.Request{Kind: keyring.Rotation, Name: "k"}, quiet); err != nil {
		t.Errorf("a sealed key is rotated: %v", err)
	}
	if _, err := h.Encrypt(t.Context(), alice, "k", "", []byte("x"), nil); err != nil {
		t.Error(err)
	}
}
