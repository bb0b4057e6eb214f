package hsmsim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Always is the count of a fault that does not wear off.
const Always = -1

// edit changes the control file. The next call in every process sees it.
func (s *Sim) edit(change func(lines []string) []string) {
	s.t.Helper()
	if err := s.tryEdit(change); err != nil {
		s.t.Fatalf("change the control file: %v", err)
	}
}

// tryEdit holds the lock under which the library counts faults down.
func (s *Sim) tryEdit(change func(lines []string) []string) error {
	lock, err := os.OpenFile(s.control+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	content, err := os.ReadFile(s.control)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	lines := change(slices.Collect(strings.Lines(string(content))))
	if err := os.WriteFile(s.control+".part", []byte(strings.Join(lines, "")), 0o600); err != nil {
		return err
	}
	return os.Rename(s.control+".part", s.control)
}

func (s *Sim) add(line string, args ...any) {
	s.t.Helper()
	s.edit(func(lines []string) []string { return append(lines, fmt.Sprintf(line, args...)+"\n") })
}

func (s *Sim) remove(line string, args ...any) {
	s.t.Helper()
	s.edit(func(lines []string) []string { return without(lines, fmt.Sprintf(line, args...)) })
}

// without drops the lines that begin with a prefix.
func without(lines []string, prefix string) []string {
	return slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, prefix) })
}

// number adds to a line `key = number`.
func number(lines []string, key string, change func(uint64) uint64) []string {
	var old uint64
	for _, line := range lines {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+" = "); ok {
			old, _ = strconv.ParseUint(value, 10, 64)
		}
	}
	return append(without(lines, key+" ="), fmt.Sprintf("%s = %d\n", key, change(old)))
}

func counted(count int) string {
	if count == Always {
		return "always"
	}
	return strconv.Itoa(count)
}

// LinkDown cuts the link between client and device. It also counts a drop, so
// that a process which makes no call until LinkUp has lost its sessions too.
func (s *Sim) LinkDown() {
	s.t.Helper()
	s.edit(func(lines []string) []string {
		lines = number(lines, "drops", func(n uint64) uint64 { return n + 1 })
		return append(without(lines, "link ="), "link = down\n")
	})
}

// LinkUp restores the link. Processes that used it stay cut off until they have
// called C_Finalize and C_Initialize.
func (s *Sim) LinkUp() {
	s.t.Helper()
	s.remove("link =")
}

// IdleDrop makes the next call of function find that the device dropped the
// connection because it was idle: it blocks, then answers 0x190, and the library
// is useless until it is initialised again.
func (s *Sim) IdleDrop(function string) {
	s.t.Helper()
	s.add("idle_drop = %s", function)
}

// Lose lets the next count calls of function do their work and answer code.
func (s *Sim) Lose(function string, code uint, count int) {
	s.t.Helper()
	s.add("lose = %s 0x%X %s", function, code, counted(count))
}

// Inject makes the next count calls of function, or of any when it is "*",
// answer code and do nothing.
func (s *Sim) Inject(function string, code uint, count int) {
	s.t.Helper()
	s.add("inject = %s 0x%X %s", function, code, counted(count))
}

// Crash ends with SIGSEGV the process that next calls function.
func (s *Sim) Crash(function string) {
	s.t.Helper()
	s.add("crash = %s", function)
}

// Hang blocks calls of function until Unhang.
func (s *Sim) Hang(function string) {
	s.t.Helper()
	s.add("hang = %s", function)
}

// Unhang lets blocked calls go on.
func (s *Sim) Unhang(function string) {
	s.t.Helper()
	s.remove("hang = %s\n", function)
}

// Slow makes every call that reaches the device take longer, in steps of a
// millisecond; 0 ends that.
func (s *Sim) Slow(by time.Duration) {
	s.t.Helper()
	s.edit(func(lines []string) []string {
		return append(without(lines, "slow ="), fmt.Sprintf("slow = %d\n", by.Milliseconds()))
	})
}

// JWTExpired makes the next call fetch a new token first (dpod).
func (s *Sim) JWTExpired() {
	s.t.Helper()
	s.add("jwt = expired")
}

// IdentityOffline takes the service away that issues tokens, after the present
// one has expired (dpod).
func (s *Sim) IdentityOffline() {
	s.t.Helper()
	s.add("jwt = offline")
}

// IdentityOnline brings it back; processes recover when they initialise again.
func (s *Sim) IdentityOnline() {
	s.t.Helper()
	s.remove("jwt =")
}

// MemberDown takes a member of the HA group away, counted from 1. Without any
// member left the group is gone as with LinkDown.
func (s *Sim) MemberDown(member int) {
	s.t.Helper()
	s.edit(func(lines []string) []string {
		return number(lines, "members_down", func(down uint64) uint64 { return down | 1<<(member-1) })
	})
}

// MemberUp brings a member back.
func (s *Sim) MemberUp(member int) {
	s.t.Helper()
	s.edit(func(lines []string) []string {
		return number(lines, "members_down", func(down uint64) uint64 { return down &^ (1 << (member - 1)) })
	})
}

// Hide makes a partition invisible to slot lists until Show, as if it had not
// been created yet.
func (s *Sim) Hide(label string) {
	s.t.Helper()
	s.add("hidden = %s", label)
}

// Show lets a hidden partition appear in the next slot list.
func (s *Sim) Show(label string) {
	s.t.Helper()
	s.remove("hidden = %s\n", label)
}

// Delete removes a partition from the device; its slot stays listed.
func (s *Sim) Delete(label string) {
	s.t.Helper()
	s.add("deleted = %s", label)
}

// Reset ends everything that is wrong with the device. Drops of the link that
// happened stay happened.
func (s *Sim) Reset() {
	s.t.Helper()
	s.edit(func(lines []string) []string {
		return slices.DeleteFunc(lines, func(line string) bool { return !strings.HasPrefix(line, "drops =") })
	})
}

// Pending reports whether a fault is still in the control file, where each is a
// line such as "crash = C_WrapKey".
func (s *Sim) Pending(prefix string) bool {
	s.t.Helper()
	content, err := os.ReadFile(s.control)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}
