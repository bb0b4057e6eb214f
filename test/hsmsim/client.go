package hsmsim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// receiveTimeout is what the client waits before it believes that the device is
// gone, in milliseconds. The real default is 20 seconds.
const receiveTimeout = 200

// writeLunaClient makes the directory of a Luna Network HSM client. Keys and
// values are those of Thales' example files.
func (s *Sim) writeLunaClient(more string) {
	s.t.Helper()
	s.write("Chrystoki.conf", fmt.Sprintf(`Chrystoki2 = {
   LibUNIX = %[1]s;
   LibUNIX64 = %[1]s;
}

Luna = {
   DefaultTimeOut = 500000;
   PEDTimeout1 = 100000;
   PEDTimeout2 = 200000;
   PEDTimeout3 = 10000;
   KeypairGenTimeOut = 2700000;
   CloningCommandTimeOut = 300000;
   CommandTimeOutPedSet = 720000;
}

CardReader = {
   RemoteCommand = 1;
}

LunaSA Client = {
   ReceiveTimeout = %[2]d;
   NetClient = 1;
   TCPKeepAlive = 1;
   ServerName00 = hsm.example;
   ServerPort00 = 1792;
   ServerHtl00 = 0;
}

Misc = {
   PE1746Enabled = 0;
}
%[3]s`, s.Library, receiveTimeout, more), 0o644)
}

// groupSections is what `lunacm hagroup` adds for an HA group. No Thales page
// names the keys; they are those of configurations that users have published.
func (s *Sim) groupSections() string {
	return fmt.Sprintf(`
VirtualToken = {
   VirtualToken00Label = %[1]s;
   VirtualToken00SN = %[2]s;
   VirtualToken00Members = %[3]s;
   VirtualTokenActiveRecovery = activeEnhanced;
}

HASynchronize = {
   %[1]s = 1;
}

HAConfiguration = {
   haLogStatus = disabled;
   reconnAtt = -1;
   AutoReconnectInterval = 60;
}
`, s.Label, s.Serial, strings.Join(s.MemberSerials, ","))
}

// writeServiceClient makes the directory of a DPoD service client as it is
// after `source ./setenv`: absolute paths, no placeholder slots.
func (s *Sim) writeServiceClient() {
	s.t.Helper()
	for _, name := range []string{"server-certificate.pem", "partition-ca-certificate.pem", "partition-certificate.pem"} {
		s.write(name, s.certificate(name), 0o600)
	}
	s.write("etc/openssl.cnf", "# the client's own OpenSSL configuration\n", 0o644)
	s.write("libs/64/plugins/libdpod.plugin", "", 0o644)
	library := filepath.Join(s.Dir, "libs/64/libCryptoki2.so")
	if err := os.Symlink(s.Library, library); err != nil {
		s.t.Fatal(err)
	}
	s.Library = library
	s.write("Chrystoki.conf", fmt.Sprintf(`Chrystoki2 = {
   LibUNIX64 = %[1]s/libs/64/libCryptoki2.so;
}

CardReader = {
   RemoteCommand = 1;
   LunaG5Slots = 0;
}

LunaSA Client = {
   ReceiveTimeout = %[2]d;
   SSLConfigFile = %[1]s/etc/openssl.cnf;
   NetClient = 1;
   TCPKeepAlive = 1;
}

REST = {
   ServerName = eu.hsm.dpondemand.io;
   ServerPort = 443;
   SSLClientSideVerifyFile = %[1]s/server-certificate.pem;
   AuthTokenConfigURI = https://identity.example/.well-known/openid-configuration;
   AuthTokenClientID = 00000000-0000-4000-8000-000000000000;
   AuthTokenClientSecret = not-a-real-secret;
}

XTC = {
   Enabled = 1;
   PartitionCAPath = %[1]s/partition-ca-certificate.pem;
   PartitionCertPath00 = %[1]s/partition-certificate.pem;
}

Misc = {
   PluginModuleDir = %[1]s/libs/64/plugins;
}
`, s.Dir, receiveTimeout), 0o600)
}

// certificate makes a self-signed certificate; nothing in a simulated device
// verifies it.
func (s *Sim) certificate(name string) string {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
