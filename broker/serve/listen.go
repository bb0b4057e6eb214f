// Package serve holds what the doors have in common: Unix sockets that are born
// with their mode, callers as the kernel reports them, and the mapping of
// failures to gRPC. The doors themselves are the packages below it.
package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// SocketConfig describes a Unix socket.
type SocketConfig struct {
	Path string
	Mode os.FileMode // of the socket
	GID  int         // group that owns the socket, -1 to leave it
}

// Listen makes a Unix socket. It is bound in a private directory beside its
// place, gets its mode and owner there, and is renamed into place, so that it
// is never reachable with other rights. A socket that a dead process left is
// replaced; one that answers is not.
func Listen(ctx context.Context, config SocketConfig) (*net.UnixListener, error) {
	if err := free(ctx, config.Path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(config.Path), ".bind-")
	if err != nil {
		return nil, fmt.Errorf("make socket %s: %w", config.Path, err)
	}
	defer os.RemoveAll(dir)
	listener, err := listenIn(dir)
	private := filepath.Join(dir, bindName)
	if err != nil {
		return nil, fmt.Errorf("make socket %s: %w", config.Path, err)
	}
	// The name will be another one; the daemon removes it when it stops.
	listener.SetUnlinkOnClose(false)
	err = errors.Join(os.Chmod(private, config.Mode), GiveToGroup(private, config.GID), os.Rename(private, config.Path))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make socket %s: %w", config.Path, err), listener.Close())
	}
	return listener, nil
}

// GiveToGroup makes a group own a file, unless that is -1. It does nothing where the
// group has it already, by what made it or by its directory's set-group-ID bit: a
// sandbox may forbid chown(2).
func GiveToGroup(path string, gid int) error {
	info, err := os.Lstat(path)
	if err != nil || gid < 0 || int(info.Sys().(*syscall.Stat_t).Gid) == gid {
		return err
	}
	return os.Lchown(path, -1, gid)
}

const bindName = "s"

// listenIn binds a socket in dir. The path goes through a descriptor, because a
// socket's path has at most 107 bytes and dir is longer than its final name.
func listenIn(dir string) (*net.UnixListener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	short := fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), bindName)
	return net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
}

// free makes sure that nothing in use is replaced.
func free(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket; remove it or configure another path", path)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err == nil {
		return errors.Join(fmt.Errorf("%s is in use by another process; is a kmsbrokerd running?", path), conn.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("probe socket %s: %w", path, err)
	}
	return nil
}
