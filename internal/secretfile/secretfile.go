// Package secretfile reads PINs and access keys from files that nobody else can
// read, and refuses all others.
package secretfile

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxSize bounds a secret file in bytes; PINs and access keys are far smaller.
const maxSize = 64 << 10

// Read returns the content of a regular file that belongs to root or to this
// process' user and that group and others have no right to. Files in systemd's
// credentials directory are accepted with the modes that systemd gives them.
// Errors name the path and the remedy, never the content.
func Read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Ask the open file, so that what is checked is what is read.
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := check(path, info); err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	switch {
	case err != nil:
		return nil, err
	case len(content) > maxSize:
		return nil, fmt.Errorf("%s is larger than %d bytes: is it the right file?", path, maxSize)
	}
	return content, nil
}

func check(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	if isCredential(path) {
		return nil
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o and could be read by others: chmod 600 %s", path, mode, path)
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if euid := os.Geteuid(); owner != 0 && int(owner) != euid {
		return fmt.Errorf("%s belongs to uid %d, not to root or uid %d: chown %d %s", path, owner, euid, euid, path)
	}
	return nil
}

// isCredential reports whether path lies directly in the directory where
// systemd puts this service's credentials (systemd.exec(5), LoadCredential=).
func isCredential(path string) bool {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	return dir != "" && strings.HasPrefix(dir, "/") && filepath.Dir(filepath.Clean(path)) == filepath.Clean(dir)
}
