// Softhsm is the kmsbroker backend for SoftHSM 2: a software token for
// development, demonstrations and tests.
package main

import (
	"context"
	"path/filepath"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11"
	"github.com/kmsbroker/kmsbroker/hsm/plugin"
)

func main() { plugin.Serve(open) }

// libraries are where Debian and its derivatives install SoftHSM.
var libraries = []string{
	"/usr/lib/softhsm/libsofthsm2.so",
	"/usr/lib/*/softhsm/libsofthsm2.so",
}

// mostSessions is far above what SoftHSM gains from; its token is a directory
// of files.
const mostSessions = 256

func open(ctx context.Context, req plugin.OpenRequest) (hsm.Token, error) {
	settings := plugin.ReadSettings(req.Settings)
	config := pkcs11.Config{
		Library:     settings.String("library"),
		TokenLabel:  settings.String("token_label"),
		TokenSerial: settings.String("token_serial"),
		MaxSessions: settings.Int("max_sessions", 1, mostSessions),
		PIN:         req.PIN,
		Logger:      req.Logger,
	}
	if err := settings.Err(); err != nil {
		return nil, err
	}
	if config.Library == "" {
		config.Library = installed()
	}
	if config.Library == "" {
		return nil, hsm.Errorf(hsm.Misconfigured, "SoftHSM is not where Debian installs it: install the package softhsm2, or configure library")
	}
	token, err := pkcs11.Open(ctx, config)
	if err != nil {
		return nil, err
	}
	return token, nil
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
