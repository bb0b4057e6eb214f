package devices

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/conformance"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

// changing are the calls that a device refuses to a Crypto User.
func changing(call hsmsim.Call) bool {
	return slices.Contains([]string{"C_GenerateKey", "C_CreateObject", "C_WrapKey", "C_SetAttributeValue", "C_CopyObject", "C_DestroyObject"}, call.Function)
}

// asUser is the same device, opened as the Crypto User.
func (d *device) asUser(t *testing.T) *device {
	t.Helper()
	user := d.with(map[string]string{"role": string(hsm.CryptoUser)})
	user.config.PINFile = filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(user.config.PINFile, []byte(d.CUPIN), 0o600); err != nil {
		t.Fatal(err)
	}
	return user.with(nil)
}

// TestCryptoUser looks and changes nothing: what its role may not do is refused
// before the device is asked, and the suite says so of each check.
func TestCryptoUser(t *testing.T) {
	d := newDevice(t, hsmsim.Luna)
	officer := d.mustOpen(t)
	id := generate(t, officer)
	want, err := officer.CheckValue(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	before := len(d.Calls())
	user := d.asUser(t)
	token := user.mustOpen(t)
	if keys, err := token.Keys(t.Context()); err != nil || len(keys) != 1 || keys[0].ID != id {
		t.Errorf("list: %+v, %v", keys, err)
	}
	if got, err := token.CheckValue(t.Context(), id); err != nil || got != want {
		t.Errorf("check value %s, %v, the Crypto Officer has %s", got, err, want)
	}
	if err := token.Health(t.Context()); err != nil {
		t.Errorf("health: %v", err)
	}
	if info, err := token.Describe(t.Context()); err != nil || info.Role != hsm.CryptoUser || len(info.WrappingAlgorithms) != 0 {
		t.Errorf("Describe = %+v, %v", info, err)
	}
	_, generated := token.GenerateKey(t.Context(), hsm.KeySpec{ID: hsm.NewKeyID(), Label: "x"})
	_, wrapped := token.Wrap(t.Context(), hsm.WrapRequest{Key: id, Algorithm: hsm.OAEPSHA256, PublicKey: wrappingKey(t)})
	_, sealed := token.SealKey(t.Context(), id)
	for what, err := range map[string]error{"generate": generated, "wrap": wrapped, "seal": sealed, "destroy": token.DestroyKey(t.Context(), id)} {
		if !errors.Is(err, hsm.NotPermitted) || !strings.Contains(err.Error(), "Crypto User") {
			t.Errorf("%s: %v", what, err)
		}
	}
	user.examineUser(t)
	if calls := d.Calls()[before:]; slices.ContainsFunc(calls, changing) {
		t.Errorf("the device was asked for %+v", calls[slices.IndexFunc(calls, changing)])
	}
	if left := d.Stored(); len(left) != 1 {
		t.Errorf("the token has %+v", left)
	}
	if n := d.Failures("cu"); n != 0 {
		t.Errorf("%d wrong PINs were counted", n)
	}
}

// examineUser demands that the suite passes as a Crypto User, and that it says of
// each check that takes a key of its own that the role cannot do it.
func (d *device) examineUser(t *testing.T) {
	t.Helper()
	passes := []string{"G-10", "G-11", "L-06", "L-07", "K-02", "H-01", "C-02"} // beside whole chapters
	report := conformance.Run(t.Context(), newExaminer(t, d, d.CUPIN).config())
	for _, result := range report.Results {
		want := conformance.NotSupported
		switch {
		case result.ID == "G-12":
			want = conformance.NotRun // nobody plants a key that the Crypto User could not remove
		case result.ID == "I-06": // there are no algorithms
		case strings.Contains("IAEZ", result.ID[:1]), slices.Contains(passes, result.ID):
			want = conformance.Passed
		}
		if result.Status != want {
			t.Errorf("want %s: %s", want, result)
		}
	}
	if report.Verdict != conformance.VerdictPassed || len(report.LeftBehind) > 0 {
		t.Errorf("verdict %s, left behind %v", report.Verdict, report.LeftBehind)
	}
}
