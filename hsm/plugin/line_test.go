package plugin

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestLine(t *testing.T) {
	listener, err := net.Listen("unix", filepath.Join(socketDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ours, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLine(ours)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write([]byte("to")); err != nil {
		t.Fatal(err)
	}
	there := make([]byte, 2)
	if _, err := io.ReadFull(theirs, there); err != nil || string(there) != "to" {
		t.Errorf("%s, %v", there, err)
	}

	// It waits no shorter than a second, and no longer than it was told.
	if err := l.SetDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Read(there); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nothing to read: %v", err)
	}
	if err := l.SetDeadline(time.Time{}); err != nil || l.timeout != 0 {
		t.Errorf("no deadline: %v, %v", l.timeout, err)
	}
	go func() {
		if _, err := theirs.Write([]byte("fro")); err != nil {
			t.Error(err)
		}
		theirs.Close()
	}()
	if all, err := io.ReadAll(l.file); err != nil || string(all) != "fro" {
		t.Errorf("%s, %v", all, err)
	}
	if _, err := l.Write([]byte("late")); err == nil {
		t.Error("written to nobody")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
