package config

import (
	"reflect"
	"slices"
)

// Restart names the settings in which next differs from c and that need a
// restart. Grants do not, neither those on keys nor those on objects.
func (c *Config) Restart(next *Config) []string {
	settings := []struct {
		name      string
		now, then any
	}{
		{"state_dir", c.StateDir, next.StateDir},
		{"runtime_dir", c.RuntimeDir, next.RuntimeDir},
		{"plugin_dir", c.PluginDir, next.PluginDir},
		{"log_level", c.LogLevel, next.LogLevel},
		{"unit_without_pidfd", c.UnitWithoutPIDFD, next.UnitWithoutPIDFD},
		{"audit", c.Audit, next.Audit},
		{"alibaba", c.Alibaba, next.Alibaba},
		{"kubernetes", c.Kubernetes, next.Kubernetes},
		{"proxy", c.Proxy, next.Proxy},
		{"tracing", c.Tracing, next.Tracing},
		{"envelope", c.Envelope, next.Envelope},
		{"kms", c.KMS, next.KMS},
		{"sockets", c.Sockets, next.Sockets},
	}
	var differ []string
	for _, s := range settings {
		if !reflect.DeepEqual(s.now, s.then) {
			differ = append(differ, s.name)
		}
	}
	for _, b := range slices.Concat(c.Backends, next.Backends) {
		name := "backend." + b.Name
		if !reflect.DeepEqual(c.backend(b.Name), next.backend(b.Name)) && !slices.Contains(differ, name) {
			differ = append(differ, name)
		}
	}
	return differ
}

// backend returns the backend of a name, the zero Backend if there is none.
func (c *Config) backend(name string) Backend {
	i := slices.IndexFunc(c.Backends, func(b Backend) bool { return b.Name == name })
	if i < 0 {
		return Backend{}
	}
	return c.Backends[i]
}
