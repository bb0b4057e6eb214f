package main

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/kmsbroker/kmsbroker/broker/config"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/reliable"
)

// regionClients are the clients of all regions, to be closed together.
type regionClients struct {
	credentials kmsapi.CredentialSource
	quota       reliable.Quotas
	observer    func(region string) reliable.Observer
	open        []closer
}

// openKMS makes the clients of all regions, each with its observer. It contacts
// nothing.
func openKMS(cfg config.KMS, observer func(region string) reliable.Observer, log *slog.Logger) (regions importer.Endpoints, closeAll func(), err error) {
	clients := &regionClients{quota: reliable.Quotas(cfg.Quota), observer: observer}
	if err := clients.identify(cfg, log); err != nil {
		clients.close()
		return regions, nil, err
	}
	regions = importer.Endpoints{Default: cfg.Default.Region, ByRegion: map[string]importer.Endpoint{}}
	for _, region := range cfg.AllRegions() {
		if regions.ByRegion[region.Region], err = clients.region(region); err != nil {
			clients.close()
			return regions, nil, fmt.Errorf("KMS of %s: %w", region.Region, err)
		}
	}
	return regions, clients.close, nil
}

// close closes the clients, then the sources that their credentials came from.
func (c *regionClients) close() {
	for _, open := range slices.Backward(c.open) {
		open.Close()
	}
}

type closer interface{ Close() }

// region makes the client of one region: its endpoints in their order and, with a
// KMS instance, the dedicated gateway for the data.
func (c *regionClients) region(cfg config.Region) (importer.Endpoint, error) {
	addresses := cfg.Endpoints
	if len(addresses) == 0 {
		addresses = []string{""} // the region's public endpoint
	}
	e := importer.Endpoint{Region: cfg.Region, InstanceID: cfg.Instance.ID, Genuine: true}
	var endpoints []reliable.Endpoint
	var urls []string
	for _, address := range addresses {
		client, err := c.client(cfg.Region, address, cfg.CAFile)
		if err != nil {
			return e, err
		}
		// Key material goes to whichever answers.
		e.Genuine = e.Genuine && client.Genuine()
		urls = append(urls, client.Endpoint().String())
		endpoints = append(endpoints, reliable.Endpoint{Name: client.Endpoint().String(), KMS: client})
	}
	e.URL = strings.Join(urls, ", ")
	for _, algorithm := range kmsapi.WrappingAlgorithms(cfg.Instance.ID) {
		e.WrappingAlgorithms = append(e.WrappingAlgorithms, hsm.WrappingAlgorithm(algorithm))
	}
	management, err := reliable.New(reliable.Config{Endpoints: endpoints, Quotas: c.quota, Observer: c.observer(cfg.Region)})
	if err != nil {
		return e, err
	}
	e.KMS, e.Health = management, func() []reliable.EndpointStatus { return management.Status().Endpoints }
	if cfg.Instance.ID == "" {
		return e, nil
	}
	return e, c.instance(cfg, &e, management)
}

// instance sends the data to the dedicated gateway of a KMS instance.
func (c *regionClients) instance(cfg config.Region, e *importer.Endpoint, management *reliable.Client) error {
	gateway, err := c.client(cfg.Region, cfg.Instance.Endpoint, cfg.Instance.CAFile)
	if err != nil {
		return err
	}
	data, err := reliable.New(reliable.Config{
		Endpoints: []reliable.Endpoint{{Name: gateway.Endpoint().String(), KMS: gateway}}, Quotas: c.quota, Observer: c.observer(cfg.Region),
	})
	if err != nil {
		return err
	}
	e.KMS = kmsapi.NewSplit(data, management)
	e.URL += ", data through " + gateway.Endpoint().String()
	e.Health = func() []reliable.EndpointStatus {
		return append(management.Status().Endpoints, data.Status().Endpoints...)
	}
	return nil
}

func (c *regionClients) client(region, address, caFile string) (*kmsapi.Client, error) {
	cfg := kmsapi.ClientConfig{Region: region, Endpoint: address, Credentials: c.credentials}
	if caFile != "" {
		roots, err := readRoots(caFile)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = roots
	}
	client, err := kmsapi.NewClient(cfg)
	if err == nil {
		c.open = append(c.open, client)
	}
	return client, err
}

// readRoots reads certificate authorities. Whoever can exchange them reads every
// plaintext.
func readRoots(path string) (*x509.CertPool, error) {
	if err := checkUnchangeable(path); err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no PEM certificate", path)
	}
	return roots, nil
}
