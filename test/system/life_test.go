package system

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestRotation: a rotated key encrypts with a new CMK, opens what the old one made,
// and its blobs can be moved.
func TestRotation(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	old := s.Import("app-1", "--alias", "alias/app-1")
	var blobs []string
	for i := range 50 {
		sealed := s.CtlInput(fmt.Appendf(nil, "secret %d", i), s.Application(), "encrypt", "--key", "app-1", "--context", "a=1")
		s.Must(sealed, nil)
		blobs = append(blobs, strings.TrimSpace(sealed.Stdout))
	}
	var key stage.Key
	s.Must(s.Ctl(s.Control(), "-o", "json", "key", "rotate", "app-1"), &key)
	if key.KeyID == old.KeyID || key.HSMKeyID == old.HSMKeyID || key.Alias != old.Alias || len(key.CMKs) != 2 {
		t.Fatalf("rotated: %+v, before %+v", key, old)
	}
	if cmk, err := s.Client().DescribeKey(t.Context(), "alias/app-1"); err != nil || cmk.KeyID != key.KeyID {
		t.Errorf("the alias is of %+v, %v", cmk, err)
	}
	opened := s.CtlInput([]byte(blobs[0]), s.Application(), "decrypt", "--context", "a=1")
	if opened.Status != 0 || opened.Stdout != "secret 0" {
		t.Errorf("old blob: %+v", opened)
	}

	s.Write("blobs", strings.Join(blobs, "\n")+"\n", 0o600)
	reencrypt := func() stage.Result {
		return s.Ctl(s.Application(), "reencrypt", "--key", "app-1", "--context", "a=1", "--in", s.Path("blobs"), "--out", s.Path("moved"))
	}
	// KMS fails after some, and the command goes on where it was.
	var failing atomic.Bool
	var n atomic.Int32
	failing.Store(true)
	s.Intercept(func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Header.Get("X-Acs-Action") != "Encrypt" {
			return true
		}
		if n.Add(1) > 20 && failing.Load() {
			refuse(w, http.StatusForbidden, "Forbidden.NoPermission")
			return false
		}
		return true
	})
	s.Refused(reencrypt(), 1, "line 21 of")
	if _, err := os.Stat(s.Path("moved")); err == nil {
		t.Error("an output that is not whole has its name")
	}
	failing.Store(false)
	before := n.Load()
	if r := reencrypt(); r.Status != 0 || !strings.Contains(r.Stderr, "20 of 50 were done before") || n.Load()-before != 30 {
		t.Fatalf("continued with %d encryptions: %+v", n.Load()-before, r)
	}
	moved := strings.Split(strings.TrimSpace(s.Read("moved")), "\n")
	if len(moved) != len(blobs) {
		t.Fatalf("%d blobs became %d", len(blobs), len(moved))
	}
	s.Must(s.Ctl(s.Control(), "key", "disable", "app-1", "--key-id", old.KeyID), nil)
	for i, blob := range moved {
		opened := s.CtlInput([]byte(blob), s.Application(), "decrypt", "--context", "a=1")
		if opened.Status != 0 || opened.Stdout != fmt.Sprintf("secret %d", i) {
			t.Fatalf("blob %d: %+v", i, opened)
		}
	}
	s.Write("blobs", strings.Join(moved, "\n")+"\n", 0o600)
	if r := reencrypt(); r.Status != 0 || !strings.Contains(r.Stderr, "50 of the 50 of this run had nothing to change") {
		t.Errorf("moved again: %+v", r)
	}
}

