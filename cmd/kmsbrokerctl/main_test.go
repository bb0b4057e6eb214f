package main

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts in testdata run this test binary as kmsbrokerctl.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kmsbrokerctl": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"status": status,
		},
	})
}

// status STATUS COMMAND ARG... runs a command and checks its exit status.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status STATUS COMMAND [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	if err != nil {
		code = err.Error()[len("exit status "):]
	}
	if code != args[0] {
		ts.Fatalf("exit status %s, want %s", code, args[0])
	}
}

// TestFilesAreWrittenWhole: a file that cannot be finished leaves nothing.
func TestFilesAreWrittenWhole(t *testing.T) {
	dir := t.TempDir()
	c := &ctl{}
	path := dir + "/out"
	if err := c.write(path, []byte("secret")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Mkdir(dir+"/busy", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/busy/x", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.write(dir+"/busy", []byte("secret")); err == nil {
		t.Error("a directory was overwritten")
	}
	if out, err := replacing(dir+"/busy", 0o600); err != nil || out.whole(strings.NewReader("secret")) == nil {
		t.Errorf("a directory was replaced, %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestWhatIsThereStaysWhatItIs: a link is followed, a FIFO is written to, a mode
// is kept.
func TestWhatIsThereStaysWhatItIs(t *testing.T) {
	dir := t.TempDir()
	c := &ctl{}
	if err := os.WriteFile(dir+"/file", []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir+"/file", 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := c.write(dir+"/link", []byte("new")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(dir + "/link"); err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link became %v, %v", info.Mode(), err)
	}
	info, err := os.Stat(dir + "/file")
	content, readErr := os.ReadFile(dir + "/file")
	if err != nil || readErr != nil || string(content) != "new" || info.Mode().Perm() != 0o640 {
		t.Errorf("the file has %q, mode %v", content, info.Mode())
	}
	if err := syscall.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan []byte)
	go func() {
		content, _ := os.ReadFile(dir + "/fifo")
		got <- content
	}()
	if err := c.write(dir+"/fifo", []byte("through")); err != nil {
		t.Fatal(err)
	}
	if content := <-got; string(content) != "through" {
		t.Errorf("the FIFO's reader got %q", content)
	}
	if info, err := os.Lstat(dir + "/fifo"); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("the FIFO became %v, %v", info.Mode(), err)
	}
}
