package audit

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// reserveName is a file that only takes up room.
const reserveName = "reserve"

// reserve is disk space that is given up piece by piece when the disk is full,
// so that administration stays possible.
type reserve struct {
	file *os.File
	want int64
	have int64
}

func openReserve(dir string, size int64) (*reserve, error) {
	file, err := os.OpenFile(filepath.Join(dir, reserveName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &reserve{file: file, want: size, have: info.Size()}, nil
}

// full reports that nothing of the reserve has been given up.
func (r *reserve) full() bool { return r.have >= r.want }

// fill takes all the room back, or leaves what there is.
func (r *reserve) fill() error {
	if r.full() {
		return r.resize(r.want) // a smaller one may be configured now
	}
	err := unix.Fallocate(int(r.file.Fd()), 0, 0, r.want)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = r.writeZeros()
	}
	if err == nil {
		err = r.file.Sync()
	}
	if err != nil {
		return errors.Join(err, r.file.Truncate(r.have))
	}
	r.have = r.want
	return nil
}

func (r *reserve) writeZeros() error {
	block := make([]byte, 64<<10)
	for at := r.have; at < r.want; at += int64(len(block)) {
		if _, err := r.file.WriteAt(block[:min(int64(len(block)), r.want-at)], at); err != nil {
			return err
		}
	}
	return nil
}

// give gives up room for a while, false when there is none left.
func (r *reserve) give() bool {
	const piece = 256 << 10
	if r.have == 0 {
		return false
	}
	return r.resize(max(0, r.have-piece)) == nil
}

func (r *reserve) resize(size int64) error {
	if size == r.have {
		return nil
	}
	if err := r.file.Truncate(size); err != nil {
		return err
	}
	r.have = size
	return nil
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
