// Backend is the worked example of docs/writing-a-backend.md: a whole plugin in
// pure Go, which passes the conformance suite.
//
// It is NO hardware security module. Its keys are in the memory of a process
// and in a file, where whoever has the file and the PIN can read them.
package main

import (
	"context"
	"path/filepath"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/plugin"
)

func main() { plugin.Serve(open) }

// open is called once in the life of the process. A vendor library would be
// loaded here and not before, because it may print to standard output.
func open(ctx context.Context, req plugin.OpenRequest) (hsm.Token, error) {
	settings := plugin.ReadSettings(req.Settings)
	file := settings.String("file")
	// Asked for last: it refuses settings that nobody has read.
	if err := settings.Err(); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(file) {
		return nil, hsm.Errorf(hsm.Misconfigured, "setting file: %q is not an absolute path", file)
	}
	vault, err := readVault(file)
	if err != nil {
		return nil, err
	}
	// Asked for when everything else is ready: the daemon counts it as a login to
	// this token.
	pin, err := req.PIN(ctx, vault.id())
	if err != nil {
		return nil, err
	}
	defer clear(pin)
	if len(pin) == 0 {
		return nil, hsm.Errorf(hsm.PINMissing, "no PIN is configured for the token")
	}
	entries, err := vault.unlock(pin)
	if err != nil {
		return nil, err
	}
	req.Logger.Info("token opened", "serial", vault.id().Serial)
	return &token{vault: vault, entries: entries}, nil
}
