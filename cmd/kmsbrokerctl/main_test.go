package main

import (
	"os"
	"testing"
	"time"

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

func TestParseExpiry(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 5, time.UTC)
	tests := []struct {
		in    string
		want  time.Time
		never bool
		bad   bool
	}{
		{in: "never", never: true},
		{in: "90d", want: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)},
		{in: "2030-01-31T00:00:00Z", want: time.Date(2030, 1, 31, 0, 0, 0, 0, time.UTC)},
		{in: "2030-01-31T01:00:00+01:00", want: time.Date(2030, 1, 31, 0, 0, 0, 0, time.UTC)},
		{in: "", bad: true},
		{in: "0d", bad: true},
		{in: "-1d", bad: true},
		{in: "d", bad: true},
		{in: "99999999999999999999d", bad: true},
		{in: "2030-01-31", bad: true},
	}
	for _, tt := range tests {
		at, never, err := parseExpiry(tt.in, now)
		if (err != nil) != tt.bad || never != tt.never {
			t.Errorf("parseExpiry(%q) = %v, %v, %v", tt.in, at, never, err)
		}
		if !tt.want.IsZero() && !at.AsTime().Equal(tt.want) {
			t.Errorf("parseExpiry(%q) = %v, want %v", tt.in, at.AsTime(), tt.want)
		}
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
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
