package emulator_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

var readyLine = regexp.MustCompile(`^ready: (https?://127\.0\.0\.1:[1-9][0-9]*)\n$`)

// run starts Run and returns the URL that it prints and a function that stops it
// and returns its error.
func run(t *testing.T, cfg emulator.RunConfig, log io.Writer) (url string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := emulator.Run(ctx, cfg, in, slog.New(slog.NewJSONHandler(log, nil)))
		in.Close()
		ended <- err
	}()
	line := make([]byte, 100)
	n, err := out.Read(line)
	if err != nil {
		cancel()
		t.Fatalf("no ready line: %v", <-ended)
	}
	match := readyLine.FindSubmatch(line[:n])
	if match == nil {
		t.Errorf("printed %q", line[:n])
		match = [][]byte{nil, nil}
	}
	return string(match[1]), func() error {
		cancel()
		return <-ended
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	roots := writeCertificate(t, cert, key)
	for scheme, cfg := range map[string]emulator.RunConfig{
		"http":  {},
		"https": {CertFile: cert, KeyFile: key},
	} {
		t.Run(scheme, func(t *testing.T) {
			cfg.Listen, cfg.Regions, cfg.StateDir = "127.0.0.1:0", []string{"cn-hangzhou"}, t.TempDir()
			cfg.AccessKeyID, cfg.AccessKeySecret = rootID, rootSecret
			var log bytes.Buffer
			url, stop := run(t, cfg, &log)
			if !strings.HasPrefix(url, scheme+"://") {
				t.Errorf("ready at %s", url)
			}
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
			defer client.CloseIdleConnections()
			hr, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/?Action=Encrypt&Version=2016-01-20&Plaintext=c2VjcmV0", nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := client.Do(hr)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != http.StatusBadRequest {
				t.Errorf("an unsigned request is answered %s", response.Status)
			}
			if err := stop(); err != nil {
				t.Errorf("Run ended with %v", err)
			}
			if line := log.String(); strings.Contains(line, "c2VjcmV0") || !strings.Contains(line, `"action":"Encrypt"`) || !strings.Contains(line, `"code":"MissingParameter"`) {
				t.Errorf("access log %s", line)
			}
			// The state directory is free again.
			startOn(t, cfg.StateDir, newClock()).Close()
		})
	}
}

func TestRunRefuses(t *testing.T) {
	good := emulator.RunConfig{Listen: "127.0.0.1:0", Regions: []string{"r"}, AccessKeyID: "a", AccessKeySecret: "b"}
	for name, change := range map[string]func(*emulator.RunConfig){
		"certificate without key": func(c *emulator.RunConfig) { c.CertFile = "cert.pem" },
		"missing certificate":     func(c *emulator.RunConfig) { c.CertFile, c.KeyFile = "none.pem", "none.pem" },
		"bad address":             func(c *emulator.RunConfig) { c.Listen = "127.0.0.1:notaport" },
		"metadata without role":   func(c *emulator.RunConfig) { c.MetadataListen = "127.0.0.1:0" },
		"bad metadata address":    func(c *emulator.RunConfig) { c.MetadataListen, c.MetadataRole = "127.0.0.1:notaport", "r" },
		"gateway without TLS": func(c *emulator.RunConfig) {
			c.Instances = []emulator.RunInstance{{ID: "kst-1", Listen: "127.0.0.1:0"}}
		},
		"no region": func(c *emulator.RunConfig) { c.Regions = nil },
	} {
		cfg := good
		change(&cfg)
		var out strings.Builder
		if err := emulator.Run(t.Context(), cfg, &out, slog.New(slog.DiscardHandler)); err == nil || out.Len() > 0 {
			t.Errorf("%s: printed %q and returned %v", name, out.String(), err)
		}
	}
}

// writeCertificate makes a certificate for 127.0.0.1 that is its own authority.
func writeCertificate(t *testing.T, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}

// TestRunServesMetadata starts with a role that is not there yet: whoever serves
// the metadata makes it afterwards.
func TestRunServesMetadata(t *testing.T) {
	cfg := emulator.RunConfig{
		Listen: "127.0.0.1:0", Regions: []string{"r"}, AccessKeyID: rootID, AccessKeySecret: rootSecret,
		MetadataListen: "127.0.0.1:0", MetadataRole: "app",
	}
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := emulator.Run(ctx, cfg, in, slog.New(slog.DiscardHandler))
		in.CloseWithError(err)
		ended <- err
	}()
	lines := bufio.NewScanner(out)
	var urls []string
	for len(urls) < 2 && lines.Scan() {
		_, url, _ := strings.Cut(lines.Text(), ": ")
		urls = append(urls, url)
	}
	if len(urls) < 2 {
		cancel()
		t.Fatalf("printed %q and ended with %v", urls, <-ended)
	}
	get := func(want int) {
		t.Helper()
		hr, err := http.NewRequestWithContext(t.Context(), http.MethodGet, urls[1]+"/latest/meta-data/ram/security-credentials/", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(hr)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("answered %s, want %d", response.Status, want)
		}
	}
	get(http.StatusForbidden) // no token
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}

// TestRunServesGateways finds the gateway of a KMS instance behind TLS.
func TestRunServesGateways(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	roots := writeCertificate(t, cert, key)
	cfg := emulator.RunConfig{
		Listen: "127.0.0.1:0", Regions: []string{"r"}, AccessKeyID: rootID, AccessKeySecret: rootSecret,
		Instances: []emulator.RunInstance{{ID: "kst-1", Listen: "127.0.0.1:0"}}, InstanceCertFile: cert, InstanceKeyFile: key,
	}
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := emulator.Run(ctx, cfg, in, slog.New(slog.DiscardHandler))
		in.CloseWithError(err)
		ended <- err
	}()
	lines := bufio.NewScanner(out)
	url := ""
	for url == "" && lines.Scan() {
		if where, ok := strings.CutPrefix(lines.Text(), "gateway kst-1: "); ok {
			url = where
		}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	hr, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/?Action=Encrypt&Version=2016-01-20", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(hr)
	if err != nil || !strings.HasPrefix(url, "https://") {
		t.Fatalf("%q: %v", url, err)
	}
	response.Body.Close()
	client.CloseIdleConnections()
	if response.StatusCode != http.StatusBadRequest {
		t.Errorf("an unsigned request is answered %s", response.Status)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}
