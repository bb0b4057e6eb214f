package broker

import (
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
)

const wholeDay = 24 * time.Hour

// TestRenewalKeepsTheLifetime: another time ahead, or a renewal that is asked for
// late, leaves the lifetime of the material what it was.
func TestRenewalKeepsTheLifetime(t *testing.T) {
	for name, first := range map[string]*string{"with a renewal": new("14d"), "without one": nil} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			req := newKey("k")
			req.Expires, req.Renew = new("90d"), first
			if _, err := h.ImportKey(t.Context(), admin, req, quiet); err != nil {
				t.Fatal(err)
			}
			h.ahead = 70 * wholeDay
			key, err := h.ReimportKey(t.Context(), admin, importer.Reimport{Name: "k", Renew: new("10d")}, quiet)
			if err != nil || key.Renewal != (keyring.Renewal{Ahead: 10 * wholeDay, Lifetime: 90 * wholeDay}) {
				t.Fatalf("%+v, %v", key.Renewal, err)
			}
			key, err = h.ReimportKey(t.Context(), admin, importer.Reimport{Name: "k", Expires: new("30d"), Renew: new("10d")}, quiet)
			if err != nil || key.Renewal.Lifetime != 30*wholeDay {
				t.Errorf("with another expiry: %+v, %v", key.Renewal, err)
			}
		})
	}
}

// TestContinuedImportKeepsTheLifetime, whenever it is continued.
func TestContinuedImportKeepsTheLifetime(t *testing.T) {
	h := newHouse(t)
	req := newKey("k")
	req.Expires, req.Renew = new("90d"), new("14d")
	down := func(p importer.Progress) { h.cloud.down["cn-hangzhou"].Store(p.Step == "import") }
	if _, err := h.ImportKey(t.Context(), admin, req, down); err == nil {
		t.Fatal("imported without KMS")
	}
	h.cloud.down["cn-hangzhou"].Store(false)
	h.ahead = 20 * wholeDay
	key, err := h.ImportKey(t.Context(), admin, req, quiet)
	if err != nil || key.Renewal.Lifetime != 90*wholeDay {
		t.Errorf("%+v, %v", key, err)
	}
}

// TestRotationKeepsTheLifetime: what expires after 90 days still does in the next
// generation.
func TestRotationKeepsTheLifetime(t *testing.T) {
	h := newHouse(t)
	req := newKey("k")
	req.Expires = new("90d")
	if _, err := h.ImportKey(t.Context(), admin, req, quiet); err != nil {
		t.Fatal(err)
	}
	h.ahead = 30 * wholeDay
	key, err := h.ImportKey(t.Context(), admin, importer.Request{Kind: keyring.Rotation, Name: "k"}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if left := key.Current().MaterialExpiresAt.Sub(h.Now()).Round(time.Hour); left != 90*wholeDay {
		t.Errorf("the new material lives %v", left)
	}
	key, err = h.ImportKey(t.Context(), admin, importer.Request{Kind: keyring.Rotation, Name: "k", Expires: new("never")}, quiet)
	if err != nil || !key.Current().MaterialExpiresAt.IsZero() {
		t.Errorf("asked for ever: %v, %v", key.Current().MaterialExpiresAt, err)
	}
}

// TestNotForgottenDuringAnImport: what is being imported keeps its name.
func TestNotForgottenDuringAnImport(t *testing.T) {
	h := newHouse(t)
	key := h.importKey(t, "k")
	var forgotten, adopted error
	_, err := h.ReimportKey(t.Context(), admin, importer.Reimport{Name: "k"}, func(p importer.Progress) {
		if p.Step == "wrap" && forgotten == nil {
			_, forgotten = h.ForgetKey(t.Context(), admin, "k")
			_, adopted = h.AdoptKey(t.Context(), admin, Adoption{Name: "k", CMK: key.Current().KeyID})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"forgotten": forgotten, "adopted": adopted} {
		if f := failure.From(err); f == nil || f.Reason != "IMPORT_RUNNING" {
			t.Errorf("%s meanwhile: %v", what, err)
		}
	}
}

// TestImportedByName: an import is continued by its name, and one that was never
// begun needs a backend.
func TestImportedByName(t *testing.T) {
	h := newHouse(t)
	bare := importer.Request{Kind: keyring.NewKey, Name: "k"}
	if _, err := h.ImportKey(t.Context(), admin, bare, quiet); failure.From(err).Reason != "BACKEND" {
		t.Errorf("nothing to continue: %v", err)
	}
	down := func(p importer.Progress) { h.cloud.down["cn-hangzhou"].Store(p.Step == "import") }
	if _, err := h.ImportKey(t.Context(), admin, newKey("k"), down); err == nil {
		t.Fatal("imported without KMS")
	}
	h.cloud.down["cn-hangzhou"].Store(false)
	if key, err := h.ImportKey(t.Context(), admin, bare, quiet); err != nil || key.Backend == "" {
		t.Errorf("continued: %+v, %v", key, err)
	}
}

// TestEvidenceIsWhole: the record has what an auditor asks for, also of a key that
// was adopted.
func TestEvidenceIsWhole(t *testing.T) {
	h := newHouse(t)
	key := h.importKey(t, "k")
	export := key.LastExport(key.Current().KeyID)
	if export == nil || len(export.WrappingKey) == 0 || export.Device == nil || export.Device.Serial == "" || export.Imported == "" {
		t.Errorf("export: %+v", export)
	}
	if key.Current().CreateRequestID == "" {
		t.Errorf("CMK: %+v", key.Current())
	}
	if _, err := h.ForgetKey(t.Context(), admin, "k"); err != nil {
		t.Fatal(err)
	}
	adopted, err := h.AdoptKey(t.Context(), admin, Adoption{Name: "k", CMK: key.Current().KeyID, Backend: key.Backend, HSMKeyID: key.Current().HSMKeyID})
	if err != nil || len(adopted.Observed) != 1 || adopted.Observed[0].Device.Serial == "" || adopted.Observed[0].Attributes.Bits != 256 {
		t.Errorf("adopted: %+v, %v", adopted, err)
	}
}
