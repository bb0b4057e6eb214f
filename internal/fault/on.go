//go:build faults

package fault

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// The environment of a build with the tag "faults".
const (
	// TraceVariable names a file to which each point that is passed is appended,
	// one "name#n" a line, where n counts the passes of that name from 1.
	TraceVariable = "KMSBROKER_FAULT_TRACE"
	// KillVariable is the "name#n" at which the process kills itself.
	KillVariable = "KMSBROKER_FAULT_KILL"
)

var (
	mu     sync.Mutex
	passed = map[string]int{}
)

// Point kills the process with SIGKILL if it was told to here.
func Point(name string) {
	trace, kill := os.Getenv(TraceVariable), os.Getenv(KillVariable)
	if trace == "" && kill == "" {
		return
	}
	mu.Lock()
	defer mu.Unlock()
	passed[name]++
	here := fmt.Sprintf("%s#%d", name, passed[name])
	if trace != "" {
		note(trace, here)
	}
	if here == kill {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
}

func note(path, line string) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	fmt.Fprintln(f, line)
}
