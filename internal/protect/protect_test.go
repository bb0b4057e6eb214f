package protect

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The test binary plays three parts besides its own.
const (
	partVariable = "KMSBROKER_PROTECT_TEST"
	protected    = "protected" // holds a secret and is protected
	open         = "open"      // holds a secret and is not
	thief        = "thief"     // reads the memory of another process
)

func TestMain(m *testing.M) {
	switch os.Getenv(partVariable) {
	case protected:
		if err := Process(64); err != nil {
			panic(err)
		}
		wait()
	case open:
		wait()
	case thief:
		steal(os.Args[1])
	default:
		os.Exit(m.Run())
	}
}

// wait tells that it is there, and ends with its standard input. It lets itself
// be traced as far as Yama is concerned, so that nothing but dumpability counts.
func wait() {
	_ = unix.Prctl(unix.PR_SET_PTRACER, ^uintptr(0), 0, 0, 0) // fails where there is no Yama
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// steal reads the first mapped page of a process.
func steal(pid string) {
	maps, err := os.ReadFile("/proc/" + pid + "/maps")
	if err != nil {
		fmt.Println("refused:", err)
		return
	}
	var from uint64
	if _, err := fmt.Sscanf(string(maps), "%x-", &from); err != nil {
		panic(err)
	}
	memory, err := os.Open("/proc/" + pid + "/mem")
	if err != nil {
		fmt.Println("refused:", err)
		return
	}
	page := make([]byte, 16)
	if _, err := memory.ReadAt(page, int64(from)); err != nil {
		fmt.Println("refused:", err)
		return
	}
	fmt.Println("read")
}

// TestMemory: a process of the same user reads an ordinary process's memory and
// not a protected one's.
func TestMemory(t *testing.T) {
	binary := copyForOthers(t)
	for part, want := range map[string]string{open: "read", protected: "refused"} {
		t.Run(part, func(t *testing.T) {
			out, err := as(binary, thief, fmt.Sprint(start(t, binary, part))).CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), want) {
				t.Errorf("the thief says %q, %v; want %s", out, err, want)
			}
		})
	}
}

// start starts a part that waits, and returns when it does. It ends with the test.
func start(t *testing.T, binary, part string) (pid int) {
	t.Helper()
	victim := as(binary, part)
	stdin, err := victim.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = victim.Wait() })
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("the victim said %q, %v", line, err)
	}
	return victim.Process.Pid
}

// as runs a part as a user without privileges.
func as(binary, part string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = []string{partVariable + "=" + part}
	cmd.Dir = "/"
	if os.Getuid() == 0 {
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return cmd
}

// copyForOthers puts the test binary where every user can execute it.
func copyForOthers(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "protect")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "test")
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dir, path} {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// TestLimits reads what the kernel says of a protected process.
func TestLimits(t *testing.T) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", start(t, copyForOthers(t), protected)))
	if err != nil {
		t.Fatal(err)
	}
	limits := strings.Join(strings.Fields(string(content)), " ")
	for _, want := range []string{"Max core file size 0 0 bytes", "Max open files 64 64 files"} {
		if !strings.Contains(limits, want) {
			t.Errorf("no %q in the limits:\n%s", want, content)
		}
	}
}
