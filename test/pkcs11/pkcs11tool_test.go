package pkcs11

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

// replacement is a place where what a program prints through p11-kit-client.so is not what
// it prints directly, with any server.
type replacement struct{ direct, client, reason string }

var noRandom = []replacement{
	{"C_GenerateRandom():\n  seems to be OK\n", "C_GenerateRandom():\n", "the client takes a buffer of no bytes for NULL"},
	{"standard error:\n", "standard error:\n  ERR: C_GenerateRandom(buf1,0) failed: CKR_ARGUMENTS_BAD (0x7)\n", "the same"},
}

// TestPKCS11Tool runs OpenSC's own test of a token on a key that signs, where it gets to
// its end, and on one that decrypts, where it does not: SoftHSM refuses OAEP with SHA-256.
func TestPKCS11Tool(t *testing.T) {
	skipping := " -- mechanism can't be used to decrypt, skipping\n"
	for _, test := range []struct {
		key    string
		needed string // of the output, so that it shows something
		differ []replacement
	}{
		{"sign", "    RSA-PKCS: OK\n    SHA1-RSA-PKCS: OK\n", append(noRandom, replacement{"No errors\n", "1 errors\n", "the client takes a buffer of no bytes for NULL"})},
		{"decrypt", "    RSA-PKCS: OK\n    RSA-PKCS-OAEP:", append(noRandom, replacement{
			strings.Repeat(skipping, 11), strings.Repeat(skipping, 3), "the client leaves out mechanisms that it refuses",
		})},
	} {
		t.Run(test.key, func(t *testing.T) {
			s := stage.New(t, stage.Options{})
			direct := stage.Direct(s.HSM)
			makeKey(t, direct, test.key)
			want := testToken(t, direct)
			if !strings.Contains(want, test.needed) {
				t.Fatalf("directly:\n%s", want)
			}
			ways := []stage.PKCS11{s.Broker()}
			if otherClient() {
				test.differ = nil // it carries all of this
			} else {
				ways = append(ways, stage.P11KitServer(t, s.HSM))
			}
			for _, r := range test.differ {
				if !strings.Contains(want, r.direct) {
					t.Errorf("directly there is no %q, as is listed", r.direct)
				}
				want = strings.ReplaceAll(want, r.direct, r.client)
			}
			for _, way := range ways {
				if got := testToken(t, way); got != want {
					t.Errorf("%s:\n%s\nwant:\n%s", way.Name, got, want)
				}
			}
		})
	}
}

// makeKey makes an RSA key that is for one thing alone, of which it has the label.
func makeKey(t *testing.T, way stage.PKCS11, mark string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "p11tool", "--provider", way.Module, "--login", "--generate-privkey", "rsa", "--bits", "2048",
		"--mark-"+mark, "--label", mark, "pkcs11:token="+way.Token)
	cmd.Env = append(way.Environ(), "GNUTLS_PIN="+way.PIN)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// testToken returns what pkcs11-tool says of a token, and how it ends.
func testToken(t *testing.T, way stage.PKCS11) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "pkcs11-tool", "--module", way.Module, "--token-label", way.Token, "--login", "--pin", way.PIN, "--test")
	cmd.Env = append(way.Environ(), "LC_ALL=C")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return stdout.String() + "standard error:\n" + stderr.String() + cmd.ProcessState.String() + "\n"
}
