package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/plugins/internal/chrystoki"
)

// baseFileName is what setenv makes Chrystoki.conf from.
const baseFileName = "Chrystoki-base.conf"

// Keys of Chrystoki.conf that the service client needs, and secrets in it.
const (
	keyServerName   = "ServerName"
	keyServerPort   = "ServerPort"
	keyOldPartition = "PartitionData00"
	keyVerifyFile   = "SSLClientSideVerifyFile"
	keyClientSecret = "AuthTokenClientSecret"
	keyConfigURI    = "AuthTokenConfigURI"
	keyClientID     = "AuthTokenClientID"
	keyCA           = "PartitionCAPath"
	keyCertificate  = "PartitionCertPath00"
	keyPlugins      = "PluginModuleDir"
	keySSLConfig    = "SSLConfigFile"
	keyPrivateKey   = "ClientPrivKeyFile"
	keyClientCert   = "ClientCertFile"
	keyServerCA     = "ServerCAFile"
	keyUSBSlots     = "LunaG5Slots"
)

// pluginModule is what the client loads for DPoD.
const pluginModule = "libdpod.plugin"

// checkClientDir checks an unpacked service client against what its own script
// setenv leaves behind, and returns its configuration. The client library itself
// reports most defects by showing no slot. The error is an hsm.Misconfigured with
// one complaint for each defect.
func checkClientDir(dir string, now time.Time) (*chrystoki.Config, error) {
	c := &checker{dir: dir, now: now}
	conf := c.readConfig()
	if conf != nil {
		c.checkSecrets(conf)
		c.checkLibrary(conf)
		c.checkREST(conf)
		c.checkXTC(conf)
		c.checkPlugins(conf)
		c.checkClient(conf)
	}
	if len(c.complaints) > 0 {
		return nil, hsm.Errorf(hsm.Misconfigured, "DPoD service client: %s", strings.Join(c.complaints, "; "))
	}
	return conf, nil
}

type checker struct {
	dir        string
	now        time.Time
	complaints []string
	moved      bool // was said already
}

func (c *checker) complain(format string, args ...any) {
	c.complaints = append(c.complaints, fmt.Sprintf(format, args...))
}

func (c *checker) readConfig() *chrystoki.Config {
	switch info, err := os.Stat(c.dir); {
	case c.dir == "":
		c.complain("client_dir is not configured: it names the directory that the service client was unpacked into")
		return nil
	case !filepath.IsAbs(c.dir):
		c.complain("client_dir %s must be absolute", c.dir)
		return nil
	case err != nil:
		c.complain("client_dir: %v", err)
		return nil
	case !info.IsDir():
		c.complain("client_dir %s is not a directory", c.dir)
		return nil
	}
	conf, err := chrystoki.Load(c.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.complain("%s is missing in %s: unpack cvclient-min.tar there and run `source ./setenv`", chrystoki.FileName, c.dir)
		return nil
	case err != nil:
		c.complain("%v", err)
		return nil
	default:
		return conf
	}
}

// checkSecrets demands that the credentials for the token service are complete
// and closed to others. A client before version 10.2 has none.
func (c *checker) checkSecrets(conf *chrystoki.Config) {
	var missing []string
	for _, key := range []string{keyConfigURI, keyClientID, keyClientSecret} {
		if conf.Value(chrystoki.RESTSection, key) == "" {
			missing = append(missing, key)
		}
	}
	if n := len(missing); n > 0 && n < 3 {
		c.complain("section REST lacks %s: download the service client again", strings.Join(missing, " and "))
	}
	if conf.Value(chrystoki.RESTSection, keyClientSecret) == "" {
		return
	}
	// setenv makes the one from the other.
	for _, name := range []string{chrystoki.FileName, baseFileName} {
		c.checkPrivate(filepath.Join(c.dir, name), keyClientSecret)
	}
}

// checkPrivate demands that a file with a secret, if it is there, is closed to
// others.
func (c *checker) checkPrivate(path, secret string) {
	info, err := os.Stat(path)
	if err != nil {
		return
	}
	if info.Mode().Perm()&0o077 != 0 {
		c.complain("%s contains %s and others may use it (mode %#o): chmod 600 %s", path, secret, info.Mode().Perm(), path)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 && int(owner) != os.Geteuid() {
		c.complain("%s contains %s and belongs to uid %d, not to root or uid %d: chown it", path, secret, owner, os.Geteuid())
	}
}

func (c *checker) checkLibrary(conf *chrystoki.Config) {
	const key = "LibUNIX64"
	switch path := conf.Value(chrystoki.LibrarySection, key); {
	case path == "":
		c.complain("%s is not set in section %s: run `source ./setenv` in %s", key, chrystoki.LibrarySection, c.dir)
	case c.isPath(key, path):
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			c.complain("%s: %s is not a readable file", key, path)
		}
	}
}

