package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// outFile is where a result goes: a file that is there whole or not at all, or
// whatever else the name stands for. One of finish and abandon ends it.
type outFile struct {
	io.Writer
	file *os.File // nil for standard output
	path string   // to rename the file to, "" if it is written in place
	mode os.FileMode
}

// create opens the output of that name. A new file can be read by its owner alone,
// one that is there keeps its mode, and what is no regular file, such as a FIFO, is
// written to and stays what it is.
func (c *ctl) create(path string) (*outFile, error) {
	if path == "" || path == standardStream {
		return &outFile{Writer: c.stdout}, nil
	}
	mode := os.FileMode(0o600)
	if target, err := filepath.EvalSymlinks(path); err == nil {
		info, err := os.Stat(target)
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			f, err := os.OpenFile(target, os.O_WRONLY, 0)
			return &outFile{Writer: f, file: f}, err
		}
		path, mode = target, info.Mode().Perm()
	}
	return replacing(path, mode)
}

// replacing writes a file beside path, to be renamed over it.
func replacing(path string, mode os.FileMode) (*outFile, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".kmsbrokerctl-")
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return &outFile{Writer: f, file: f, path: path, mode: mode}, nil
}

// finish puts the file into its place, when it is on the disk.
func (o *outFile) finish() error {
	switch {
	case o.file == nil:
		return nil
	case o.path == "":
		return o.file.Close()
	}
	err := errors.Join(o.file.Chmod(o.mode), o.file.Sync(), o.file.Close())
	if err == nil {
		err = os.Rename(o.file.Name(), o.path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", o.path, errors.Join(err, os.Remove(o.file.Name())))
	}
	return nil
}

// abandon leaves nothing of a file.
func (o *outFile) abandon() {
	if o.file != nil {
		o.file.Close()
	}
	if o.path != "" {
		os.Remove(o.file.Name())
	}
}

// stream has the file written by make, about size bytes or 0 if that is not known,
// and finishes it unless that fails.
func (o *outFile) stream(size int64, make func(dst io.Writer) error) error {
	var err error
	if o.path == "" {
		err = make(o)
	} else {
		b := writeBehind(o.file, size)
		err = make(b)
		// What the file did not take is told once, and not of the name it has till then.
		if closeErr := b.Close(); closeErr != nil && (err == nil || errors.Is(err, closeErr)) {
			err = fmt.Errorf("write %s: %w", o.path, closeErr)
		}
	}
	if err != nil {
		o.abandon()
		return err
	}
	return o.finish()
}

// write puts data into a file, whole or not at all.
func (c *ctl) write(path string, data []byte) error {
	out, err := c.create(path)
	if err != nil {
		return err
	}
	return out.whole(bytes.NewReader(data))
}

// whole writes all that the file shall have, and finishes it.
func (o *outFile) whole(data io.Reader) error {
	if _, err := io.Copy(o.Writer, data); err != nil {
		o.abandon()
		return fmt.Errorf("write %s: %w", o.name(), err)
	}
	return o.finish()
}

// name is what the output is called in messages.
func (o *outFile) name() string {
	switch {
	case o.path != "":
		return o.path
	case o.file != nil:
		return o.file.Name()
	default:
		return "standard output"
	}
}
