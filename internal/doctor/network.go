package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/config"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

const (
	networkTime = 10 * time.Second
	// KMS refuses requests whose time stamp is further off than maxSkew; worthSkew is
	// worth a look.
	maxSkew   = 15 * time.Minute
	worthSkew = 30 * time.Second
	// soon is how long before a certificate ends that is told.
	soon = 14 * 24 * time.Hour
)

// network asks each address of KMS for its name, its certificate and its clock.
func (r *report) network(ctx context.Context, cfg *config.Config) {
	for _, region := range cfg.KMS.AllRegions() {
		addresses := region.Endpoints
		if len(addresses) == 0 {
			addresses = []string{"kms." + region.Region + ".aliyuncs.com"}
		}
		if region.Instance.Endpoint != "" {
			r.endpoint(ctx, region.Instance.Endpoint, region.Instance.CAFile)
		}
		for _, address := range addresses {
			r.endpoint(ctx, address, region.CAFile)
		}
	}
}

func (r *report) endpoint(ctx context.Context, address, caFile string) {
	endpoint, err := kmsapi.ParseEndpoint(address)
	check := "KMS at " + address
	if err != nil {
		return // config has said so
	}
	ctx, cancel := context.WithTimeout(ctx, networkTime)
	defer cancel()
	host, _, splitErr := net.SplitHostPort(endpoint.Host)
	if splitErr != nil {
		host = endpoint.Host
	}
	if _, err := net.DefaultResolver.LookupHost(ctx, host); err != nil && os.Getenv("HTTPS_PROXY") == "" && os.Getenv("https_proxy") == "" {
		r.add(check, Problem, "check DNS: /etc/resolv.conf, and whether a kms-vpc address is used outside of its VPC", "%v", err)
		return
	}
	roots, err := rootsOf(caFile)
	if err != nil {
		r.add(check, Problem, "correct ca_file", "%v", err)
		return
	}
	client := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint.String(), nil)
	if err != nil {
		r.add(check, Problem, "", "%v", err)
		return
	}
	resp, err := client.Do(req)
	if err != nil {
		r.add(check, Problem, "check routes and firewall, and with a private authority ca_file; where kmsbrokerd has HTTPS_PROXY, run this with it too", "%v", err)
		return
	}
	defer resp.Body.Close()
	r.certificate(check, resp.TLS)
	r.clock(check, resp.Header.Get("Date"))
}

func rootsOf(caFile string) (*x509.CertPool, error) {
	if caFile == "" {
		return nil, nil //nolint:nilnil // the system's
	}
	content, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("%s has no certificate", caFile)
	}
	return pool, nil
}

func (r *report) certificate(check string, state *tls.ConnectionState) {
	if state == nil {
		r.add(check, Warning, "use https for anything but an emulator", "it answers, without TLS")
		return
	}
	end := state.PeerCertificates[0].NotAfter
	if left := time.Until(end); left < soon {
		r.add(check, Warning, "whoever runs the endpoint has to renew it", "its certificate ends at %s", end.UTC().Format(time.RFC3339))
		return
	}
	r.ok(check, "it answers, with a certificate until %s", end.UTC().Format(time.DateOnly))
}

func (r *report) clock(check, date string) {
	theirs, err := http.ParseTime(date)
	if err != nil {
		r.add("clock", Skipped, "", "%s does not tell the time", check)
		return
	}
	switch skew := time.Since(theirs).Round(time.Second); {
	case skew.Abs() > maxSkew:
		r.add("clock", Problem, "set the clock, and let chrony or systemd-timesyncd keep it", "it is %v from that of %s: every signature is refused", skew, check)
	case skew.Abs() > worthSkew:
		r.add("clock", Warning, "let chrony or systemd-timesyncd keep the clock", "it is %v from that of %s", skew, check)
	default:
		r.ok("clock", "it is that of %s", check)
	}
}
