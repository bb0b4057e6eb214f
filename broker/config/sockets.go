package config

import (
	"cmp"
	"path/filepath"
	"slices"
)

// Beside the application socket in the runtime directory, which everybody may pass
// through: to read metrics is no administration.
const (
	defaultMetrics = "metrics.sock"
	defaultAlibaba = "alibaba.sock"
	defaultPKCS11  = "pkcs11.sock"
)

// maxSocketPath is the length of sun_path less its final NUL, unix(7).
const maxSocketPath = 107

func (t *table) sockets(runtimeDir string) Sockets {
	s := Sockets{
		Control:     t.socket("control", "admin/control.sock", runtimeDir),
		Application: t.socket("application", "kms.sock", runtimeDir),
	}
	if t.text("metrics", defaultMetrics) != "" {
		s.Metrics = t.socket("metrics", defaultMetrics, runtimeDir)
	}
	if t.text("alibaba", defaultAlibaba) != "" {
		s.Alibaba = t.socket("alibaba", defaultAlibaba, runtimeDir)
	}
	if t.text("pkcs11", defaultPKCS11) != "" {
		s.PKCS11 = t.socket("pkcs11", defaultPKCS11, runtimeDir)
	}
	s.AdminGID = t.adminGroup("admin_group")
	t.done()
	return s
}

// checkSockets makes sure that no socket is in the way of another.
func (t *table) checkSockets(c *Config) {
	type place struct {
		line       int
		name, path string
	}
	all := []place{{t.lineOf("control"), t.full("control"), c.Sockets.Control}}
	for _, s := range []struct{ key, path string }{
		{"application", c.Sockets.Application}, {"metrics", c.Sockets.Metrics}, {"alibaba", c.Sockets.Alibaba}, {"pkcs11", c.Sockets.PKCS11},
	} {
		all = append(all, place{t.lineOf(s.key), t.full(s.key), s.path})
	}
	for _, k := range c.Kubernetes {
		path := keyPath(keyPath("", "kubernetes"), k.Name)
		line := cmp.Or(t.doc.lines[keyPath(path, "socket")], t.doc.lines[path])
		all = append(all, place{line, "kubernetes." + k.Name + ".socket", k.Socket})
	}
	control := filepath.Dir(c.Sockets.Control)
	crowded := control == c.RuntimeDir
	for i, s := range all {
		if s.path == "" {
			continue
		}
		if first := slices.IndexFunc(all[:i], func(other place) bool { return other.path == s.path }); first >= 0 {
			t.doc.problem(s.line, "%s is the same socket as %s", s.name, all[first].name)
			return
		}
		crowded = crowded || i > 0 && control == filepath.Dir(s.path)
	}
	if crowded {
		// Its mode is what keeps everybody else from the control socket.
		t.problem("control", "%s needs a directory of its own, not %s", t.full("control"), control)
	}
}

func (t *table) socket(key, otherwise, runtimeDir string) string {
	path := t.text(key, otherwise)
	switch {
	case filepath.IsAbs(path):
		path = filepath.Clean(path)
	case filepath.IsLocal(path) && filepath.Clean(path) != ".":
		path = filepath.Join(runtimeDir, path)
	default:
		t.problem(key, "%s must be a path below runtime_dir or an absolute path, not %q", t.full(key), path)
		return filepath.Join(runtimeDir, otherwise)
	}
	if len(path) > maxSocketPath {
		t.problem(key, "%s: the socket's path %s is longer than the %d bytes that Linux allows", t.full(key), path, maxSocketPath)
	}
	return path
}

// adminGroup returns the gid of the group that may use the sockets for control
// and metrics, -1 when root alone may. The default group need not exist.
func (t *table) adminGroup(key string) int {
	name := t.text(key, DefaultAdminGroup)
	if name == "" {
		return -1
	}
	gid, err := t.doc.accounts.group(name)
	if err == nil {
		return int(gid)
	}
	if t.isText(key) {
		t.problem(key, "%s: there is no group %q: create it with groupadd --system %s", t.full(key), name, name)
	}
	return -1
}
