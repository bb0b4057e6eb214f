package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/config"
)

// reloader reads the configuration again that the daemon runs with.
type reloader struct {
	path    string
	running *config.Config
	hangup  <-chan os.Signal // SIGHUP
	log     *slog.Logger
	// unitsUnknown says why no caller's unit can be known; "" if they can.
	unitsUnknown string
}

// read returns the grants of the file, which must be right as a whole.
func (r *reloader) read() (broker.Reloaded, error) {
	defer reloading(r.log)()
	next, err := config.Load(r.path)
	if err != nil {
		return broker.Reloaded{}, brief(err)
	}
	warnOfUnits(next, r.unitsUnknown, r.log)
	warnOfApps(next.Grants, r.running.Alibaba.Listen, r.log)
	return broker.Reloaded{Policy: authz.NewPolicy(next.Grants, next.Objects...), Restart: r.running.Restart(next)}, nil
}

// brief puts the first mistakes of a file into one line.
func brief(err error) error {
	problems, ok := errors.AsType[config.Problems](err)
	if !ok {
		return err
	}
	const most = 5
	var texts []string
	for _, p := range problems[:min(most, len(problems))] {
		texts = append(texts, p.String())
	}
	if more := len(problems) - most; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return errors.New(strings.Join(texts, "; "))
}

// serve reloads the policy at each SIGHUP until ctx ends.
func (r *reloader) serve(ctx context.Context, core *broker.Broker) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.hangup:
		}
		loaded, err := core.ReloadPolicy(ctx, broker.Call{})
		if err != nil {
			r.log.Error("policy not reloaded", "error", err)
			continue
		}
		r.log.Info("policy reloaded", "grants", loaded.Policy.Len(), "pkcs11_grants", loaded.Policy.LenObjects())
		if len(loaded.Restart) > 0 {
			r.log.Warn("settings differ that need a restart", "settings", loaded.Restart)
		}
	}
}

// warnOfApps tells that grants to applications match nobody.
func warnOfApps(grants []authz.Grant, listen string, log *slog.Logger) {
	if listen == "" && slices.ContainsFunc(grants, func(g authz.Grant) bool { return len(g.Apps) > 0 }) {
		log.Warn("there are grants to apps, and alibaba.listen does not say where these are answered")
	}
}

// warnOfUnits tells that grants to units match nobody.
func warnOfUnits(cfg *config.Config, unknown string, log *slog.Logger) {
	if unknown != "" && cfg.NamesUnits() {
		log.Warn("callers' units are unknown: what is allowed to units is allowed to nobody, and what is denied to them to everybody", "reason", unknown)
	}
}
