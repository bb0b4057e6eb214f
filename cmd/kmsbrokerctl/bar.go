package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	barWidth = 30
	// barAfter is how long something has to take for there to be a bar, and barEvery
	// how often it is drawn.
	barAfter = 500 * time.Millisecond
	barEvery = 100 * time.Millisecond
)

// bar shows on a terminal how far a stream is, and elsewhere nothing.
type bar struct {
	w     io.Writer // nil: nobody looks
	size  int64     // 0 if it is not known
	done  int64
	began time.Time
	next  time.Time // to draw
	drawn bool
}

func newBar(w io.Writer, size int64) *bar {
	if !isTerminal(w) {
		w = nil
	}
	now := time.Now()
	return &bar{w: w, size: size, began: now, next: now.Add(barAfter)}
}

// reader counts what is read of src.
func (b *bar) reader(src io.Reader) io.Reader {
	if b.w == nil {
		return src
	}
	return &barReader{src, b}
}

type barReader struct {
	src io.Reader
	bar *bar
}

// Read implements io.Reader.
func (r *barReader) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	r.bar.add(n, time.Now())
	return n, err
}

func (b *bar) add(n int, now time.Time) {
	b.done += int64(n)
	if now.Before(b.next) {
		return
	}
	b.next = now.Add(barEvery)
	fmt.Fprintf(b.w, "\r\x1b[K%s", b.line(now))
	b.drawn = true
}

// line is such as "[=====>     ]  42%  430.1 MiB of 1.0 GiB  612.3 MiB/s  1s left".
func (b *bar) line(now time.Time) string {
	speed := float64(b.done) / max(now.Sub(b.began).Seconds(), 0.001)
	if b.size <= 0 {
		return fmt.Sprintf("%s  %s/s", inBytes(b.done), inBytes(int64(speed)))
	}
	// A file may grow while it is read.
	part := min(float64(b.done)/float64(b.size), 1)
	full := int(part * barWidth)
	left := "?"
	if b.done > 0 {
		left = time.Duration(float64(max(b.size-b.done, 0)) / speed * float64(time.Second)).Round(time.Second).String()
	}
	return fmt.Sprintf("[%s%s] %3.0f%%  %s of %s  %s/s  %s left", strings.Repeat("=", full), strings.Repeat(" ", barWidth-full),
		100*part, inBytes(b.done), inBytes(b.size), inBytes(int64(speed)), left)
}

// end takes the bar away.
func (b *bar) end() {
	if b.drawn {
		fmt.Fprint(b.w, "\r\x1b[K")
	}
}
