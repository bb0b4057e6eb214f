package stage

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm/pkcs11/softhsmtest"
)

// PKCS11 is a way for an application to reach a token.
type PKCS11 struct {
	Name   string
	Module string   // the library that the application loads
	Env    []string // what that library reads
	Token  string   // the token's label
	PIN    string   // that C_Login is given

	Daemon *Daemon // of the broker
	server int     // a process, 0 for none
}

// Direct loads SoftHSM into the application.
func Direct(f *softhsmtest.Fixture) PKCS11 {
	return PKCS11{Name: "direct", Module: f.Library, Env: []string{f.Env()}, Token: f.Label, PIN: f.PIN}
}

// P11KitServer starts p11-kit's own server on the token. It is ended with the test.
func P11KitServer(t testing.TB, f *softhsmtest.Fixture) PKCS11 {
	t.Helper()
	dir, err := os.MkdirTemp("", "kb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "p11-kit.sock")
	cmd := exec.Command("p11-kit", "server", "-f", "-n", socket, "--provider", f.Library, "pkcs11:token="+f.Label)
	cmd.Env = append(os.Environ(), f.Env())
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// With the processes that it forked for its clients.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	// It says where it is when it listens.
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("p11-kit server: %v %s", err, line)
	}
	return PKCS11{
		Name: "p11-kit", Module: P11KitClient(t), Env: []string{"P11_KIT_SERVER_ADDRESS=unix:path=" + socket},
		Token: f.Label, PIN: f.PIN, server: cmd.Process.Pid,
	}
}

// Broker starts the daemon and lets the present user do everything with the objects of
// its token.
func (s *Stage) Broker() PKCS11 {
	s.t.Helper()
	s.Write("kmsbrokerd.toml", s.Read("kmsbrokerd.toml")+fmt.Sprintf(`
[[pkcs11]]
tokens     = ["hsm"]
labels     = ["*"]
operations = ["sign", "verify", "encrypt", "decrypt", "wrap", "export", "unwrap", "derive", "digest-key", "generate",
              "create", "copy", "modify", "destroy", "random", "digest"]
users      = [%d]
`, os.Getuid()), 0o644)
	d := s.Start()
	return PKCS11{
		Name: "broker", Module: P11KitClient(s.t), Env: []string{"P11_KIT_SERVER_ADDRESS=unix:path=" + s.Path("run/pkcs11.sock")},
		Token: s.HSM.Label, PIN: "0000", Daemon: d, server: d.PID(), // any PIN will do
	}
}

// ClientVariable is an environment variable that names another p11-kit-client.so than
// the distribution's.
const ClientVariable = "KMSBROKER_P11_KIT_CLIENT"

// P11KitClient is the library with which applications reach a socket, as
// distributions have it.
func P11KitClient(t testing.TB) string {
	t.Helper()
	if path := os.Getenv(ClientVariable); path != "" {
		return path
	}
	found, _ := filepath.Glob("/usr/lib/*/pkcs11/p11-kit-client.so")
	if len(found) == 0 {
		t.Fatal("p11-kit-client.so is not installed (Debian package p11-kit-modules)")
	}
	return found[0]
}

// Environ is the environment of a process that uses the token.
func (p PKCS11) Environ() []string {
	return append(os.Environ(), p.Env...)
}

// Processes are those that serve the token, with all their children.
func (p PKCS11) Processes(t testing.TB) []int {
	t.Helper()
	if p.server == 0 {
		return nil
	}
	return descendants(t, p.server)
}

func descendants(t testing.TB, pid int) []int {
	t.Helper()
	all := []int{pid}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		children, err := os.ReadFile(list)
		if err != nil {
			continue // a thread that ended
		}
		for child := range strings.FieldsSeq(string(children)) {
			n, err := strconv.Atoi(child)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, descendants(t, n)...)
		}
	}
	return all
}

// Memory is how much memory processes take, with what they share counted once.
func Memory(t testing.TB, processes []int) (bytes int64) {
	t.Helper()
	for _, pid := range processes {
		rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(rollup)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				bytes += kib << 10
			}
		}
	}
	return bytes
}
