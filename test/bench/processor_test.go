package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// processorTime is what a process has used until now, in ticks of 10 ms (proc(5),
// stat).
func processorTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	content := read(b, fmt.Sprintf("/proc/%d/stat", pid))
	const user, system, tick = 11, 12, 10 * time.Millisecond // counted after the name
	fields := strings.Fields(content[strings.LastIndexByte(content, ')')+2:])
	return time.Duration(number(b, fields[user])+number(b, fields[system])) * tick
}

// processors is what all processors together did until now, in ticks (proc(5),
// /proc/stat).
type processors struct{ idle, all int64 }

func readProcessors(b *testing.B) processors {
	b.Helper()
	first, _, _ := strings.Cut(read(b, "/proc/stat"), "\n")
	const idle, wait = 3, 4 // counted after the name
	var p processors
	for i, field := range strings.Fields(first)[1:] {
		n := number(b, field)
		if p.all += n; i == idle || i == wait {
			p.idle += n
		}
	}
	return p
}

// busySince is the part of the time in which they were not idle.
func (p processors) busySince(before processors) float64 {
	return 1 - float64(p.idle-before.idle)/float64(p.all-before.all)
}

func read(b *testing.B, path string) string {
	b.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	return string(content)
}

func number(b *testing.B, text string) int64 {
	b.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}
