package hsmsim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// Call is one line of the call log.
type Call struct {
	Function string // C_Login
	PID      int
	Handle   uint // of the session, or the slot; 0 where there is neither
	// Answer is the return code such as 0x00000000, or "crash", "hang" or
	// "abort" when there was none at that time.
	Answer string
}

// Calls returns the calls that all processes have made so far, in the order in
// which they ended.
func (s *Sim) Calls() []Call {
	s.t.Helper()
	calls, err := s.readCalls()
	if err != nil {
		s.t.Fatalf("read the call log: %v", err)
	}
	return calls
}

func (s *Sim) readCalls() ([]Call, error) {
	content, err := os.ReadFile(s.log)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var calls []Call
	for line := range strings.Lines(string(content)) {
		call, parseErr := parseCall(line)
		if parseErr != nil {
			return nil, parseErr
		}
		calls = append(calls, call)
	}
	return calls, err
}

func parseCall(line string) (Call, error) {
	fields := strings.Fields(line)
	if len(fields) != 4 {
		return Call{}, fmt.Errorf("line %q does not have 4 fields", line)
	}
	values := make([]string, len(fields))
	for i, field := range fields {
		_, values[i], _ = strings.Cut(field, "=")
	}
	pid, err := strconv.Atoi(values[1])
	handle, handleErr := strconv.ParseUint(values[2], 10, 64)
	if err := errors.Join(err, handleErr); err != nil {
		return Call{}, fmt.Errorf("line %q: %w", line, err)
	}
	return Call{Function: fields[0], PID: pid, Handle: uint(handle), Answer: values[3]}, nil
}

// Count returns how often a function was called.
func (s *Sim) Count(function string) int {
	s.t.Helper()
	n := 0
	for _, call := range s.Calls() {
		if call.Function == function {
			n++
		}
	}
	return n
}

// Await waits until a call of function has this answer, such as "hang", which
// says that a call is inside the library.
func (s *Sim) Await(ctx context.Context, function, answer string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		calls, err := s.readCalls()
		if err != nil {
			return err
		}
		for _, call := range calls {
			if call.Function == function && call.Answer == answer {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("no call of %s answered %s: %w", function, answer, context.Cause(ctx))
		}
	}
}
