package audit

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// victimVariable makes the test binary a process that writes a trail in a
// directory until it is killed.
const victimVariable = "KMSBROKER_AUDIT_VICTIM"

// fileRegistry keeps a head in a file, which survives the process.
type fileRegistry string

func (f fileRegistry) AuditHead() (Head, error) {
	text, err := os.ReadFile(string(f))
	if err != nil {
		return Head{}, nil //nolint:nilerr // there is none yet
	}
	return ParseHead(string(text))
}

func (f fileRegistry) SetAuditHead(h Head) error {
	if err := writeFile(string(f)+".new", []byte(h.String())); err != nil {
		return err
	}
	return os.Rename(string(f)+".new", string(f))
}

func victimOptions(dir string) Options {
	o := options(filepath.Join(dir, "audit"))
	o.Registry, o.SegmentSize, o.Logger = fileRegistry(filepath.Join(dir, "head")), 4000, slog.New(slog.DiscardHandler)
	return o
}

// victim writes from many goroutines and prints the key of each administrative
// record that was acknowledged.
func victim(dir string) {
	l, err := Open(victimOptions(dir))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for i := range 8 {
		go func() { // until the end of the process
			for n := 0; ; n++ {
				e := event(n)
				e.Key = fmt.Sprintf("%d-%d-%d", os.Getpid(), i, n)
				e.Application = n%8 != 0 // the others wait for the disk
				if err := l.Append(context.Background(), e); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				if !e.Application {
					fmt.Println(e.Key) // one write
				}
			}
		}()
	}
	select {}
}

// TestKilled kills a process that writes, again and again, at any moment. The trail
// verifies and has every administrative record that was acknowledged.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	var acknowledged []string
	for round := range 12 {
		acknowledged = append(acknowledged, killOne(t, dir)...)
		l := open(t, victimOptions(dir))
		s := mustVerify(t, l)
		closed(t, l)
		found := map[string]bool{}
		err := Search(l.Dir, Filter{}, func(e Entry) error {
			if found[e.Key] = true; e.Reason != "" {
				t.Errorf("round %d: the trail began anew: %s", round, e.Line)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range acknowledged {
			if !found[key] {
				t.Fatalf("round %d: record %s is lost of %d", round, key, len(acknowledged))
			}
		}
		if round == 11 && s.Segments < 12 {
			t.Errorf("%d segments: nothing was killed in a rotation", s.Segments)
		}
	}
}

func killOne(t *testing.T, dir string) (acknowledged []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimVariable+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	enough := 1 + rand.IntN(200)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break
		}
		if acknowledged = append(acknowledged, strings.TrimSuffix(line, "\n")); len(acknowledged) == enough {
			time.AfterFunc(time.Duration(rand.IntN(5000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
		}
	}
	_ = cmd.Wait()
	return acknowledged
}