// TestSeveralRegions: one HSM key is the material of a CMK in each region.
func TestSeveralRegions(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	key := s.Import("app-1", "--region", stage.Region, "--region", stage.OtherRegion, "--alias", "alias/app-1")
	if len(key.CMKs) != 2 || key.CMKs[0].HSMKeyID != key.CMKs[1].HSMKeyID || key.CMKs[1].Region != stage.OtherRegion {
		t.Fatalf("imported: %+v", key)
	}
	if cmk, err := s.ClientIn(stage.OtherRegion).DescribeKey(t.Context(), "alias/app-1"); err != nil || cmk.KeyID != key.CMKs[1].KeyID {
		t.Errorf("in %s: %+v, %v", stage.OtherRegion, cmk, err)
	}
	sealed := s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1", "--region", stage.OtherRegion)
	s.Must(sealed, nil)
	if r := s.CtlInput([]byte(sealed.Stdout), s.Application(), "decrypt", "--key", "app-1"); r.Status == 0 {
		t.Error("the home region opened what the other made")
	}
	if r := s.CtlInput([]byte(sealed.Stdout), s.Application(), "decrypt", "--region", stage.OtherRegion); r.Stdout != "x" {
		t.Errorf("decrypt: %+v", r)
	}

	second := s.Import("app-2")
	var extended stage.Key
	s.Must(s.Ctl(s.Control(), "-o", "json", "key", "add-region", "app-2", stage.OtherRegion), &extended)
	if len(extended.CMKs) != 2 || extended.CMKs[1].HSMKeyID != second.HSMKeyID || extended.KeyID != second.KeyID {
		t.Errorf("extended: %+v", extended)
	}
	s.Refused(s.Ctl(s.Control(), "key", "import", "app-3", "--backend", "hsm", "--region", "mars-1"), 1, "mars-1", stage.OtherRegion)
}

// TestDryRun shows the plan and makes nothing.
func TestDryRun(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	r := s.Ctl(s.Control(), "key", "import", "app-1", "--backend", "hsm", "--dry-run")
	s.Must(r, nil)
	for _, word := range []string{"checked", "would", "CreateKey", "GetParametersForImport", "ImportKeyMaterial"} {
		if !strings.Contains(r.Stdout, word) {
			t.Errorf("the plan lacks %q:\n%s", word, r.Stdout)
		}
	}
	if secret, other := s.Objects(); secret+other != 0 || s.Actions("CreateKey") != 0 {
		t.Errorf("a dry run made %d objects and %d CMKs", secret+other, s.Actions("CreateKey"))
	}
	s.Refused(s.Ctl(s.Control(), "key", "import", "app-1", "--backend", "none", "--dry-run"), 5)
}

// TestEvidence: the signed history of a key is checked without the daemon.
func TestEvidence(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	key := s.Import("app-1")
	s.Must(s.Ctl(s.Control(), "key", "reimport", "app-1"), nil)
	s.Must(s.Ctl(s.Control(), "key", "evidence", "app-1", "--out", s.Path("evidence.json")), nil)
	var status struct {
		Fingerprint string `json:"evidence_fingerprint"`
	}
	s.Must(s.Ctl(s.Control(), "-o", "json", "status"), &status)
	daemon.Stop()

	var verified struct {
		SignedBy string `json:"signed_by"`
		Record   struct {
			Births []struct {
				HSMKeyID   string `json:"hsm_key_id"`
				CheckValue string `json:"check_value"`
				Device     struct {
					Serial string `json:"serial"`
				} `json:"device"`
				Attributes struct {
					Local, Sensitive bool
				} `json:"attributes"`
			} `json:"births"`
			Exports []struct {
				KeyID    string `json:"key_id"`
				SHA256   string `json:"wrapping_key_sha256"`
				Imported string `json:"import_request_id"`
			} `json:"exports"`
		} `json:"record"`
	}
	s.Must(s.Ctl(s.Control(), "-o", "json", "key", "evidence", "--verify", s.Path("evidence.json"), "--fingerprint", status.Fingerprint), &verified)
	births, exports := verified.Record.Births, verified.Record.Exports
	if len(births) != 1 || births[0].HSMKeyID != key.HSMKeyID || births[0].CheckValue != key.CheckValue ||
		births[0].Device.Serial != s.HSM.Serial || !births[0].Attributes.Local || !births[0].Attributes.Sensitive {
		t.Errorf("births: %+v", births)
	}
	if len(exports) != 2 || exports[0].KeyID != key.KeyID || exports[0].Imported == "" || exports[0].SHA256 == exports[1].SHA256 {
		t.Errorf("exports: %+v", exports)
	}
	changed := strings.Replace(s.Read("evidence.json"), key.CheckValue, "000000", 1)
	s.Write("changed.json", changed, 0o600)
	s.Refused(s.Ctl(s.Control(), "key", "evidence", "--verify", s.Path("changed.json")), 1, "signature")
	s.Refused(s.Ctl(s.Control(), "key", "evidence", "--verify", s.Path("evidence.json"), "--fingerprint", "00"), 1, "signed by")
}

