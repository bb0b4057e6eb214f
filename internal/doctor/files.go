package doctor

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/broker/config"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// spare is how much room there should be on the disk beyond the audit trail's reserve,
// in bytes.
const spare = 256 << 20

// files looks at what the configuration names.
func (r *report) files(cfg *config.Config) {
	owner := r.stateDir(cfg)
	for _, b := range cfg.Backends {
		err := backend.CheckPlugin(backend.PluginConfig{Dir: cfg.PluginDir, Plugin: b.Plugin, SHA256: b.SHA256})
		if err != nil {
			r.add("plugin of "+b.Name, Problem, "install the package again, or pin the plugin that you mean with sha256", "%v", err)
		} else {
			r.ok("plugin of "+b.Name, "it has the checksum that it must")
		}
		if b.PINFile == "" {
			r.ok("PIN of "+b.Name, "an administrator enters it: kmsbrokerctl backend login %s", b.Name)
		} else {
			r.secret("PIN of "+b.Name, b.PINFile, owner, func([]byte) error { return nil })
		}
	}
	if file := cfg.KMS.Credentials.File; file != "" {
		r.secret("access key", file, owner, func(content []byte) error {
			_, err := kmsapi.ParseCredentials(content)
			return err
		})
	}
	for name, path := range map[string]string{
		"control socket": cfg.Sockets.Control, "application socket": cfg.Sockets.Application,
		"alibaba socket": cfg.Sockets.Alibaba, "metrics socket": cfg.Sockets.Metrics,
	} {
		r.socket(name, path)
	}
	for _, k := range cfg.Kubernetes {
		r.socket("socket of cluster "+k.Name, k.Socket)
	}
}

// stateDir returns the uid that the daemon's files belong to, -1 if that is not known.
func (r *report) stateDir(cfg *config.Config) (owner int) {
	const check = "state directory"
	info, err := os.Stat(cfg.StateDir)
	if err != nil {
		r.add(check, Problem, "start kmsbrokerd, which makes it", "%v", err)
		return -1
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		r.add(check, Problem, "chmod 700 "+cfg.StateDir, "%s has mode %04o: others can look into it", cfg.StateDir, mode)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(cfg.StateDir, &disk); err != nil {
		r.add(check, Warning, "", "%v", err)
	} else if free := disk.Bavail * uint64(disk.Bsize); free < uint64(cfg.Audit.Reserve)+spare {
		r.add("disk", Problem, "free space: while the audit trail cannot be written nothing is answered", "%s has %d MiB left", cfg.StateDir, free>>20)
	} else {
		r.ok("disk", "%s has %d MiB left", cfg.StateDir, free>>20)
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

// secret looks at a file that the daemon reads and nobody else shall.
func (r *report) secret(check, path string, owner int, parse func([]byte) error) {
	if _, err := os.Stat(path); os.IsNotExist(err) && isCredential(path) {
		r.add(check, Warning, "start the service, and see that its unit has LoadCredential= or LoadCredentialEncrypted= of that name",
			"%s is a credential that systemd has not passed", path)
		return
	}
	info, err := os.Stat(path)
	if os.IsPermission(err) {
		r.add(check, Skipped, "run this as root", "%v", err)
		return
	}
	if err != nil {
		r.add(check, Problem, "make the file, mode 0600, of root or the daemon's user", "%v", err)
		return
	}
	switch uid := int(info.Sys().(*syscall.Stat_t).Uid); {
	case info.Mode().Perm()&0o077 != 0 && !isCredential(path):
		r.add(check, Problem, "chmod 600 "+path, "%s has mode %04o: the daemon refuses what others can read", path, info.Mode().Perm())
		return
	case uid != 0 && owner >= 0 && uid != owner:
		r.add(check, Problem, fmt.Sprintf("chown %d %s", owner, path), "%s belongs to uid %d, neither root nor the daemon's user", path, uid)
		return
	case uid == 0 && owner > 0 && !isCredential(path):
		r.add(check, Problem, fmt.Sprintf("chown %d %s, or pass it with LoadCredential=", owner, path), "%s belongs to root, and the daemon runs as uid %d: it cannot read it", path, owner)
		return
	}
	content, err := os.ReadFile(path)
	defer clear(content)
	switch {
	case err != nil:
		r.add(check, Skipped, "run this as root", "%v", err)
	case len(content) == 0:
		r.add(check, Problem, "write the secret into it", "%s is empty", path)
	default:
		if err := parse(content); err != nil {
			r.add(check, Problem, "write access_key_id = \"…\" and access_key_secret = \"…\" into it", "%s: %v", path, err)
			return
		}
		r.ok(check, "%s can be read by the daemon alone", path)
	}
}

// isCredential is whether systemd passes the file to the service, systemd.exec(5).
func isCredential(path string) bool {
	const directory = "/run/credentials/"
	return len(path) > len(directory) && path[:len(directory)] == directory
}

func (r *report) socket(check, path string) {
	if path == "" {
		return
	}
	info, err := os.Lstat(path)
	switch {
	case os.IsPermission(err):
		r.add(check, Skipped, "run this as root", "%v", err)
	case err != nil:
		r.add(check, Problem, "systemctl start kmsbrokerd", "%v", err)
	case info.Mode().Type() != os.ModeSocket:
		r.add(check, Problem, "remove it, and the daemon makes the socket", "%s is no socket", path)
	default:
		r.ok(check, "%s, mode %04o", path, info.Mode().Perm())
	}
}
