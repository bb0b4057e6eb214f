package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
)

// pulses are how many probes fit into the time after which systemd takes the daemon
// for stuck.
const pulses = 3

// feedWatchdog tells systemd that the daemon works, each time that it has answered
// itself, until ctx ends. It does nothing where systemd does not want to know.
func feedWatchdog(ctx context.Context, p pulse, log *slog.Logger) {
	patience, err := daemon.SdWatchdogEnabled(true)
	if err != nil {
		log.Warn("no watchdog", "error", err)
	}
	if patience <= 0 {
		return
	}
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

// pulse asks the daemon as others do: a new connection to each socket, the kernel's
// word on who calls, the policy, and every lock of the core. Nothing of it waits for
// KMS, an HSM or a disk, so that only a daemon that is stuck itself fails.
type pulse struct{ application, control string }

func (p pulse) beat(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	app, err := client.Dial(p.application)
	if err != nil {
		return err
	}
	defer app.Close()
	if _, err := v1.NewCryptoClient(app).WhoAmI(ctx, &v1.WhoAmIRequest{}); err != nil {
		return fmt.Errorf("%s: %w", p.application, err)
	}
	control, err := client.Dial(p.control)
	if err != nil {
		return err
	}
	defer control.Close()
	if _, err := v1.NewControlClient(control).Status(ctx, &v1.StatusRequest{}); err != nil {
		return fmt.Errorf("%s: %w", p.control, err)
	}
	return nil
}
