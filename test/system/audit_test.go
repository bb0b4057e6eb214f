package system

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

// trailSummary is the JSON of `audit verify`.
type trailSummary struct {
	Records uint64 `json:"records"`
	Head    string `json:"head"`
	Begin   string `json:"begin"`
	Gaps    int    `json:"gaps"`
}

func auditCtl(s *stage.Stage, args ...string) stage.Result {
	return s.Ctl("/nowhere", append([]string{"audit", "--dir", s.Path("state/audit")}, args...)...)
}

// shownHead is the head that status shows, as --anchor takes it.
func shownHead(s *stage.Stage) string {
	var status struct {
		Audit struct {
			Records json.Number `json:"records"`
			Head    string      `json:"head"`
		} `json:"audit"`
	}
	s.Must(s.Ctl(s.Control(), "-o", "json", "status"), &status)
	return fmt.Sprintf("%s:%s", status.Audit.Records, status.Audit.Head)
}

// TestAuditOffline verifies, reads and searches a trail without the daemon, and
// names the record that was changed.
func TestAuditOffline(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	s.Import("app-1")
	anchor := shownHead(s)
	sealed := s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1")
	s.Must(sealed, nil)
	daemon.Kill() // at once: the encryption may be lost, the import is not
	var summary trailSummary
	s.Must(auditCtl(s, "-o", "json", "verify", "--anchor", anchor), &summary)
	if summary.Gaps != 0 || summary.Begin[:2] != "1:" {
		t.Errorf("summary %+v", summary)
	}

	daemon = s.Start()
	s.Must(s.CtlInput([]byte(sealed.Stdout), s.Application(), "decrypt"), nil)
	daemon.Stop()
	s.Must(auditCtl(s, "-o", "json", "verify", "--anchor", summary.Begin, "--anchor", anchor), &summary)
	if !strings.Contains(daemon.Log.String(), summary.Head) {
		t.Errorf("the journal lacks the head %s", summary.Head)
	}
	found := auditCtl(s, "search", "--key", "app-1", "--action", "decrypt", "--uid", fmt.Sprint(os.Getuid()), "--since", "1h")
	s.Must(found, nil)
	if strings.Count(found.Stdout, "\n") != 1 || !strings.Contains(found.Stdout, "decrypt done") {
		t.Errorf("found:\n%s", found.Stdout)
	}
	last := auditCtl(s, "-o", "json", "tail", "-n", "1")
	var record struct {
		Action string `json:"action"`
	}
	s.Must(last, &record)
	if record.Action != "daemon.stop" {
		t.Errorf("the last record is %s", last.Stdout)
	}

	const segment = "state/audit/audit-00000000000000000001.log"
	trail := s.Read(segment)
	lines := strings.Split(trail, "\n")
	for i, line := range lines {
		if strings.Contains(line, `"action":"key.export"`) {
			lines[i] = strings.Replace(line, `"uid":`, `"uid":1`, 1)
			s.Write(segment, strings.Join(lines, "\n"), 0o600)
			s.Refused(auditCtl(s, "verify"), 1, fmt.Sprintf("record %d ", i+1), "was changed")
		}
	}
	s.Write(segment, trail[:strings.Index(trail, `{"seq":3,`)], 0o600)
	s.Must(auditCtl(s, "verify"), nil)
	s.Refused(auditCtl(s, "verify", "--anchor", anchor), 1, "record 3 is missing")
	s.Refused(auditCtl(s, "verify", "--anchor", "abc"), 2, "NUMBER:HASH")
}

// TestAuditTakenAway: without its trail the daemon refuses and still says how it
// is; with the trail back it goes on and records the gap.
func TestAuditTakenAway(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	s.Import("app-1")
	segment := s.Path("state/audit/audit-00000000000000000001.log")
	if err := os.Rename(segment, segment+".away"); err != nil {
		t.Fatal(err)
	}
	s.Refused(s.Ctl(s.Control(), "key", "disable", "app-1"), 1, "audit trail", "hint:")
	s.Refused(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1"), 1, "audit trail")
	status := s.Ctl(s.Control(), "status")
	s.Must(status, nil)
	if !strings.Contains(status.Stdout, "no such file") {
		t.Errorf("status:\n%s", status.Stdout)
	}
	if err := os.Rename(segment+".away", segment); err != nil {
		t.Fatal(err)
	}
	s.Must(s.Ctl(s.Control(), "key", "disable", "app-1"), nil)
	var summary trailSummary
	s.Must(auditCtl(s, "-o", "json", "verify", "--anchor", shownHead(s)), &summary)
	if summary.Gaps != 1 {
		t.Errorf("summary %+v", summary)
	}
}
