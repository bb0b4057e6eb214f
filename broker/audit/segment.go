package audit

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// Segments are named by their first record, so that their names sort as they do.
const (
	segmentFormat = "audit-%020d.log"
	// newSegment is a segment without its name, until its first record is on the disk.
	newSegment = "audit.new"
)

var segmentName = regexp.MustCompile(`^audit-([0-9]{20})\.log$`)

// segment is the file that is written to. One segment is one epoch.
type segment struct {
	path   string
	first  uint64
	opened time.Time // of its first record
	key    ed25519.PrivateKey

	file sink
	self fs.FileInfo // the identity of the open file
	size int64       // up to which the file is known to be on the disk
	torn bool        // there may be bytes beyond size, of a write that failed

	next ed25519.PrivateKey // set once the segment is sealed
}

// sink is the part of *os.File that can fail.
type sink interface {
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// segmentFile is a segment found in a directory.
type segmentFile struct {
	path  string
	first uint64
}

// listSegments returns the segments of a trail in their order.
func listSegments(dir string) ([]segmentFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []segmentFile
	for _, e := range entries {
		match := segmentName.FindStringSubmatch(e.Name())
		if match == nil {
			continue
		}
		first, err := strconv.ParseUint(match[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: no record has such a number", e.Name())
		}
		files = append(files, segmentFile{filepath.Join(dir, e.Name()), first})
	}
	return files, nil
}

// beginSegment makes the segment that follows head, with its first record.
func beginSegment(dir string, head Head, key ed25519.PrivateKey, at time.Time, opening Event) (*segment, Head, error) {
	event, err := encode(opening)
	if err != nil {
		return nil, head, err
	}
	line := head.next(at, event)
	temporary := filepath.Join(dir, newSegment)
	if err := writeFile(temporary, append(line, '\n')); err != nil {
		return nil, head, err
	}
	path := filepath.Join(dir, fmt.Sprintf(segmentFormat, head.Seq+1))
	if err := os.Rename(temporary, path); err != nil {
		return nil, head, err
	}
	if err := syncDir(dir); err != nil {
		return nil, head, err
	}
	s := &segment{path: path, first: head.Seq + 1, opened: at, key: key}
	return s, head.after(line), s.open()
}

// open opens the file of s for writing at its end.
func (s *segment) open() error {
	file, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if s.self, err = file.Stat(); err != nil {
		file.Close()
		return err
	}
	s.file, s.size = file, s.self.Size()
	return nil
}

// write adds lines, each with its newline, and waits for the disk. After a
// failure the segment is as it was: the next write begins at the same place.
func (s *segment) write(lines []byte) error {
	if err := s.check(); err != nil {
		return err
	}
	if s.torn {
		if err := s.file.Truncate(s.size); err != nil {
			return err
		}
	}
	s.torn = true
	if _, err := s.file.WriteAt(lines, s.size); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	s.torn, s.size = false, s.size+int64(len(lines))
	return nil
}

// check notices that the file was removed, replaced or written by somebody
// else: records would go where nobody finds them, or leave a broken chain.
func (s *segment) check() error {
	info, err := os.Stat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: put it back, or restart the daemon to go on without it", err)
	case err != nil:
		return err
	case !os.SameFile(info, s.self):
		return fmt.Errorf("%s was replaced by another file: put it back, or restart the daemon to go on without it", s.path)
	case info.Size() < s.size || info.Size() > s.size && !s.torn:
		return fmt.Errorf("somebody else changed the size of %s: verify it, then restart the daemon", s.path)
	}
	return nil
}

// end wipes what the segment has of keys and closes its file.
func (s *segment) end() error {
	clear(s.key)
	return s.file.Close()
}
