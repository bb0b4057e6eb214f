// Luna is the kmsbroker backend for Thales Luna HSMs: network, PCIe and USB.
package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
	configDir := settings.String("config_dir")
	if err := settings.Err(); err != nil {
		return nil, err
	}
	usual := installed()
	if configDir != "" {
		if err := useConfig(configDir); err != nil {
			return nil, err
		}
		// A configuration of its own names the library that belongs to it.
		usual = nil
	}
	dir := chrystoki.Dir()
	if config.Library == "" {
		var err error
		if config.Library, err = findLibrary(usual, dir); err != nil {
			return nil, err
		}
	}
	config.Inspect = lunaclient.Inspector(config.Library)
	return lunaclient.Open(ctx, config, lunaclient.HAGroups(dir, req.Logger))
}

// useConfig has the library, which reads the variable when it is loaded, take its
// Chrystoki.conf from dir.
func useConfig(dir string) error {
	if !filepath.IsAbs(dir) {
		return hsm.Errorf(hsm.Misconfigured, "setting config_dir: %.200q must be the absolute path of the directory with %s", dir, chrystoki.FileName)
	}
	if _, err := os.Stat(filepath.Join(dir, chrystoki.FileName)); err != nil {
		return hsm.Errorf(hsm.Misconfigured, "setting config_dir: %v", err)
	}
	if err := os.Setenv(chrystoki.DirVariable, dir); err != nil {
		return hsm.Errorf(hsm.Internal, "set %s: %v", chrystoki.DirVariable, err)
	}
	return nil
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
			"%s there is no %s in %s to name another place: install the Luna client, or configure library",
			nothingAt(usual), chrystoki.FileName, dir)
	case err != nil:
		return "", hsm.Errorf(hsm.Misconfigured, "look for the Luna client library: %v", err)
	case conf.Library() == "":
		return "", hsm.Errorf(hsm.Misconfigured,
			"%s neither LibUNIX64 nor LibUNIX is set in %s/%s: configure library",
			nothingAt(usual), dir, chrystoki.FileName)
	default:
		return conf.Library(), nil
	}
}

// nothingAt begins the complaint that there is no library.
func nothingAt(usual []string) string {
	if len(usual) == 0 {
		return "no Luna client library was found:"
	}
	return "no Luna client library is at " + strings.Join(usual, " or ") + ", and"
}
