// Luna is the kmsbroker backend for Thales Luna HSMs: network, PCIe and USB.
package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/plugin"
	"github.com/kmsbroker/kmsbroker/plugins/internal/chrystoki"
	"github.com/kmsbroker/kmsbroker/plugins/internal/lunaclient"
)

func main() {
	plugin.Serve(open, plugin.WithTokenInitializer(lunaclient.Initializer{}))
}

func open(ctx context.Context, req plugin.OpenRequest) (hsm.Token, error) {
	settings := plugin.ReadSettings(req.Settings)
	config := lunaclient.ReadSettings(settings, req)
	config.Library = settings.String("library")
	if err := settings.Err(); err != nil {
		return nil, err
	}
	dir := chrystoki.Dir()
	if config.Library == "" {
		var err error
		if config.Library, err = findLibrary(installed(), dir); err != nil {
			return nil, err
		}
	}
	config.Inspect = lunaclient.Inspector(config.Library)
	return lunaclient.Open(ctx, config, lunaclient.HAGroups(dir, req.Logger))
}

// installed lists where the Luna client puts its library: the packages since
// client 5, and the minimal client.
func installed() []string {
	return []string{
		"/usr/safenet/lunaclient/lib/libCryptoki2_64.so",
		"/usr/safenet/lunaclient/libs/64/libCryptoki2.so",
	}
}

// findLibrary returns the first of the usual paths that is there, and otherwise
// the one that Chrystoki.conf names.
func findLibrary(usual []string, dir string) (string, error) {
	for _, path := range usual {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	conf, err := chrystoki.Load(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", hsm.Errorf(hsm.Misconfigured,
			"no Luna client library is at %s, and there is no %s in %s to name another place: install the Luna client, or configure library",
			strings.Join(usual, " or "), chrystoki.FileName, dir)
	case err != nil:
		return "", hsm.Errorf(hsm.Misconfigured, "look for the Luna client library: %v", err)
	case conf.Library() == "":
		return "", hsm.Errorf(hsm.Misconfigured,
			"no Luna client library is at %s, and neither LibUNIX64 nor LibUNIX is set in %s/%s: configure library",
			strings.Join(usual, " or "), dir, chrystoki.FileName)
	default:
		return conf.Library(), nil
	}
}
