package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
)

// TestStreamedFile: a file of several blocks is what was written, whatever was
// expected, and one that fails leaves what was there before.
func TestStreamedFile(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/out"
	c := &ctl{}
	for _, expected := range []int64{0, 1, 5*block + 7, 50 * block} {
		content := bytes.Repeat([]byte("0123456"), (5*block+7)/7)
		out, err := c.create(path)
		if err != nil {
			t.Fatal(err)
		}
		err = out.stream(expected, func(dst io.Writer) error {
			for rest := content; len(rest) > 0; rest = rest[min(len(rest), 65_521):] {
				if _, err := dst.Write(rest[:min(len(rest), 65_521)]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
			t.Errorf("expecting %d: %d bytes, %v", expected, len(got), err)
		}
		if info, err := os.Stat(path); err != nil || info.Sys().(*syscall.Stat_t).Blocks*512 > int64(len(content)+block) {
			t.Errorf("expecting %d: it takes %+v, %v", expected, info.Sys(), err)
		}
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("damaged")
	out, err := c.create(path)
	if err != nil {
		t.Fatal(err)
	}
	err = out.stream(0, func(dst io.Writer) error {
		if _, err := dst.Write(make([]byte, 2*block)); err != nil {
			t.Error(err)
		}
		return broken
	})
	if after, readErr := os.ReadFile(path); !errors.Is(err, broken) || readErr != nil || !bytes.Equal(before, after) {
		t.Errorf("%v, %v", err, readErr)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestFullDisk: a write that fails behind its writer is not lost.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	b := writeBehind(full, 0)
	var writeErr error
	for range 100 {
		if _, writeErr = b.Write(make([]byte, block)); writeErr != nil {
			break
		}
	}
	if err := b.Close(); !errors.Is(err, syscall.ENOSPC) || !errors.Is(writeErr, syscall.ENOSPC) {
		t.Errorf("Write: %v, Close: %v", writeErr, err)
	}
}
