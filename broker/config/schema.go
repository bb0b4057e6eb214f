package config

import (
	"cmp"
	"encoding/hex"
	"iter"
	"log/slog"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Defaults.
const (
	DefaultStateDir   = "/var/lib/kmsbroker"
	DefaultRuntimeDir = "/run/kmsbroker"
	DefaultPluginDir  = "/usr/libexec/kmsbroker/plugins"
	DefaultAdminGroup = "kmsbroker-admin"
	// DefaultCallTimeout allows for a Luna HA failover, which can hold a call
	// for more than 20 seconds.
	DefaultCallTimeout = 30 * time.Second
)

// config reads the whole file.
func (t *table) config() *Config {
	c := &Config{
		StateDir:   t.absolute("state_dir", DefaultStateDir),
		RuntimeDir: t.absolute("runtime_dir", DefaultRuntimeDir),
		PluginDir:  t.absolute("plugin_dir", DefaultPluginDir),
		LogLevel:   t.logLevel("log_level"),
	}
	if sub, ok := t.table("kms"); ok {
		c.KMS = sub.kms()
	}
	sockets, ok := t.table("sockets")
	if !ok {
		sockets = &table{doc: t.doc, name: "sockets", path: keyPath(t.path, "sockets"), line: t.line}
	}
	c.Sockets = sockets.sockets(c.RuntimeDir)
	if providers, ok := t.table("kubernetes"); ok {
		c.Kubernetes = providers.kubernetes(c.RuntimeDir)
	}
	sockets.checkSockets(c)
	if backends, ok := t.table("backend"); ok {
		c.Backends = backends.backends()
	}
	c.Grants = t.grants("grant")
	c.Objects = t.objectGrants("pkcs11", c.Backends)
	c.Proxy = t.proxy()
	c.Audit = t.audit()
	c.Alibaba = t.alibaba()
	c.Envelope = t.envelope()
	c.Tracing = t.tracing()
	c.UnitWithoutPIDFD = t.boolean("unit_without_pidfd")
	t.done()
	return c
}

// absolute reads a path that must not depend on where the daemon was started.
func (t *table) absolute(key, otherwise string) string {
	path := t.text(key, otherwise)
	if path != "" && !filepath.IsAbs(path) || path == "" && otherwise != "" {
		t.problem(key, "%s must be an absolute path, not %q", t.full(key), path)
		return otherwise
	}
	if path == "" {
		return ""
	}
	return filepath.Clean(path)
}

// required reads a path that has no default.
func (t *table) required(key string) string {
	if !t.present(key) {
		return ""
	}
	path := t.text(key, "/")
	if !filepath.IsAbs(path) {
		t.problem(key, "%s must be an absolute path, not %q", t.full(key), path)
	}
	return filepath.Clean(path)
}

var logLevels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

func (t *table) logLevel(key string) slog.Level {
	name := t.text(key, "info")
	level, ok := logLevels[name]
	if !ok {
		names := slices.Sorted(maps.Keys(logLevels))
		t.problem(key, "%s must be one of %s, not %q%s", t.full(key), strings.Join(names, ", "), name, didYouMean(name, names))
	}
	return level
}

// isText reports that key has a string, so that a value of another type is not
// reported twice.
func (t *table) isText(key string) bool {
	_, ok := t.values[key].(string)
	return ok
}

var (
	partName        = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)
	environmentName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// named opens the tables below t by their names, in the order of the file. What is
// the word for what has such a name.
func (t *table) named(what string) iter.Seq2[string, *table] {
	names := slices.Collect(maps.Keys(t.values))
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(t.lineOf(a), t.lineOf(b)), cmp.Compare(a, b))
	})
	return func(yield func(string, *table) bool) {
		for _, name := range names {
			if !partName.MatchString(name) {
				t.problem(name, "%s name %q must be 1 to 32 of a-z, 0-9 and -", what, name)
			}
			if sub, ok := t.table(name); ok && !yield(name, sub) {
				return
			}
		}
	}
}

// backends reads them in the order of the file.
func (t *table) backends() []Backend {
	var backends []Backend
	for name, sub := range t.named("backend") {
		backends = append(backends, sub.backend(name))
	}
	return backends
}

func (t *table) backend(name string) Backend {
	b := Backend{
		Name:                 name,
		Plugin:               t.plugin("plugin"),
		SHA256:               t.checksum("sha256"),
		PINFile:              t.pinFile(),
		AllowForeignEndpoint: t.boolean("allow_foreign_endpoint"),
		CallTimeout:          t.duration("call_timeout", DefaultCallTimeout, time.Second, 10*time.Minute),
		Settings:             t.texts("settings"),
		Environment:          t.environment("environment"),
	}
	t.done()
	return b
}

// pinFile reads where the PIN comes from: exactly one of pin_file = "/path" and
// pin = "prompt". What else stands in pin may be a PIN and is not repeated.
func (t *table) pinFile() string {
	const prompt, file = "pin", "pin_file"
	word, isText := read[string](t, prompt, `"prompt"`)
	if isText && word != "prompt" {
		t.problem(prompt, `%s can only be "prompt": a PIN does not belong into this file, give the path of one with pin_file`, t.full(prompt))
	}
	_, prompted := t.values[prompt]
	_, named := t.values[file]
	switch {
	case prompted && named:
		t.problem(file, "%s and %s exclude each other", t.full(file), t.full(prompt))
	case !prompted && !named:
		t.doc.problem(t.line, `%s needs a PIN: pin_file = "/path", or pin = "prompt" to enter it with "kmsbrokerctl backend login"`, t.name)
	}
	if !named {
		t.known = append(t.known, file)
		return ""
	}
	return t.required(file)
}

func (t *table) plugin(key string) string {
	if !t.present(key) {
		return ""
	}
	file := t.text(key, "/")
	switch {
	case filepath.IsAbs(file):
		return filepath.Clean(file)
	case file == "" || file == "." || file == ".." || strings.Contains(file, "/"):
		t.problem(key, "%s must be the name of a file in plugin_dir or an absolute path, not %q", t.full(key), file)
	}
	return file
}

func (t *table) checksum(key string) string {
	sum := strings.ToLower(t.text(key, ""))
	if raw, err := hex.DecodeString(sum); sum != "" && (err != nil || len(raw) != 32) {
		t.problem(key, "%s must be 64 hexadecimal digits, as sha256sum prints them", t.full(key))
	}
	return sum
}

// environment refuses what would take a plugin over or confuse its handshake.
func (t *table) environment(key string) map[string]string {
	env := t.texts(key)
	sub := &table{doc: t.doc, name: t.full(key), path: keyPath(t.path, key), line: t.lineOf(key)}
	for name := range env {
		switch {
		case !environmentName.MatchString(name):
			sub.problem(name, "%s: %q is not the name of an environment variable: use A-Z, a-z, 0-9 and _", sub.name, name)
		case name == "LD_PRELOAD" || name == "LD_AUDIT":
			sub.problem(name, "%s would load foreign code into the plugin", sub.full(name))
		case strings.HasPrefix(name, "PLUGIN_"):
			sub.problem(name, "%s belongs to the plugin protocol", sub.full(name))
		}
	}
	return env
}
