package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/plugins/internal/chrystoki"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// configuration is what setenv makes of a service client, with DIR for its
// directory.
const configuration = `Chrystoki2 = {
   LibNT = D:\dpod\cryptoki.dll;
   LibUNIX64 = DIR/libs/64/libCryptoki2.so;
}
REST = {
   AuthTokenConfigURI = https://login.example.dpondemand.io/.well-known/openid-configuration;
   AuthTokenClientID = 5f6ad3e0;
   AuthTokenClientSecret = hunter2;
   ServerName = eu.hsm.dpondemand.io;
   ServerPort = 443;
   SSLClientSideVerifyFile = DIR/server-certificate.pem;
}
XTC = {
   Enabled = 1;
   PartitionCAPath = DIR/partition-ca-certificate.pem;
   PartitionCertPath00 = DIR/partition-certificate.pem;
}
Misc = {
   PluginModuleDir = DIR/libs/64/plugins;
}
LunaSA Client = {
   SSLConfigFile = DIR/etc/openssl.cnf;
   ClientPrivKeyFile = DIR/etc/ClientNameKey.pem;
}
CardReader = {
   LunaG5Slots = 0;
}
`

// clientDir is an unpacked service client that is as it should be.
type clientDir struct{ path string }

func newClientDir(t *testing.T) clientDir {
	t.Helper()
	d := clientDir{t.TempDir()}
	if err := os.MkdirAll(filepath.Join(d.path, "libs/64/plugins"), 0o755); err != nil {
		t.Fatal(err)
	}
	d.write(t, "libs/64/libCryptoki2.so", "a library", 0o755)
	d.write(t, "libs/64/plugins/libdpod.plugin", "", 0o644)
	if err := os.Mkdir(filepath.Join(d.path, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	d.write(t, "etc/openssl.cnf", "", 0o644)
	d.write(t, "etc/ClientNameKey.pem", "", 0o600)
	good := certificate(t, now.Add(-time.Hour), now.Add(time.Hour))
	for _, name := range []string{"server-certificate.pem", "partition-ca-certificate.pem", "partition-certificate.pem"} {
		d.write(t, name, good, 0o644)
	}
	d.configure(t)
	return d
}

func (d clientDir) write(t *testing.T, name, content string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(d.path, name)
	if err := errors.Join(os.WriteFile(path, []byte(content), mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

// configure writes Chrystoki.conf with pairs of texts replaced.
func (d clientDir) configure(t *testing.T, changes ...string) {
	t.Helper()
	changed := strings.NewReplacer(changes...).Replace(configuration)
	if changed == configuration && len(changes) > 0 {
		t.Fatalf("%q is not in the configuration", changes)
	}
	d.write(t, chrystoki.FileName, strings.ReplaceAll(changed, "DIR", d.path), 0o600)
}

func (d clientDir) remove(t *testing.T, name string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(d.path, name)); err != nil {
		t.Fatal(err)
	}
}

func certificate(t *testing.T, from, to time.Time) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestGoodClientDir(t *testing.T) {
	d := newClientDir(t)
	check := func(t *testing.T) {
		t.Helper()
		conf, err := checkClientDir(d.path, now)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := conf.Library(), filepath.Join(d.path, "libs/64/libCryptoki2.so"); got != want {
			t.Errorf("library %s, want %s", got, want)
		}
	}
	t.Run("as setenv leaves it", check)
	t.Run("client before 10.2, without token service and modules", func(t *testing.T) {
		d.configure(t,
			"   AuthTokenConfigURI = https://login.example.dpondemand.io/.well-known/openid-configuration;\n", "",
			"   AuthTokenClientID = 5f6ad3e0;\n", "", "   AuthTokenClientSecret = hunter2;\n", "",
			"   PluginModuleDir = DIR/libs/64/plugins;\n", "")
		d.write(t, baseFileName, "nothing secret", 0o644)
		if err := os.Chmod(filepath.Join(d.path, chrystoki.FileName), 0o644); err != nil {
			t.Fatal(err)
		}
		check(t)
	})
}

func TestDefects(t *testing.T) {
	const setenv = "run `source ./setenv` in "
	expired := certificate(t, now.Add(-2*time.Hour), now.Add(-time.Hour))
	future := certificate(t, now.Add(time.Hour), now.Add(2*time.Hour))
	broken := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("not DER")}))
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("a key")}))
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, d clientDir)
		says  string
	}{
		{"no configuration", func(t *testing.T, d clientDir) { d.remove(t, chrystoki.FileName) }, "Chrystoki.conf is missing in "},
		{"broken configuration", func(t *testing.T, d clientDir) { d.configure(t, "443;", "443") }, `line 10: the value of "ServerPort" does not end`},
		{"no LibUNIX64", func(t *testing.T, d clientDir) { d.configure(t, "LibUNIX64", "LibUNIX") }, "LibUNIX64 is not set in section Chrystoki2: " + setenv},
		{"relative LibUNIX64", func(t *testing.T, d clientDir) { d.configure(t, "DIR/libs/64/lib", "./libs/64/lib") }, "LibUNIX64 ./libs/64/libCryptoki2.so is not absolute: " + setenv},
		{"library absent", func(t *testing.T, d clientDir) { d.remove(t, "libs/64/libCryptoki2.so") }, "libCryptoki2.so does not exist"},
		{"library is a directory", func(t *testing.T, d clientDir) { d.configure(t, "libs/64/libCryptoki2.so", "libs/64") }, "libs/64 is not a readable file"},
		{"moved", func(t *testing.T, d clientDir) { d.configure(t, "DIR", "/opt/dpod/client") },
			"the directory was moved from /opt/dpod/client, which LibUNIX64 still points to: " + setenv},
		{"no REST", func(t *testing.T, d clientDir) { d.configure(t, "REST =", "RUST =") }, "section REST is missing"},
		{"no XTC", func(t *testing.T, d clientDir) { d.configure(t, "XTC =", "XTZ =") }, "section XTC is missing"},
		{"no server", func(t *testing.T, d clientDir) { d.configure(t, "ServerName = eu.hsm.dpondemand.io", "ServerName = ") }, "ServerName is not set in section REST: " + setenv},
		{"no port", func(t *testing.T, d clientDir) { d.configure(t, "   ServerPort = 443;\n", "") }, `ServerPort "" in section REST is not a port: ` + setenv},
		{"port out of range", func(t *testing.T, d clientDir) { d.configure(t, "443", "70000") }, `ServerPort "70000" in section REST is not a port`},
		{"old form", func(t *testing.T, d clientDir) {
			d.configure(t, "   ServerName = eu.hsm.dpondemand.io;\n   ServerPort = 443;", "   PartitionData00 = 1, eu.hsm.dpondemand.io, 443;")
		}, "the old form PartitionData00: " + setenv},
		{"token service incomplete", func(t *testing.T, d clientDir) { d.configure(t, "   AuthTokenClientID = 5f6ad3e0;\n", "") }, "section REST lacks AuthTokenClientID: "},
		{"secret open to others", func(t *testing.T, d clientDir) {
			if err := os.Chmod(filepath.Join(d.path, chrystoki.FileName), 0o640); err != nil {
				t.Fatal(err)
			}
		}, "Chrystoki.conf contains AuthTokenClientSecret and others may use it (mode 0640): chmod 600 "},
		{"secret in the base file open to others", func(t *testing.T, d clientDir) { d.write(t, baseFileName, "", 0o604) },
			"Chrystoki-base.conf contains AuthTokenClientSecret and others may use it (mode 0604)"},
		{"no SSLClientSideVerifyFile", func(t *testing.T, d clientDir) { d.configure(t, "SSLClientSideVerifyFile", "Other") },
			"SSLClientSideVerifyFile is not set in section REST: " + setenv},
		{"server certificate absent", func(t *testing.T, d clientDir) { d.remove(t, "server-certificate.pem") },
			"SSLClientSideVerifyFile: "},
		{"no PartitionCAPath", func(t *testing.T, d clientDir) { d.configure(t, "PartitionCAPath", "Other") }, "PartitionCAPath is not set in section XTC: " + setenv},
		{"no PartitionCertPath00", func(t *testing.T, d clientDir) { d.configure(t, "PartitionCertPath00", "Other") }, "PartitionCertPath00 is not set in section XTC: " + setenv},
		{"certificate is no PEM", func(t *testing.T, d clientDir) { d.write(t, "partition-certificate.pem", "text", 0o644) },
			"partition-certificate.pem contains no PEM certificate"},
		{"certificate is a directory", func(t *testing.T, d clientDir) { d.configure(t, "DIR/partition-certificate.pem", "DIR/libs") }, "PartitionCertPath00: read "},
		{"certificate cannot be parsed", func(t *testing.T, d clientDir) { d.write(t, "partition-ca-certificate.pem", broken, 0o644) },
			"partition-ca-certificate.pem has a certificate that cannot be parsed"},
		{"certificate expired", func(t *testing.T, d clientDir) { d.write(t, "partition-certificate.pem", expired, 0o644) },
			"partition-certificate.pem expired on 2026-03-01: download the service client again"},
		{"certificate not valid yet", func(t *testing.T, d clientDir) { d.write(t, "server-certificate.pem", future, 0o644) },
			"server-certificate.pem is not valid before 2026-03-01T13:00:00Z: is the clock right?"},
		{"second certificate expired", func(t *testing.T, d clientDir) {
			d.write(t, "partition-ca-certificate.pem", certificate(t, now.Add(-time.Hour), now.Add(time.Hour))+expired, 0o644)
		}, "partition-ca-certificate.pem expired on "},
		{"private key open to others", func(t *testing.T, d clientDir) {
			d.write(t, "partition-certificate.pem", certificate(t, now.Add(-time.Hour), now.Add(time.Hour))+key, 0o644)
		}, "partition-certificate.pem contains a private key and others may use it"},
		{"no modules", func(t *testing.T, d clientDir) { d.remove(t, "libs/64/plugins") }, "PluginModuleDir: "},
		{"module for the service absent", func(t *testing.T, d clientDir) { d.remove(t, "libs/64/plugins/libdpod.plugin") }, "has no libdpod.plugin"},
		{"client's TLS configuration absent", func(t *testing.T, d clientDir) { d.remove(t, "etc/openssl.cnf") }, "SSLConfigFile: "},
		{"client's key relative", func(t *testing.T, d clientDir) { d.configure(t, "DIR/etc/ClientNameKey.pem", "etc/ClientNameKey.pem") },
			"ClientPrivKeyFile etc/ClientNameKey.pem is not absolute: " + setenv},
		{"client's key open to others", func(t *testing.T, d clientDir) { d.write(t, "etc/ClientNameKey.pem", "", 0o640) },
			"ClientNameKey.pem contains a private key and others may use it (mode 0640)"},
		{"empty USB slots shown", func(t *testing.T, d clientDir) { d.configure(t, "LunaG5Slots = 0", "LunaG5Slots = 3") }, "LunaG5Slots is 3 in section CardReader: " + setenv},
		{"modules are a file", func(t *testing.T, d clientDir) { d.configure(t, "libs/64/plugins", "server-certificate.pem") }, "server-certificate.pem is not a directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newClientDir(t)
			test.spoil(t, d)
			_, err := checkClientDir(d.path, now)
			if !errors.Is(err, hsm.Misconfigured) || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("got %v, want %q", err, test.says)
			}
			if n := strings.Count(err.Error(), "; "); n != 0 {
				t.Errorf("one defect has %d complaints: %v", n+1, err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

func TestAllDefectsAtOnce(t *testing.T) {
	d := newClientDir(t)
	d.configure(t, "443", "https", "REST", "REST", "PartitionCAPath", "Other")
	d.remove(t, "libs/64/plugins")
	_, err := checkClientDir(d.path, now)
	for _, says := range []string{"ServerPort", "PartitionCAPath", "PluginModuleDir"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not name %s", err, says)
		}
	}
}

func TestBadDirectories(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ dir, says string }{
		{"", "client_dir is not configured"},
		{"dpod", "client_dir dpod must be absolute"},
		{"/nowhere/dpod", "no such file or directory"},
		{file, "is not a directory"},
	} {
		if _, err := checkClientDir(test.dir, now); !errors.Is(err, hsm.Misconfigured) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%q: got %v, want %q", test.dir, err, test.says)
		}
	}
}
