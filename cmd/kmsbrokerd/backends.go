package main

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/broker/config"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
)

func makeBackends(cfg *config.Config, keys *keyring.Keyring, trail *audit.Log, log *slog.Logger) *backend.Set {
	backends := make([]*backend.Backend, 0, len(cfg.Backends))
	for _, b := range cfg.Backends {
		serving := backend.PluginConfig{
			Dir: cfg.PluginDir, Plugin: b.Plugin, SHA256: b.SHA256, Environment: environment(b),
			SocketDir: pluginSockets(cfg, b.Name), Settings: b.Settings, PINFile: b.PINFile, Log: log.With("backend", b.Name),
			Backend: b.Name, Logins: keys,
		}
		if b.PINFile == "" {
			serving.Prompted = backend.NewPromptedPIN()
		}
		side := serving
		side.SocketDir = checkSockets(cfg, b.Name)
		backends = append(backends, backend.New(backend.Config{
			Name: b.Name, Plugin: b.Plugin, AllowForeignEndpoint: b.AllowForeignEndpoint, Log: log,
			Logins: keys, CallTimeout: b.CallTimeout,
			Launch: backend.LaunchPlugin(serving), Side: side, Prompted: serving.Prompted,
			Changed: func(s backend.Status) { recordState(trail, s, log) },
		}))
	}
	return backend.NewSet(backends...)
}

// environment is the whole environment of a plugin: nothing of the daemon's
// own leaks into vendor code.
func environment(b config.Backend) []string {
	env := []string{"PATH=/usr/bin:/bin", "TZ=UTC"}
	for name, value := range b.Environment {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	return env
}

const recordTimeout = 5 * time.Second

func recordState(trail *audit.Log, s backend.Status, log *slog.Logger) {
	event := audit.Event{
		Action: audit.BackendState, Outcome: audit.Done, Backend: s.Name,
		Details: map[string]string{audit.DetailState: string(s.State)},
	}
	if s.Err != nil {
		event.Outcome, event.Reason = audit.Failed, string(hsm.ReasonOf(s.Err))
	}
	if s.Info != nil {
		event.Details[audit.DetailSerial] = s.Info.Serial
	}
	// A disk that does not answer must not stop the supervision.
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	if err := trail.Append(ctx, event); err != nil {
		log.Error("backend state not recorded", "backend", s.Name, "error", err)
	}
}