// TestAdoption: a CMK made without the broker gets a name, and loses it.
func TestAdoption(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	key := s.Import("app-1", "--alias", "alias/mine")
	s.Refused(s.Ctl(s.Control(), "key", "forget", "app-1"), 2, "--yes")
	s.Must(s.Ctl(s.Control(), "key", "forget", "app-1", "--yes"), nil)
	s.Refused(s.Ctl(s.Control(), "key", "show", "app-1"), 5)
	var adopted stage.Key
	s.Must(s.Ctl(s.Control(), "-o", "json", "key", "adopt", "app-2", "--cmk", "alias/mine", "--backend", "hsm", "--hsm-key", key.HSMKeyID), &adopted)
	if adopted.KeyID != key.KeyID || adopted.CheckValue != key.CheckValue || adopted.Alias != "alias/mine" {
		t.Errorf("adopted: %+v", adopted)
	}
	s.Must(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-2"), nil)
	s.Must(s.Ctl(s.Control(), "key", "verify", "app-2", "--material"), nil)
}

// TestTagsAndProtection change what KMS says of a CMK.
func TestTagsAndProtection(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	s.Import("app-1")
	s.Must(s.Ctl(s.Control(), "key", "protect", "app-1", "--reason", "in use"), nil)
	s.Refused(s.Ctl(s.Control(), "key", "schedule-deletion", "app-1", "--days", "7", "--yes"), 1)
	s.Must(s.Ctl(s.Control(), "key", "tag", "app-1", "team=payments", "stage=prod"), nil)
	s.Must(s.Ctl(s.Control(), "key", "tag", "app-1", "stage-"), nil)
	s.Refused(s.Ctl(s.Control(), "key", "tag", "app-1", "import-id=x"), 1, "broker's own")
	s.Must(s.Ctl(s.Control(), "key", "set-description", "app-1", "card numbers"), nil)
	var details []struct {
		Protection  string            `json:"deletion_protection"`
		Description string            `json:"description"`
		Origin      string            `json:"origin"`
		Tags        map[string]string `json:"tags"`
	}
	s.Must(s.Ctl(s.Control(), "-o", "json", "key", "describe", "app-1"), &details)
	if len(details) != 1 || details[0].Protection != "Enabled" || details[0].Description != "card numbers" ||
		details[0].Origin != "EXTERNAL" || len(details[0].Tags) != 1 || details[0].Tags["team"] != "payments" {
		t.Errorf("details: %+v", details)
	}
	s.Must(s.Ctl(s.Control(), "key", "unprotect", "app-1"), nil)
	s.Must(s.Ctl(s.Control(), "key", "schedule-deletion", "app-1", "--days", "7", "--yes"), nil)
}

// TestCMKLimit: the service's word about default CMKs is explained.
func TestCMKLimit(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	s.Import("app-1")
	s.Intercept(func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Header.Get("X-Acs-Action") != "CreateKey" {
			return true
		}
		refuse(w, http.StatusBadRequest, "Rejected.LimitExceeded")
		return false
	})
	r := s.Ctl(s.Control(), "key", "rotate", "app-1")
	s.Refused(r, 1, "default CMK", "KMS instance")
	s.Intercept(nil)
	s.Must(s.Ctl(s.Control(), "key", "rotate", "app-1"), nil)
	if n := s.Actions("CreateKey"); n != 3 {
		t.Errorf("CreateKey was called %d times, want one for the import, one refused and one more", n)
	}
}

// TestSeal: a sealed key goes on encrypting and never leaves its HSM again.
func TestSeal(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	s.Import("app-1")
	s.Refused(s.Ctl(s.Control(), "key", "seal", "app-1"), 2, "--yes", "for ever")
	s.Must(s.Ctl(s.Control(), "key", "seal", "app-1", "--yes"), nil)
	var keys []struct {
		Extractable bool `json:"extractable"`
	}
	s.Must(s.Ctl(s.Control(), "-o", "json", "backend", "keys", "hsm"), &keys)
	if len(keys) != 1 || keys[0].Extractable {
		t.Errorf("the HSM says %+v", keys)
	}
	s.Refused(s.Ctl(s.Control(), "key", "reimport", "app-1"), 1, "sealed", "rotate")
	s.Must(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1"), nil)
	s.Must(s.Ctl(s.Control(), "key", "verify", "app-1"), nil)
}
