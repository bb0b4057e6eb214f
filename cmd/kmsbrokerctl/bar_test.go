package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestBar(t *testing.T) {
	began := time.Now()
	for _, tt := range []struct {
		size, done int64
		after      time.Duration
		want       string
	}{
		{1 << 30, 0, time.Second, "[                              ]   0%  0 B of 1.0 GiB  0 B/s  ? left"},
		{1 << 30, 1 << 29, 2 * time.Second, "[===============               ]  50%  512.0 MiB of 1.0 GiB  256.0 MiB/s  2s left"},
		{1000, 2000, time.Second, "[==============================] 100%  2.0 KiB of 1000 B  2.0 KiB/s  0s left"},
		{0, 5 << 20, time.Second, "5.0 MiB  5.0 MiB/s"},
	} {
		b := bar{size: tt.size, done: tt.done, began: began}
		if got := b.line(began.Add(tt.after)); got != tt.want {
			t.Errorf("got  %q\nwant %q", got, tt.want)
		}
	}
}

// TestBarIsDrawn now and then, not for what is quick, and leaves nothing.
func TestBarIsDrawn(t *testing.T) {
	var screen bytes.Buffer
	b := newBar(&screen, 100)
	if b.w != nil {
		t.Error("a bar where there is no terminal")
	}
	b.w = &screen
	b.add(10, b.began.Add(barAfter-1))
	b.end()
	if screen.Len() > 0 {
		t.Errorf("drawn at once: %q", screen.String())
	}
	for i := range 100 {
		b.add(1, b.began.Add(barAfter+time.Duration(i)*barEvery/10))
	}
	b.end()
	if n := strings.Count(screen.String(), "%"); n != 10 || !strings.HasSuffix(screen.String(), "\r\x1b[K") {
		t.Errorf("drawn %d times: %q", n, screen.String())
	}
}
