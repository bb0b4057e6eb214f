package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/config"
	"github.com/kmsbroker/kmsbroker/broker/datakey"
	"github.com/kmsbroker/kmsbroker/broker/evidence"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/broker/metrics"
	"github.com/kmsbroker/kmsbroker/broker/proxy"
	doors "github.com/kmsbroker/kmsbroker/broker/serve"
	"github.com/kmsbroker/kmsbroker/internal/build"
)

// serve runs the daemon until ctx ends.
func serve(ctx context.Context, cfg *config.Config, reload *reloader, log *slog.Logger) (err error) {
	passed := passedBySystemd() // before there are processes that could inherit them
	if err := makeDirectories(cfg); err != nil {
		return err
	}
	keys, err := keyring.Open(cfg.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	trail, err := audit.Open(auditOptions(cfg, keys, log))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, trail.Close()) }()
	signer, err := evidence.OpenSigner(cfg.StateDir)
	if err != nil {
		return err
	}
	measured := metrics.New(build.Version())
	regions, closeKMS, err := openKMS(cfg.KMS, measured.KMS, log)
	if err != nil {
		return err
	}
	defer closeKMS()

	tracer, flush, err := openTracing(ctx, cfg.Tracing, log)
	if err != nil {
		return err
	}
	defer flush()
	backends := makeBackends(cfg, keys, trail, log)
	units := doors.Units{WithoutPIDFD: cfg.UnitWithoutPIDFD}
	warnOfUnits(cfg, units.Unknown(), log)
	warnOfApps(cfg.Grants, cfg.Alibaba.Listen, log)
	reload.unitsUnknown = units.Unknown()
	core := broker.New(broker.Config{
		Version: build.Version(), Keyring: keys, Audit: trail, Backends: backends,
		Regions: regions, Policy: authz.NewPolicy(cfg.Grants, cfg.Objects...), Now: time.Now, Log: log, Evidence: signer,
		Reload: reload.read, UnitsUnknown: units.Unknown(), Envelope: datakey.Limits(cfg.Envelope), Proxy: proxyLimits(cfg),
	})
	measured.Watch(core.Status)
	if err := recordStart(ctx, trail, regions); err != nil {
		return err
	}
	for _, region := range regions.Regions() {
		endpoint := regions.ByRegion[region]
		log.Info("kmsbrokerd starting", "version", build.Version(), "region", region, "endpoint", endpoint.URL, "genuine", endpoint.Genuine)
	}

	if len(cfg.Backends) == 0 || len(regions.ByRegion) == 0 && len(cfg.Objects) == 0 {
		log.Warn("there is nothing to do before [kms] and a [backend.NAME] are configured: see kmsbrokerd.toml(5), or run `kmsbrokerctl init`",
			"backends", len(cfg.Backends), "regions", len(regions.ByRegion))
	}

	// The backends outlive the doors, so that calls in flight can end.
	backendCtx, stopBackends := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { backends.Run(backendCtx) })
	running.Go(func() { core.KeepMaterial(backendCtx) })
	running.Go(func() { core.KeepDataKeys(backendCtx) })
	running.Go(func() { reload.serve(backendCtx, core) })
	err = openDoors(ctx, &house{cfg, units, core, measured, log, doors.NewRoom(), passed, tracer})
	stopBackends()
	running.Wait()
	stopErr := trail.Append(context.WithoutCancel(ctx), audit.Event{Action: audit.DaemonStop, Outcome: audit.Done})
	return errors.Join(err, stopErr)
}

// proxyLimits are nil without a PKCS#11 socket.
func proxyLimits(cfg *config.Config) *proxy.Limits {
	if cfg.Sockets.PKCS11 == "" {
		return nil
	}
	limits := proxy.Limits(cfg.Proxy)
	return &limits
}

// auditDir is where the trail is within the state directory.
const auditDir = "audit"

func auditOptions(cfg *config.Config, keys *keyring.Keyring, log *slog.Logger) audit.Options {
	return audit.Options{
		Dir: filepath.Join(cfg.StateDir, auditDir), Registry: keys, Logger: log,
		CommitDelay: cfg.Audit.CommitDelay, BeforeAnswer: cfg.Audit.BeforeAnswer, Unrecorded: cfg.Audit.Unrecorded,
		SegmentSize: cfg.Audit.SegmentSize, SegmentAge: cfg.Audit.SegmentAge, Reserve: cfg.Audit.Reserve,
	}
}

func recordStart(ctx context.Context, trail *audit.Log, regions importer.Endpoints) error {
	if len(regions.ByRegion) == 0 {
		details := map[string]string{audit.DetailVersion: build.Version()}
		return trail.Append(ctx, audit.Event{Action: audit.DaemonStart, Outcome: audit.Done, Details: details})
	}
	for _, region := range regions.Regions() {
		endpoint := regions.ByRegion[region]
		details := map[string]string{
			audit.DetailVersion: build.Version(), audit.DetailRegion: region, audit.DetailEndpoint: endpoint.URL,
		}
		if !endpoint.Genuine {
			details[audit.DetailForeign] = "true"
		}
		if err := trail.Append(ctx, audit.Event{Action: audit.DaemonStart, Outcome: audit.Done, Details: details}); err != nil {
			return err
		}
	}
	return nil
}