func (c *checker) checkREST(conf *chrystoki.Config) {
	const section = chrystoki.RESTSection
	if !conf.Has(section) {
		c.complain("section %s is missing: this is not the configuration of a DPoD service client", section)
		return
	}
	host, port := conf.Value(section, keyServerName), conf.Value(section, keyServerPort)
	if conf.Value(section, keyOldPartition) != "" {
		c.complain("section %s has the old form %s: run `source ./setenv` in %s", section, keyOldPartition, c.dir)
	} else {
		if host == "" {
			c.complain("%s is not set in section %s: run `source ./setenv` in %s", keyServerName, section, c.dir)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			c.complain("%s %q in section %s is not a port: run `source ./setenv` in %s", keyServerPort, port, section, c.dir)
		}
	}
	c.checkCertificate(keyVerifyFile, conf.Value(section, keyVerifyFile), section)
}

func (c *checker) checkXTC(conf *chrystoki.Config) {
	const section = chrystoki.XTCSection
	if !conf.Has(section) {
		c.complain("section %s is missing: this is not the configuration of a DPoD service client", section)
		return
	}
	for _, key := range []string{keyCA, keyCertificate} {
		c.checkCertificate(key, conf.Value(section, key), section)
	}
}

// checkPlugins looks for the client's own modules. Clients that do not know
// them do not have the key.
func (c *checker) checkPlugins(conf *chrystoki.Config) {
	path := conf.Value(chrystoki.MiscSection, keyPlugins)
	if path == "" || !c.isPath(keyPlugins, path) {
		return
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		c.complain("%s: %s is not a directory", keyPlugins, path)
		return
	}
	if _, err := os.Stat(filepath.Join(path, pluginModule)); err != nil {
		c.complain("%s: %s has no %s: unpack the service client again", keyPlugins, path, pluginModule)
	}
}

// checkClient looks at what setenv makes absolute besides: the client's own TLS
// files, which not every client has, and the slots of USB devices, which are shown
// empty unless it switches them off.
func (c *checker) checkClient(conf *chrystoki.Config) {
	for _, key := range []string{keySSLConfig, keyPrivateKey, keyClientCert, keyServerCA} {
		path := conf.Value(chrystoki.ClientSection, key)
		if path != "" && c.isPath(key, path) && key == keyPrivateKey {
			c.checkPrivate(path, "a private key")
		}
	}
	if slots := conf.Value(chrystoki.CardReaderSection, keyUSBSlots); slots != "" && slots != "0" {
		c.complain("%s is %s in section %s: run `source ./setenv` in %s, which sets it to 0", keyUSBSlots, slots, chrystoki.CardReaderSection, c.dir)
	}
}

// isPath checks a path that setenv writes: absolute, and to something that is
// there. It tells a directory that was moved, because setenv writes its place
// into every path, and says so once.
func (c *checker) isPath(key, path string) bool {
	if !filepath.IsAbs(path) {
		c.complain("%s %s is not absolute: run `source ./setenv` in %s", key, path, c.dir)
		return false
	}
	_, err := os.Stat(path)
	switch {
	case err == nil:
		return true
	case !errors.Is(err, fs.ErrNotExist):
		c.complain("%s: %v", key, err)
	case c.origin(path) == "":
		c.complain("%s: %s does not exist", key, path)
	case !c.moved:
		c.moved = true
		c.complain("the directory was moved from %s, which %s still points to: run `source ./setenv` in %s", c.origin(path), key, c.dir)
	}
	return false
}

// origin returns the directory that path lies in if the tail of path exists in
// the client's directory, and "" otherwise.
func (c *checker) origin(path string) string {
	parts := strings.Split(filepath.Clean(path), string(filepath.Separator))
	for i := 1; i < len(parts); i++ {
		if _, err := os.Stat(filepath.Join(c.dir, filepath.Join(parts[i:]...))); err == nil {
			return string(filepath.Separator) + filepath.Join(parts[:i]...)
		}
	}
	return ""
}
