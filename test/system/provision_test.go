package system

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// ramUser is a daemon's RAM user, and the commands that make and change it.
type ramUser struct {
	stage *stage.Stage
	now   *clock
}

// run runs a verb of `kmsbrokerctl ram`, a minute later than the one before, so
// that AccessKeys have an order.
func (u ramUser) run(verb string, args ...string) stage.Result {
	u.now.advance(time.Minute)
	return u.stage.Ctl(u.stage.Control(), append([]string{
		"-o", "json", "ram", verb, "--user", "kms-broker", "--admin-credentials", u.stage.Path("admin.toml"), "--endpoint", u.stage.EndpointURL(),
	}, args...)...)
}

// TestProvisionedUser: the RAM user that `ram provision` makes may do what the
// broker does, and nothing to other CMKs of the account.
func TestProvisionedUser(t *testing.T) {
	var now clock
	s := stage.New(t, stage.Options{Clock: now.Now})
	// A new machine has an administrator, and nothing where the broker looks.
	if err := os.Rename(s.Path("credentials.toml"), s.Path("admin.toml")); err != nil {
		t.Fatal(err)
	}
	seen := watchSigners(t, s)
	s.Start()
	user := ramUser{s, &now}
	var made struct {
		ID string `json:"access_key_id"`
	}
	s.Must(user.run("provision", "--manage", "--alias", "alias/app-1", "--out", s.Path("credentials.toml")), &made)

	life := []struct {
		name string
		args []string
	}{
		{"import into two regions", []string{"import", "app-1", "--backend", "hsm", "--region", stage.Region, "--region", stage.OtherRegion, "--alias", "alias/app-1"}},
		{"rotate", []string{"rotate", "app-1"}},
		{"reimport", []string{"reimport", "app-1"}},
		{"verify", []string{"verify", "app-1", "--material"}},
		{"tag", []string{"tag", "app-1", "team=payments"}},
		{"untag", []string{"tag", "app-1", "team-"}},
		{"describe it", []string{"set-description", "app-1", "card numbers"}},
		{"describe", []string{"describe", "app-1"}},
		{"protect", []string{"protect", "app-1", "--reason", "in use"}},
		{"unprotect", []string{"unprotect", "app-1"}},
		{"disable", []string{"disable", "app-1"}},
		{"enable", []string{"enable", "app-1"}},
		{"delete its material", []string{"delete-material", "app-1", "--yes"}},
		{"bring its material back", []string{"reimport", "app-1"}},
		{"schedule its deletion", []string{"schedule-deletion", "app-1", "--days", "7", "--yes"}},
		{"cancel its deletion", []string{"cancel-deletion", "app-1"}},
		{"import without an alias", []string{"import", "app-2", "--backend", "hsm"}},
		{"extend", []string{"add-region", "app-2", stage.OtherRegion}},
	}
	for _, step := range life {
		if r := s.Ctl(s.Control(), append([]string{"key"}, step.args...)...); r.Status != 0 {
			t.Fatalf("%s: %+v", step.name, r)
		}
	}
	s.Must(encrypt(s), nil)
	if who := seen.list(); len(who) != 1 || who[0] != made.ID {
		t.Errorf("%v signed, not %s", who, made.ID)
	}

	foreign, err := s.Client().CreateKey(t.Context(), kmsapi.CreateKeyRequest{Origin: kmsapi.OriginExternal, KeySpec: kmsapi.KeySpecAES256, KeyUsage: kmsapi.UsageEncrypt})
	if err != nil {
		t.Fatal(err)
	}
	s.Refused(s.Ctl(s.Control(), "key", "adopt", "app-3", "--cmk", foreign.KeyID), 1, "Forbidden.NoPermission", foreign.KeyID, "RAM user lacks a permission")
	sealed := foreignCiphertext(t, s)
	s.Refused(s.CtlInput([]byte(sealed), s.Application(), "decrypt"), 1, "Forbidden.NoPermission", "RAM user lacks a permission")
	s.Refused(s.Ctl(s.Control(), "key", "import", "app-4", "--backend", "hsm", "--alias", "alias/other"), 1, "Forbidden.NoPermission", "alias/other")
	// Known by name, the alias can be set, and the import goes on.
	s.Must(user.run("provision", "--manage", "--alias", "alias/app-1", "--alias", "alias/other", "--out", s.Path("credentials.toml")), nil)
	s.Import("app-4", "--alias", "alias/other")
}

// foreignCiphertext is one of a CMK that is not the broker's.
func foreignCiphertext(t *testing.T, s *stage.Stage) string {
	t.Helper()
	root := s.Client()
	cmk, err := root.CreateKey(t.Context(), kmsapi.CreateKeyRequest{Origin: kmsapi.OriginAliyunKMS, KeySpec: kmsapi.KeySpecAES256, KeyUsage: kmsapi.UsageEncrypt})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := root.Encrypt(t.Context(), kmsapi.EncryptRequest{KeyID: cmk.KeyID, Plaintext: []byte("their secret")})
	if err != nil {
		t.Fatal(err)
	}
	return sealed.CiphertextBlob
}

// TestAccessKeyRotation replaces the AccessKey under a running daemon and ends
// with a daemon that is nobody.
func TestAccessKeyRotation(t *testing.T) {
	var now clock
	s := stage.New(t, stage.Options{Clock: now.Now})
	if err := os.Rename(s.Path("credentials.toml"), s.Path("admin.toml")); err != nil {
		t.Fatal(err)
	}
	seen := watchSigners(t, s)
	daemon := s.Start()
	user := ramUser{s, &now}
	s.Must(user.run("provision", "--manage", "--out", s.Path("credentials.toml")), nil)
	s.Import("app-1")

	s.Must(user.run("rotate", "--verify", "--out", s.Path("second.toml")), nil)
	s.Must(encrypt(s), nil)
	s.Refused(user.run("rotate", "--finish", "--yes"), 1, "has not seen", "switch kmsbrokerd to it first")
	if err := os.Rename(s.Path("second.toml"), s.Path("credentials.toml")); err != nil {
		t.Fatal(err)
	}
	now.advance(time.Minute)
	s.Must(encrypt(s), nil)
	var finished struct{ Kept, Removed string }
	s.Must(user.run("rotate", "--finish", "--yes"), &finished)
	if who := seen.list(); len(who) != 2 || who[0] != finished.Removed || who[1] != finished.Kept {
		t.Errorf("%v signed; %+v", who, finished)
	}
	s.Must(encrypt(s), nil)

	s.Must(user.run("revoke", "--yes"), nil)
	s.Refused(encrypt(s), 1, "InvalidAccessKeyId.NotFound", "check the broker's access key")
	if secret := strings.Split(s.Read("credentials.toml"), `"`)[3]; strings.Contains(daemon.Log.String(), secret) {
		t.Error("the secret is in the log")
	}
}
