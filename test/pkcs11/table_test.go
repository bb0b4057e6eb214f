package pkcs11

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki/rpc"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// table is every function of PKCS#11 2.40. Each chapter begins without a session and
// leaves nothing behind.
var table = []struct {
	name  string
	steps func(*script)
}{
	{"general", general},
	{"mechanisms", mechanisms},
	{"sessions", sessions},
	{"login", login},
	{"objects", objects},
	{"token objects", tokenObjects},
	{"attributes", attributes},
	{"private objects", privateObjects},
	{"find", find},
	{"digest", digest},
	{"encrypt", encrypt},
	{"sign", sign},
	{"recover", recovery},
	{"elliptic curves", ellipticCurves},
	{"dual", dual},
	{"state", operationState},
	{"generate", generate},
	{"wrap", wrap},
	{"derive", derive},
	{"random", random},
	{"parameters", parameters},
	{"administration", administration},
}

// run runs the whole table.
func (s *script) run() error {
	s.chapter = "library"
	lifecycle(s)
	if err := s.findSlot(); err != nil {
		return err
	}
	for _, chapter := range table {
		s.chapter = chapter.name
		chapter.steps(s)
		s.quietly(c(cryptoki.CloseAllSessions, s.slot))
	}
	s.chapter = "library"
	s.do("the end", c(cryptoki.Finalize))
	return s.failed
}

// TestTable makes the calls of the table of SoftHSM itself, through p11-kit's server and
// through the broker, on one token. The answers are the same, but for what the lists of
// differences say.
func TestTable(t *testing.T) {
	s, keys := stage.New(t, stage.Options{}), newKeys(t)
	direct := runTable(t, stage.Direct(s.HSM), s.HSM, keys)
	everyFunction(t, direct)
	if otherClient() {
		compare(t, "the broker", direct, runTable(t, s.Broker(), s.HSM, keys), false,
			clientDiffers, refused(clientRefuses), laterDiffers, cancelDiffers, brokerDiffers)
		return
	}
	compare(t, "p11-kit's server", direct, runTable(t, stage.P11KitServer(t, s.HSM), s.HSM, keys), true, clientDiffers, refused(clientRefuses), p11KitDiffers)
	broker := s.Broker()
	compare(t, "the broker", direct, runTable(t, broker, s.HSM, keys), true, clientDiffers, clientCannotRead, refused(clientRefuses), brokerDiffers)
	for v := rpc.Version(0); v <= rpc.Latest; v++ {
		name := fmt.Sprintf("the broker to a client that carries everything, in version %d,", v)
		compare(t, name, direct, runBare(t, s.Path("run/pkcs11.sock"), v, s.HSM, keys), true, brokerDiffers, bareDiffers(v))
	}
}

// otherClient reports whether the client library is not the distribution's. Then the way
// through p11-kit's server is left out: what some releases can carry, such as
// C_DigestInit without a mechanism, ends their servers.
func otherClient() bool { return os.Getenv(stage.ClientVariable) != "" }

// everyFunction checks that the table has a step for each function.
func everyFunction(t *testing.T, results map[string]string) {
	t.Helper()
	called := map[string]bool{}
	for step := range results {
		called[functionOf(step)] = true
	}
	for f := cryptoki.Initialize; f <= cryptoki.WaitForSlotEvent; f++ {
		if !called[f.String()] {
			t.Errorf("the table has no step for %v", f)
		}
	}
	for _, f := range []string{"C_GetFunctionStatus", "C_CancelFunction"} {
		if !called[f] {
			t.Errorf("the table has no step for %s", f)
		}
	}
}

// compare finds what is different from the direct way and in no list and, if all that is
// listed has to occur, what is in a list and not different.
func compare(t *testing.T, name string, direct, results map[string]string, all bool, lists ...[]difference) {
	t.Helper()
	listed := slices.Concat(lists...)
	occurs := make([]bool, len(listed))
	steps := maps.Clone(direct)
	maps.Copy(steps, results)
	for _, step := range slices.Sorted(maps.Keys(steps)) {
		want, got := direct[step], results[step] // empty for what was not done
		if want == got {
			continue
		}
		known := false
		for i, d := range listed {
			if d.is(step, got) {
				known, occurs[i] = true, true
			}
		}
		if !known {
			t.Errorf("%s differs in %q:\n\t%s\n\tdirect: %s", name, step, got, want)
		}
	}
	for i, d := range listed {
		if all && !occurs[i] {
			t.Errorf("%s does not differ in %q with %q, as is listed", name, d.step, d.result)
		}
	}
}
