package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker/config"
	doors "github.com/kmsbroker/kmsbroker/broker/serve"
	"github.com/kmsbroker/kmsbroker/broker/serve/app"
	"github.com/kmsbroker/kmsbroker/broker/serve/control"
	"github.com/kmsbroker/kmsbroker/client"
)

// pulses are how many probes fit into the time after which systemd takes the daemon
// for stuck.
const pulses = 3

// feedWatchdog tells systemd that the daemon works, each time that it has answered
// itself, until ctx ends. Systemd wants to hear of it within its patience.
func feedWatchdog(ctx context.Context, p pulse, patience time.Duration, log *slog.Logger) {
	ticker := time.NewTicker(patience / pulses)
	defer ticker.Stop()
	for {
		if err := p.beat(ctx, patience/pulses); err == nil {
			notify(log, daemon.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			log.Error("kmsbrokerd does not answer itself", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// pulse asks the daemon as others do: new connections to the servers of its doors, the
// kernel's word on who calls, the policy, and every lock of the core. Nothing of it waits
// for KMS, an HSM or a disk, so that only a daemon that is stuck itself fails. It comes in
// through sockets that nobody else reaches: whoever can connect to a public one could
// keep its queue full.
type pulse struct{ application, control string }

// pulseDir is where these sockets are. Nobody else may enter it.
func pulseDir(cfg *config.Config) string { return filepath.Join(cfg.RuntimeDir, "watchdog") }

// pulseOf opens the sockets for the watchdog on the servers of two doors, whose serving
// it hands to start.
func pulseOf(ctx context.Context, cfg *config.Config, all []door, start func(door, net.Listener)) (pulse, error) {
	p := pulse{filepath.Join(pulseDir(cfg), "application.sock"), filepath.Join(pulseDir(cfg), "control.sock")}
	for name, path := range map[string]string{app.Door: p.application, control.Door: p.control} {
		i := slices.IndexFunc(all, func(d door) bool { return d.name == name })
		listener, err := doors.Listen(ctx, doors.SocketConfig{Path: path, Mode: 0o600, GID: -1})
		if err != nil {
			return p, err
		}
		start(all[i], listener)
	}
	return p, nil
}

func (p pulse) beat(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	crypto, err := client.Dial(p.application)
	if err != nil {
		return err
	}
	defer crypto.Close()
	if _, err := v1.NewCryptoClient(crypto).WhoAmI(ctx, &v1.WhoAmIRequest{}); err != nil {
		return fmt.Errorf("%s: %w", p.application, err)
	}
	admin, err := client.Dial(p.control)
	if err != nil {
		return err
	}
	defer admin.Close()
	if _, err := v1.NewControlClient(admin).Status(ctx, &v1.StatusRequest{}); err != nil {
		return fmt.Errorf("%s: %w", p.control, err)
	}
	return nil
}
