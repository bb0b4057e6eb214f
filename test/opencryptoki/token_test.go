//go:build root

package opencryptoki

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11"
)

// The token of these tests. opencryptoki wants PINs of 4 to 8 characters.
const (
	tokenLabel = "kmsbroker-test"
	soPIN      = "76543210"
	userPIN    = "12345678"
	wrongPIN   = "99999999"

	// initialSOPIN is what opencryptoki gives each new token, to be changed.
	initialSOPIN = "87654321"
)

// device is the machine's one software token.
type device struct {
	t       *testing.T
	library string
}

// newDevice makes the software token anew.
func newDevice(t *testing.T) *device {
	t.Helper()
	libraries, err := filepath.Glob("/usr/lib/*/pkcs11/libopencryptoki.so")
	if err != nil || len(libraries) == 0 {
		t.Fatalf("opencryptoki is not where Debian installs it: %v", err)
	}
	if err := clearToken(); err != nil {
		t.Fatal(err)
	}
	d := &device{t: t, library: libraries[0]}
	d.pkcsconf(tokenLabel+"\n", "-I", "-S", initialSOPIN)
	d.pkcsconf("", "-P", "-S", initialSOPIN, "-n", soPIN)
	d.unlock()
	return d
}

// unlock sets the user's PIN as the security officer, which ends a lock.
func (d *device) unlock() {
	d.t.Helper()
	d.pkcsconf("", "-u", "-S", soPIN, "-n", userPIN)
}

func (d *device) pkcsconf(input string, args ...string) {
	d.t.Helper()
	slot, err := softSlot()
	if err != nil {
		d.t.Fatal(err)
	}
	cmd := exec.Command("pkcsconf", append(args, "-c", slot.number)...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("pkcsconf %s: %v\n%s", args[0], err, out)
	}
}

// wantCount checks what the device itself says of wrong PINs: 0 for none, then
// CKF_USER_PIN_COUNT_LOW after the first, CKF_USER_PIN_FINAL_TRY after the second
// and CKF_USER_PIN_LOCKED after the third.
func (d *device) wantCount(want uint) {
	d.t.Helper()
	slot, err := softSlot()
	if err != nil {
		d.t.Fatal(err)
	}
	const all = p11.CKF_USER_PIN_COUNT_LOW | p11.CKF_USER_PIN_FINAL_TRY | p11.CKF_USER_PIN_LOCKED
	if got := slot.flags & all; got != want {
		d.t.Errorf("the device's flags say %#x of wrong PINs, want %#x", got, want)
	}
}

// config opens the token with the engine, as any other token.
func (d *device) config(pin string) pkcs11.Config {
	return pkcs11.Config{
		Library: d.library, TokenLabel: tokenLabel, PIN: hsm.PIN([]byte(pin)),
		Logger: slog.New(slog.NewTextHandler(d.t.Output(), nil)),
	}
}

func (d *device) open(config pkcs11.Config) *pkcs11.Token {
	d.t.Helper()
	token, err := pkcs11.Open(d.t.Context(), config)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if err := token.Close(context.Background()); err != nil {
			d.t.Errorf("Close: %v", err)
		}
	})
	return token
}

// slot is the software token's slot, as pkcsconf shows it.
type slot struct {
	number string
	label  string
	flags  uint // of CK_TOKEN_INFO
}

var slotText = regexp.MustCompile(`(?m)^Token #(\d+) Info:\n` +
	`\s+Label: (.*)\n\s+Manufacturer: .*\n\s+Model: .*Soft.*\n\s+Serial Number: .*\n\s+Flags: 0x([0-9A-F]+) `)

func softSlot() (slot, error) {
	out, err := exec.Command("pkcsconf", "-t").CombinedOutput()
	if err != nil {
		return slot{}, fmt.Errorf("pkcsconf -t: %w: %s", err, out)
	}
	match := slotText.FindSubmatch(out)
	if match == nil {
		return slot{}, fmt.Errorf("pkcsconf -t shows no software token:\n%s", out)
	}
	flags, err := strconv.ParseUint(string(match[3]), 16, 64)
	if err != nil {
		return slot{}, fmt.Errorf("pkcsconf -t: flags of the software token: %w", err)
	}
	return slot{number: string(match[1]), label: strings.TrimSpace(string(match[2])), flags: uint(flags)}, nil
}

// clearToken makes the software token as a fresh installation has it. To
// initialise it once more is no way: opencryptoki 3.8.1 then keeps its master key
// under a PIN that the token does not have any more. A token that somebody else
// uses is not touched.
func clearToken() error {
	const dir = "/var/lib/opencryptoki/swtok"
	slot, err := softSlot()
	if err != nil {
		return err
	}
	if slot.flags&p11.CKF_TOKEN_INITIALIZED != 0 && slot.label != tokenLabel {
		return fmt.Errorf("opencryptoki's software token is in use, with the label %q: these tests would erase it. Remove it yourself (%s)", slot.label, dir)
	}
	objects, err := filepath.Glob(filepath.Join(dir, "TOK_OBJ", "*"))
	if err != nil {
		return err
	}
	for _, name := range []string{"NVTOK.DAT", "MK_SO", "MK_USER"} {
		objects = append(objects, filepath.Join(dir, name))
	}
	for _, path := range append(objects, "/dev/shm/var.lib.opencryptoki.swtok") {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
