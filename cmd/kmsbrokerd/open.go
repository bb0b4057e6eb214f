package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// openDoors serves until ctx ends and the calls in flight did too.
func openDoors(ctx context.Context, h *house) error {
	all, err := h.doors(ctx)
	switch {
	case ctx.Err() != nil:
		return nil // told to stop before it began
	case err != nil:
		return err
	}
	var serving sync.WaitGroup
	failed := make(chan error, len(all))
	defer serving.Wait()
	for _, d := range all {
		listener, err := d.listen(ctx, h.measured.Refused(d.name))
		if err != nil {
			stopAll(all)
			return err
		}
		if d.path != "" {
			defer os.Remove(d.path)
		}
		serving.Go(func() { failed <- d.open(listener) })
	}
	h.passed.close(h.log)
	notify(h.log, daemon.SdNotifyReady)
	watching, stopWatching := context.WithCancel(ctx)
	patience, watchErr := daemon.SdWatchdogEnabled(true)
	if watchErr != nil {
		h.log.Warn("no watchdog", "error", watchErr)
	}
	if patience > 0 {
		p, err := pulseOf(ctx, h.cfg, all, func(d door, l net.Listener) { serving.Go(func() { h.reopened(d, l) }) })
		if err != nil {
			stopWatching()
			stopAll(all)
			return err
		}
		serving.Go(func() { feedWatchdog(watching, p, patience, h.log) })
	}
	serving.Go(func() { tellStatus(watching, h.core.Status, h.log) })
	for _, d := range all {
		if d.path != "" {
			serving.Go(func() { h.keep(watching, d) })
		}
	}
	defer stopWatching()
	sockets := h.cfg.Sockets
	h.log.Info("kmsbrokerd ready", "control", sockets.Control, "application", sockets.Application, "metrics", sockets.Metrics,
		"alibaba", sockets.Alibaba, "alibaba_tcp", h.cfg.Alibaba.Listen, "pkcs11", sockets.PKCS11, "kubernetes", len(h.cfg.Kubernetes))
	select {
	case <-ctx.Done():
		h.log.Info("kmsbrokerd stopping")
	case err = <-failed:
	}
	notify(h.log, daemon.SdNotifyStopping)
	stopAll(all)
	return err
}

func (d door) open(listener net.Listener) error {
	if err := d.serve(listener); err != nil {
		return fmt.Errorf("%s: %w", d.at, err)
	}
	return nil
}

func stopAll(all []door) {
	var stopping sync.WaitGroup
	for _, d := range all {
		stopping.Go(d.stop)
	}
	stopping.Wait()
}

// lookEvery is how soon a socket that was removed is there again.
const lookEvery = 5 * time.Second

// keep makes the socket of a door again when somebody has removed or replaced it, until
// ctx ends. Connections through the old one go on.
func (h *house) keep(ctx context.Context, d door) {
	var serving sync.WaitGroup
	defer serving.Wait()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	ours, err := os.Lstat(d.path)
	for complained := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now, lookErr := os.Lstat(d.path)
		if err == nil && lookErr == nil && os.SameFile(ours, now) {
			continue
		}
		listener, listenErr := d.listen(ctx, h.measured.Refused(d.name))
		if listenErr != nil {
			if !complained {
				h.log.Error("a socket was removed and cannot be made again", "door", d.name, "path", d.path, "error", listenErr)
			}
			complained = true
			continue
		}
		complained = false
		ours, err = os.Lstat(d.path)
		h.measured.SocketRemade(d.name)
		h.log.Warn("a socket was removed, and is there again", "door", d.name, "path", d.path)
		serving.Go(func() { h.reopened(d, listener) })
	}
}

// reopened serves at another listener of a door.
func (h *house) reopened(d door, listener net.Listener) {
	if err := d.open(listener); err != nil {
		h.log.Error("a door is closed", "error", err)
	}
}
