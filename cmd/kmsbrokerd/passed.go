package main

import (
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
)

// passedSockets are those that systemd has opened for the daemon, by the
// FileDescriptorName of their units. They stay open while there is no daemon, so
// that a restart refuses nobody.
type passedSockets map[string]*os.File

// passedBySystemd takes what sd_listen_fds(3) describes, once for the process.
func passedBySystemd() passedSockets {
	passed := passedSockets{}
	for _, f := range activation.Files(true) {
		passed[f.Name()] = f
	}
	return passed
}

// take returns the listener of that name, nil if there is none. It must be at the
// address that the configuration tells others.
func (p passedSockets) take(name, network, address string) (net.Listener, error) {
	f := p[name]
	if f == nil {
		return nil, nil //nolint:nilnil // documented
	}
	delete(p, name)
	defer f.Close()
	listener, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("the socket that systemd passed as %q: %w", name, err)
	}
	if at := listener.Addr(); at.Network() != network || at.String() != address {
		listener.Close()
		return nil, fmt.Errorf("systemd passed %s %s as %q, and the configuration says %s: change ListenStream= of the socket unit or the configuration",
			at.Network(), at, name, address)
	}
	return listener, nil
}

// close tells of sockets that no door has taken, whose callers would wait for ever.
func (p passedSockets) close(log *slog.Logger) {
	if len(p) > 0 {
		log.Error("systemd passed sockets that the configuration does not have; stop their units",
			"names", strings.Join(slices.Sorted(maps.Keys(p)), ", "))
	}
	for name, f := range p {
		f.Close()
		delete(p, name)
	}
}
