package main

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// block is what is written to a file at once: with small ones, ext4 takes several
	// times as long for a new file.
	block  = 1 << 20
	blocks = 3 // one fills, one waits, one is written
	// flushed is how much is written before the disk is told to begin with it, so that
	// little is left to wait for at the end.
	flushed = 16 << 20
)

// behind writes a file in a goroutine of its own, in large blocks, while its user
// makes more. Close waits for it.
type behind struct {
	file    *os.File
	current []byte
	free    chan []byte
	full    chan []byte
	done    chan struct{} // closed when the goroutine has ended
	failed  chan struct{} // closed when err is set
	err     error
}

// writeBehind prepares a file for size bytes, 0 if that is not known.
func writeBehind(file *os.File, size int64) *behind {
	if size > 0 {
		// Blocks that are there already cost less to fill. Not every file system can.
		_ = unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	}
	b := &behind{
		file: file, current: make([]byte, 0, block),
		free: make(chan []byte, blocks), full: make(chan []byte, blocks),
		done: make(chan struct{}), failed: make(chan struct{}),
	}
	for range blocks - 1 {
		b.free <- make([]byte, 0, block)
	}
	go b.run()
	return b
}

func (b *behind) run() {
	defer close(b.done)
	var written, told int64
	for data := range b.full {
		if b.err == nil {
			if _, err := b.file.Write(data); err != nil {
				b.err = err
				close(b.failed)
			}
		}
		if written += int64(len(data)); written-told >= flushed {
			// Advice: what it did not do, Sync does.
			_ = unix.SyncFileRange(int(b.file.Fd()), told, written-told, unix.SYNC_FILE_RANGE_WRITE)
			told = written
		}
		b.free <- data[:0]
	}
}

// Write implements io.Writer. Its error may be that of an earlier call.
func (b *behind) Write(p []byte) (n int, err error) {
	for n < len(p) {
		select {
		case <-b.failed:
			return n, b.err
		default:
		}
		took := copy(b.current[len(b.current):block], p[n:])
		b.current = b.current[:len(b.current)+took]
		if n += took; len(b.current) == block {
			b.full <- b.current
			b.current = <-b.free
		}
	}
	return n, nil
}

// Close writes the rest and waits. It does not close the file, which then ends with
// what was written.
func (b *behind) Close() error {
	b.full <- b.current
	close(b.full)
	<-b.done
	if b.err != nil {
		return b.err
	}
	end, err := b.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	return b.file.Truncate(end)
}
