package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/kmsapi/reliable"
)

// notify tells systemd something, sd_notify(3). Elsewhere it does nothing.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd was not notified", "error", err)
	}
}

// reloading tells systemd that the configuration is read, until the returned
// function is called.
func reloading(log *slog.Logger) (done func()) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		log.Warn("no monotonic clock", "error", err)
	}
	notify(log, fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, time.Duration(now.Nano()).Microseconds()))
	return func() { notify(log, daemon.SdNotifyReady) }
}

// statusEvery is how old the text in `systemctl status` may be.
const statusEvery = 10 * time.Second

// tellStatus keeps the text in `systemctl status` true until ctx ends.
func tellStatus(ctx context.Context, status func() broker.Status, log *slog.Logger) {
	ticker := time.NewTicker(statusEvery)
	defer ticker.Stop()
	for last := ""; ; {
		s := status()
		if line := statusLine(&s); line != last {
			notify(log, "STATUS="+line)
			last = line
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// statusLine says what an administrator has to know first.
func statusLine(s *broker.Status) string {
	ready := 0
	for _, b := range s.Backends {
		if b.State == backend.Ready {
			ready++
		}
	}
	parts := []string{fmt.Sprintf("%d of %d backends ready", ready, len(s.Backends)), fmt.Sprintf("%d keys", s.Keys)}
	if n := len(s.Unfinished); n > 0 {
		parts = append(parts, fmt.Sprintf("%d imports unfinished", n))
	}
	for _, r := range s.Regions {
		open := 0
		for _, a := range r.Addresses {
			if a.State != reliable.Closed {
				open++
			}
		}
		if open > 0 && open == len(r.Addresses) {
			parts = append(parts, "KMS in "+r.Region+" does not answer")
		}
	}
	if s.AuditErr != nil {
		parts = append(parts, "THE AUDIT TRAIL CANNOT BE WRITTEN")
	}
	return strings.Join(parts, "; ")
}
