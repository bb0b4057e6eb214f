package plugin

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// openExecutable opens a plugin, checks who could have written it and that it
// has the checksum that was pinned. The caller executes the descriptor and not
// the path, so that what runs is what was hashed. The returned path has no
// symbolic links.
func openExecutable(path string, sum []byte) (file *os.File, real string, err error) {
	if len(sum) != sha256.Size {
		return nil, "", hsm.Errorf(hsm.Misconfigured, "plugin %s: its SHA-256 is not configured", path)
	}
	if !filepath.IsAbs(path) {
		return nil, "", hsm.Errorf(hsm.Misconfigured, "plugin %s: the path must be absolute", path)
	}
	real, err = filepath.EvalSymlinks(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, "", hsm.Errorf(hsm.Misconfigured, "plugin %s does not exist", path)
	}
	if err != nil {
		return nil, "", hsm.Errorf(hsm.Misconfigured, "plugin %s: %v", path, err)
	}
	// O_NONBLOCK so that a FIFO does not block; it means nothing to a file.
	fd, err := unix.Open(real, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", hsm.Errorf(hsm.Misconfigured, "open plugin %s: %v", real, err)
	}
	file = os.NewFile(uintptr(fd), real)
	if err := checkExecutable(file, real, sum); err != nil {
		file.Close()
		return nil, "", err
	}
	return file, real, nil
}

func checkExecutable(file *os.File, path string, sum []byte) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return hsm.Errorf(hsm.Misconfigured, "plugin %s: %v", path, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return hsm.Errorf(hsm.Misconfigured, "plugin %s is not a regular file", path)
	case st.Mode&0o111 == 0:
		return hsm.Errorf(hsm.Misconfigured, "plugin %s is not executable", path)
	}
	if err := checkTrusted("plugin "+path, &st); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := unix.Stat(dir, &st); err != nil {
		return hsm.Errorf(hsm.Misconfigured, "directory %s of the plugin: %v", dir, err)
	}
	if err := checkTrusted("directory "+dir+" of the plugin", &st); err != nil {
		return err
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return hsm.Errorf(hsm.Misconfigured, "read plugin %s: %v", path, err)
	}
	if got := hash.Sum(nil); subtle.ConstantTimeCompare(got, sum) != 1 {
		return hsm.Errorf(hsm.Misconfigured, "plugin %s has SHA-256 %x, but %x is configured: reinstall it, or pin the new checksum if you changed it", path, got, sum)
	}
	return nil
}

// CheckTrusted refuses an open file that others than root and the daemon's user can
// write to.
func CheckTrusted(what string, file *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return hsm.Errorf(hsm.Misconfigured, "%s: %v", what, err)
	}
	return checkTrusted(what, &st)
}

// checkTrusted demands that nobody but root and this process's user can change
// what st describes.
func checkTrusted(what string, st *unix.Stat_t) error {
	switch {
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return hsm.Errorf(hsm.Misconfigured, "%s belongs to user %d: only root or user %d may own it", what, st.Uid, os.Geteuid())
	case st.Mode&0o022 != 0:
		return hsm.Errorf(hsm.Misconfigured, "%s is writable by group or others (mode %#o)", what, st.Mode&0o7777)
	default:
		return nil
	}
}

// socketSuffix is the most that go-plugin appends to the socket directory: a
// directory and a file with names from os.MkdirTemp.
const socketSuffix = len("/plugin-dir4294967295/plugin4294967295")

// checkSocketDir demands a private directory whose sockets fit into a
// sockaddr_un.
func checkSocketDir(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return hsm.Errorf(hsm.Misconfigured, "socket directory %q: %v", dir, err)
	}
	longest := len(unix.RawSockaddrUnix{}.Path) - 1 - socketSuffix
	switch {
	case !filepath.IsAbs(dir):
		return hsm.Errorf(hsm.Misconfigured, "socket directory %s: the path must be absolute", dir)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return hsm.Errorf(hsm.Misconfigured, "socket directory %s is not a directory", dir)
	case int(st.Uid) != os.Geteuid() || st.Mode&0o777 != 0o700:
		return hsm.Errorf(hsm.Misconfigured, "socket directory %s must belong to user %d with mode 0700 (it belongs to %d, mode %#o)",
			dir, os.Geteuid(), st.Uid, st.Mode&0o777)
	case len(dir) > longest:
		return hsm.Errorf(hsm.Misconfigured, "socket directory %s is %d bytes long; a Unix socket in it needs %d at most", dir, len(dir), longest)
	default:
		return nil
	}
}

// removeStale removes what plugins that were killed together with their host
// left in the socket directory.
func removeStale(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, "plugin-dir*"))
	if err != nil {
		return hsm.Errorf(hsm.Misconfigured, "socket directory %q: %v", dir, err)
	}
	for _, path := range left {
		if err := os.RemoveAll(path); err != nil {
			return hsm.Errorf(hsm.Misconfigured, "remove stale sockets: %v", err)
		}
	}
	return nil
}
