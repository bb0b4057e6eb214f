package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/kmsbroker/kmsbroker/broker/config"
	doors "github.com/kmsbroker/kmsbroker/broker/serve"
)

// pluginSockets is the private directory for the sockets of one backend's
// plugin process.
func pluginSockets(cfg *config.Config, backend string) string {
	return filepath.Join(cfg.RuntimeDir, "plugins", backend)
}

// checkSockets is the same for the processes of the conformance suite.
func checkSockets(cfg *config.Config, backend string) string {
	return pluginSockets(cfg, backend) + ".check"
}

// directory is one that the daemon needs, with the rights that it needs.
type directory struct {
	path string
	mode os.FileMode
	gid  int
}

// makeDirectories makes what is missing: all may pass through the runtime
// directory, administrators alone may enter the control socket's.
func makeDirectories(cfg *config.Config) error {
	directories := []directory{
		{cfg.StateDir, 0o700, -1},
		{cfg.RuntimeDir, 0o755, -1},
		{filepath.Join(cfg.RuntimeDir, "plugins"), 0o700, -1},
		{pulseDir(cfg), 0o700, -1},
		{filepath.Dir(cfg.Sockets.Control), 0o750, cfg.Sockets.AdminGID},
	}
	for _, k := range cfg.Kubernetes {
		directories = append(directories, directory{filepath.Dir(k.Socket), 0o755, -1})
	}
	for _, b := range cfg.Backends {
		directories = append(directories,
			directory{pluginSockets(cfg, b.Name), 0o700, -1}, directory{checkSockets(cfg, b.Name), 0o700, -1})
	}
	for _, d := range directories {
		if err := d.make(); err != nil {
			return err
		}
	}
	return nil
}

// make leaves the mode of a directory alone that is there already: systemd, the package
// or an administrator chose it. It only insists that nobody else can exchange what lies
// in it, and gives it to its group.
func (d directory) make() error {
	err := os.Mkdir(d.path, d.mode)
	if errors.Is(err, os.ErrExist) {
		err = d.check()
	}
	if err != nil {
		return err
	}
	return doors.GiveToGroup(d.path, d.gid)
}

func (d directory) check() error {
	info, err := os.Stat(d.path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", d.path)
	}
	return checkUnchangeable(d.path)
}

// checkUnchangeable refuses what others than root and the daemon can write to.
func checkUnchangeable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 && int(owner) != os.Geteuid() {
		return fmt.Errorf("%s belongs to uid %d, not to root or uid %d", path, owner, os.Geteuid())
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("%s has mode %04o, others can write to it: chmod go-w %s", path, mode, path)
	}
	return nil
}
