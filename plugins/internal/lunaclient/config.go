// Package lunaclient is what the plugins for Luna HSMs and for DPoD have in
// common, because both devices are reached through the same client library:
// settings, attributes, slots and functions that are Thales' own.
//
// Nothing in it has run against a device yet. Where it follows a document or a
// public program of Thales', it says which.
package lunaclient

import (
	"context"
	"log/slog"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11"
	"github.com/kmsbroker/kmsbroker/hsm/plugin"
	"github.com/kmsbroker/kmsbroker/plugins/internal/chrystoki"
)

// mostSessions keeps one backend from taking more than a share of what an
// appliance admits.
const mostSessions = 30

// ReadSettings reads the settings that both plugins have into a configuration.
func ReadSettings(settings *plugin.Settings, req plugin.OpenRequest) pkcs11.Config {
	return pkcs11.Config{
		TokenLabel:    settings.String("token_label"),
		TokenSerial:   settings.String("token_serial"),
		Role:          hsm.Role(settings.String("role")),
		MaxSessions:   settings.Int("max_sessions", 1, mostSessions),
		ProxySessions: settings.Int("proxy_sessions", 2, mostSessions),
		PIN:           req.PIN,
		Logger:        req.Logger,
		Vendor:        vendorAttributes(),
	}
}

// Open opens the token that config selects, through the library it names, with
// what is particular to the client.
func Open(ctx context.Context, config pkcs11.Config, groups []chrystoki.HAGroup) (hsm.Token, error) {
	config.Choose = Chooser(groups)
	token, err := pkcs11.Open(ctx, config)
	if err != nil {
		return nil, err // a nil *Token must not become an hsm.Token
	}
	return token, nil
}

// vendorAttributes are in ThalesGroup/pycryptoki, pycryptoki/defines.py.
func vendorAttributes() []pkcs11.VendorAttribute {
	return []pkcs11.VendorAttribute{
		{Name: "OUID", Type: 0x80000005},
		{Name: "FINGERPRINT_SHA256", Type: 0x80001003},
	}
}

// Initializer answers requests to initialise a token. A partition is made by its
// security officers with lunacm; the client library refuses C_InitToken anyway.
type Initializer struct{}

var _ hsm.TokenInitializer = Initializer{}

// InitToken implements [hsm.TokenInitializer].
func (Initializer) InitToken(context.Context, hsm.TokenSpec) (string, error) {
	return "", hsm.Errorf(hsm.NotPermitted,
		"a partition is initialised with the vendor's tool: use lunacm (partition init, role init -name co, role changepw -name co)")
}

// HAGroups reads the groups of the Chrystoki.conf in dir. A file that cannot be
// read is logged and costs the groups alone: the library judges it by itself.
func HAGroups(dir string, logger *slog.Logger) []chrystoki.HAGroup {
	conf, err := chrystoki.Load(dir)
	if err != nil {
		logger.Warn("configuration of the Luna client cannot be read", "error", err)
		return nil
	}
	return conf.HAGroups()
}
