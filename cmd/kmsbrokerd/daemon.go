package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/config"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// serve runs the daemon until ctx ends.
func serve(ctx context.Context, cfg *config.Config, log *slog.Logger) (err error) {
	if err := makeDirectories(cfg); err != nil {
		return err
	}
	keys, err := keyring.Open(cfg.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	trail, err := audit.Open(filepath.Join(cfg.StateDir, "audit"), time.Now)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, trail.Close()) }()
	endpoint, kms, err := openKMS(cfg.KMS)
	if err != nil {
		return err
	}
	defer kms.Close()

	backends := makeBackends(cfg, keys, trail, log)
	core := broker.New(broker.Config{
		Version: version, Keyring: keys, Audit: trail, Backends: backends,
		Endpoint: endpoint, Policy: authz.NewPolicy(cfg.Grants), Now: time.Now,
	})
	if err := recordStart(ctx, trail, endpoint); err != nil {
		return err
	}
	log.Info("kmsbrokerd starting", "version", version, "region", endpoint.Region, "endpoint", endpoint.URL, "genuine", endpoint.Genuine)

	// The backends outlive the doors, so that calls in flight can end.
	backendCtx, stopBackends := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { backends.Run(backendCtx) })
	err = openDoors(ctx, cfg.Sockets, core, log)
	stopBackends()
	running.Wait()
	stopErr := trail.Append(context.WithoutCancel(ctx), audit.Event{Action: audit.DaemonStop, Outcome: audit.Done})
	return errors.Join(err, stopErr)
}

func recordStart(ctx context.Context, trail *audit.Log, endpoint importer.Endpoint) error {
	details := map[string]string{audit.DetailVersion: version, audit.DetailEndpoint: endpoint.URL}
	if !endpoint.Genuine {
		details[audit.DetailForeign] = "true"
	}
	return trail.Append(ctx, audit.Event{Action: audit.DaemonStart, Outcome: audit.Done, Details: details})
}

func openKMS(cfg config.KMS) (importer.Endpoint, *kmsapi.Client, error) {
	none := importer.Endpoint{}
	credentials, err := kmsapi.CredentialsFile(cfg.CredentialsFile)
	if err != nil {
		return none, nil, err
	}
	clientConfig := kmsapi.ClientConfig{Region: cfg.Region, Endpoint: cfg.Endpoint, Credentials: credentials}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return none, nil, err
		}
		clientConfig.RootCAs = x509.NewCertPool()
		if !clientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return none, nil, fmt.Errorf("ca_file %s holds no PEM certificate", cfg.CAFile)
		}
	}
	kms, err := kmsapi.NewClient(clientConfig)
	if err != nil {
		return none, nil, err
	}
	return importer.Endpoint{
		KMS: kms, URL: kms.Endpoint().String(), Region: cfg.Region, Genuine: kms.Genuine(),
		// The shared gateway accepts all three (GetParametersForImport).
		WrappingAlgorithms: hsm.WrappingAlgorithms(),
	}, kms, nil
}
