// Softhsm is the kmsbroker backend for SoftHSM 2: a software token for
// development, demonstrations and tests.
package main

import (
	"context"
	"path/filepath"
	"runtime"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11"
	"github.com/kmsbroker/kmsbroker/hsm/plugin"
)

func main() {
	shareProcessors()
	plugin.Serve(open, plugin.WithTokenInitializer(initializer{}))
}

// shareProcessors leaves half of the processors to the daemon. SoftHSM computes
// in this process and under its own locks: where it may run on all of them, both
// programs spend more time on waking each other's threads and waiting for locks
// than they gain. See BenchmarkWrap in test/bench.
func shareProcessors() { runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2)) }

// libraries are where Debian and its derivatives install SoftHSM.
var libraries = []string{
	"/usr/lib/softhsm/libsofthsm2.so",
	"/usr/lib/*/softhsm/libsofthsm2.so",
}

// mostSessions is far above what SoftHSM gains from; its token is a directory
// of files.
const mostSessions = 256

func open(ctx context.Context, req plugin.OpenRequest) (hsm.Token, error) {
	config, err := readSettings(req.Settings)
	if err != nil {
		return nil, err
	}
	config.PIN, config.Logger = req.PIN, req.Logger
	token, err := pkcs11.Open(ctx, config)
	if err != nil {
		return nil, err
	}
	return token, nil
}

// initializer makes tokens in the directory that SOFTHSM2_CONF names.
type initializer struct{}

// InitToken implements [hsm.TokenInitializer].
func (initializer) InitToken(ctx context.Context, spec hsm.TokenSpec) (serial string, err error) {
	config, err := readSettings(spec.Settings)
	if err != nil {
		return "", err
	}
	return pkcs11.InitToken(ctx, pkcs11.InitConfig{
		Library: config.Library, Label: spec.Label, SOPIN: spec.SOPIN, PIN: spec.PIN,
	})
}

func readSettings(given map[string]string) (pkcs11.Config, error) {
	settings := plugin.ReadSettings(given)
	config := pkcs11.Config{
		Library:       settings.String("library"),
		TokenLabel:    settings.String("token_label"),
		TokenSerial:   settings.String("token_serial"),
		MaxSessions:   settings.Int("max_sessions", 1, mostSessions),
		ProxySessions: settings.Int("proxy_sessions", 2, mostSessions),
	}
	if err := settings.Err(); err != nil {
		return pkcs11.Config{}, err
	}
	if config.Library == "" {
		config.Library = installed()
	}
	if config.Library == "" {
		return pkcs11.Config{}, hsm.Errorf(hsm.Misconfigured, "SoftHSM is not where Debian installs it: install the package softhsm2, or configure library")
	}
	return config, nil
}

func installed() string {
	for _, pattern := range libraries {
		// The patterns are constant and well formed.
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	return ""
}
