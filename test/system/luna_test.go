package system

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/test/hsmsim"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestLunaDetails: what a Luna tells of itself and of its keys reaches the
// administrator.
func TestLunaDetails(t *testing.T) {
	s := stage.New(t, stage.Options{Luna: hsmsim.New(t, hsmsim.Luna)})
	s.Start()
	s.Import("app-1")
	var keys []struct{ Vendor map[string]string }
	s.Must(s.Ctl(s.Control(), "-o", "json", "backend", "keys", "hsm"), &keys)
	if len(keys) != 1 || !isHex(keys[0].Vendor["OUID"], 24) || !isHex(keys[0].Vendor["FINGERPRINT_SHA256"], 64) {
		t.Fatalf("keys: %+v", keys)
	}
	shown := s.Ctl(s.Control(), "backend", "keys", "hsm")
	for _, want := range []string{"OUID", "FINGERPRINT_SHA256", keys[0].Vendor["OUID"], keys[0].Vendor["FINGERPRINT_SHA256"]} {
		if !strings.Contains(shown.Stdout, want) {
			t.Errorf("backend keys lacks %q:\n%s", want, shown.Stdout)
		}
	}
	var backend struct {
		Token struct {
			Firmware string
			FIPS     *bool
			Policies []struct{ Number, Value int }
		}
	}
	r := s.Ctl(s.Control(), "-o", "json", "backend", "show", "hsm")
	if s.Must(r, nil); json.Unmarshal([]byte(r.Stdout), &backend) != nil {
		t.Fatal(r.Stdout)
	}
	policies := map[int]int{}
	for _, p := range backend.Token.Policies {
		policies[p.Number] = p.Value
	}
	if backend.Token.Firmware == "" || backend.Token.FIPS == nil || *backend.Token.FIPS || policies[5] != 1 {
		t.Errorf("backend: %+v", backend.Token)
	}
	shown = s.Ctl(s.Control(), "backend", "show", "hsm")
	if !strings.Contains(shown.Stdout, backend.Token.Firmware) || !row(5, "secret key wrapping", 1).MatchString(shown.Stdout) {
		t.Errorf("backend show:\n%s", shown.Stdout)
	}
}

// row is how the table of policies has one.
func row(number int, name string, value int) *regexp.Regexp {
	return regexp.MustCompile(fmt.Sprintf(`(?m)^%d +%s +%d$`, number, name, value))
}

func isHex(text string, digits int) bool {
	_, err := hex.DecodeString(text)
	return err == nil && len(text) == digits
}

// TestLunaMakesNoToken: whoever asks for one is told what makes partitions, and the
// partition that there is serves as before.
func TestLunaMakesNoToken(t *testing.T) {
	s := stage.New(t, stage.Options{Luna: hsmsim.New(t, hsmsim.Luna)})
	s.Start()
	s.Write("so-pin", "officer-4711\n", 0o600)
	s.Refused(s.Ctl(s.Control(), "backend", "init-token", "hsm", "--label", "fresh",
		"--so-pin-file", s.Path("so-pin"), "--pin-file", s.Path("pin")), 1, "lunacm")
	s.Import("app-1")
}
