package system

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestBackup makes a backup of a daemon at work, loses all that it remembered, and goes
// on with the backup.
func TestBackup(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	s.Import("app-1")
	sealed := s.CtlInput([]byte("kept"), s.Application(), "encrypt", "--key", "app-1")
	s.Must(sealed, nil)

	stop := keepEncrypting(t, newClient(t, s), "app-1")
	made := s.Ctl(s.Control(), "backup", "--config", s.Config(), "--out", s.Path("backup"))
	s.Must(made, nil)
	stop()
	head := strings.TrimSpace(made.Stdout[strings.Index(made.Stdout, "Audit head:")+len("Audit head:"):])
	if info, err := os.Stat(s.Path("backup")); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if left, _ := filepath.Glob(s.Path("state/snapshot-*.db")); len(left) > 0 {
		t.Errorf("a copy of the registry is left: %v", left)
	}
	// What is there already keeps neither its content nor its mode.
	s.Write("backup-2", "", 0o666)
	s.Must(s.Ctl(s.Control(), "backup", "--config", s.Config(), "--out", s.Path("backup-2")), nil)
	if info, err := os.Stat(s.Path("backup-2")); err != nil || info.Mode() != 0o600 {
		t.Errorf("over a file of everybody: %v, %v", info, err)
	}
	s.Import("app-2") // which the backup does not know
	daemon.Stop()

	restore := []string{"restore", "--in", s.Path("backup"), "--state-dir", s.Path("state"), "--owner", ""}
	s.Refused(s.Ctl("", restore...), 1, "is not empty")
	if err := os.Rename(s.Path("state"), s.Path("lost")); err != nil {
		t.Fatal(err)
	}
	s.Must(s.Ctl("", append(restore, "--config", s.Path("restored.toml"))...), nil)
	if s.Read("restored.toml") != s.Read("kmsbrokerd.toml") {
		t.Error("another configuration came back")
	}
	s.Must(s.Ctl("", "audit", "verify", "--dir", s.Path("state/audit"), "--anchor", head), nil)

	daemon = s.Start()
	opened := s.CtlInput([]byte(sealed.Stdout), s.Application(), "decrypt")
	if s.Must(opened, nil); opened.Stdout != "kept" {
		t.Errorf("%q came back", opened.Stdout)
	}
	s.Refused(s.Ctl(s.Control(), "key", "show", "app-2"), 5, "app-2")
	daemon.Stop()
	// The trail says that it was restored: nobody vouches for the epoch that began then.
	s.Refused(s.Ctl("", "audit", "verify", "--dir", s.Path("state/audit")), 1, "EPOCH_KEY_LOST")
}
