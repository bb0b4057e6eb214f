package system

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

// explanation is what policy explain says.
type explanation struct {
	Allowed    bool   `json:"allowed"`
	Grant      int    `json:"grant"`
	At         string `json:"at"`
	Considered []struct {
		Misses string `json:"misses"`
	} `json:"considered"`
}

// TestReloadPolicy: grants change without a restart, all at once or not at all.
func TestReloadPolicy(t *testing.T) {
	s := stage.New(t, stage.Options{})
	config := s.Read("kmsbrokerd.toml")
	daemon := s.Start()
	s.Import("vault")
	uid := strconv.Itoa(os.Getuid())
	encrypt := func() stage.Result {
		return s.CtlInput([]byte("secret"), s.Application(), "encrypt", "--key", "vault", "--context", "tenant=u"+uid)
	}
	explain := func(args ...string) (e explanation) {
		t.Helper()
		s.Must(s.Ctl(s.Control(), append([]string{"-o", "json", "policy", "explain", "--user", uid, "--key", "vault", "--op", "encrypt"}, args...)...), &e)
		return e
	}
	s.Refused(encrypt(), 4, "no grant lets uid "+uid)
	if e := explain(); e.Allowed || e.Grant != 0 {
		t.Errorf("before: %+v", e)
	}

	grant := fmt.Sprintf("\n[[grant]]\nkeys = [\"vault\"]\noperations = [\"encrypt\"]\nusers = [%s]\ncontext = { tenant = \"u{uid}\" }\nrate = \"2/h\"\n", uid)
	s.Write("kmsbrokerd.toml", config+grant, 0o600)
	s.Refused(encrypt(), 4, "no grant lets") // until it is told
	var reloaded struct {
		Grants  int      `json:"grants"`
		Restart []string `json:"restart"`
	}
	s.Must(s.Ctl(s.Control(), "-o", "json", "policy", "reload"), &reloaded)
	if len(reloaded.Restart) != 0 {
		t.Errorf("%v need a restart", reloaded.Restart)
	}
	s.Must(encrypt(), nil)
	line := 1 + strings.Count(config, "\n") + 1
	if e := explain("--context", "tenant=u"+uid); !e.Allowed || e.Grant != reloaded.Grants || e.At != fmt.Sprintf("%s:%d", s.Config(), line) {
		t.Errorf("allowed: %+v", e)
	}
	if e := explain("--context", "tenant=other"); e.Allowed || e.Considered[reloaded.Grants-1].Misses != "context entry tenant" {
		t.Errorf("another's context: %+v", e)
	}
	s.Must(encrypt(), nil)
	s.Refused(encrypt(), 1, "2/h of grant "+strconv.Itoa(reloaded.Grants))

	// A file with a mistake leaves what there was.
	s.Write("kmsbrokerd.toml", config+strings.Replace(grant, "users", "usres", 1), 0o600)
	s.Refused(s.Ctl(s.Control(), "policy", "reload"), 1, "the old policy stays", "usres", "did you mean \"users\"?")
	if e := explain("--context", "tenant=u"+uid); !e.Allowed {
		t.Errorf("after a bad file: %+v", e)
	}

	// SIGHUP does the same, and what cannot change is named.
	s.Write("kmsbrokerd.toml", "log_level = \"debug\"\n"+config+strings.Replace(grant, "users", "effect = \"deny\"\nusers", 1), 0o600)
	s.Write("kmsbrokerd.toml", strings.Replace(s.Read("kmsbrokerd.toml"), "rate = \"2/h\"\n", "", 1), 0o600)
	if err := syscall.Kill(daemon.PID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := daemon.Wait("settings differ that need a restart"); err != nil {
		t.Fatal(err)
	}
	s.Refused(encrypt(), 4, "grant "+strconv.Itoa(reloaded.Grants)+" denies")
	daemon.Stop()
	if trail := s.AuditTrail(); strings.Count(trail, `"action":"policy.reload"`) != 3 {
		t.Errorf("three reloads are not in the audit trail:\n%s", trail)
	}
}

// TestExplainObject: grants on the objects of tokens are read again with the others,
// and explained.
func TestExplainObject(t *testing.T) {
	s := stage.New(t, stage.Options{})
	config := s.Read("kmsbrokerd.toml")
	s.Start()
	hashed := s.CtlInput([]byte("4711"), s.Control(), "policy", "hash-pin")
	s.Must(hashed, nil)
	s.Write("kmsbrokerd.toml", config+"\n[[pkcs11]]\ntokens = [\"*\"]\nlabels = [\"tls-*\"]\noperations = [\"sign\"]\nusers = [7]\n"+
		"[[pkcs11]]\ntokens = [\"*\"]\nids = [\"01*\"]\noperations = [\"decrypt\"]\nusers = [7]\n"+hashed.Stdout, 0o600)
	var reloaded struct {
		Grants int `json:"pkcs11_grants"`
	}
	if s.Must(s.Ctl(s.Control(), "-o", "json", "policy", "reload"), &reloaded); reloaded.Grants != 2 {
		t.Errorf("%d grants", reloaded.Grants)
	}
	explain := func(op string) (e struct {
		explanation
		Reason string `json:"reason"`
		PIN    bool   `json:"pin"`
	},
	) {
		t.Helper()
		s.Must(s.Ctl(s.Control(), "-o", "json", "policy", "explain", "--user", "7", "--token", "hsm", "--label", "tls-a/b", "--id", "01ab", "--op", op), &e)
		return e
	}
	line := 1 + strings.Count(config, "\n") + 1
	if e := explain("sign"); !e.Allowed || e.PIN || e.At != fmt.Sprintf("%s:%d", s.Config(), line) || e.Considered[1].Misses != "operation" {
		t.Errorf("by label: %+v", e)
	}
	if e := explain("decrypt"); !e.Allowed || !e.PIN || e.Grant != 2 || !strings.Contains(e.Reason, "application PIN") {
		t.Errorf("by id: %+v", e)
	}
	if e := explain("destroy"); e.Allowed || e.Reason != "no pkcs11 grant allows it" {
		t.Errorf("by nothing: %+v", e)
	}
	s.Refused(s.Ctl(s.Control(), "policy", "explain", "--user", "7", "--token", "hsm", "--op", "sing"), 1, "no operation")
}
