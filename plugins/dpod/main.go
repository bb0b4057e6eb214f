// Dpod is the kmsbroker backend for Thales Data Protection on Demand (Luna Cloud
// HSM): an HSM that is reached through a service client over HTTPS.
package main

import (
	"context"
	"os"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11"
	"github.com/kmsbroker/kmsbroker/hsm/plugin"
	"github.com/kmsbroker/kmsbroker/plugins/internal/chrystoki"
	"github.com/kmsbroker/kmsbroker/plugins/internal/lunaclient"
)

func main() {
	plugin.Serve(open, plugin.WithTokenInitializer(lunaclient.Initializer{}))
}

// tokenWait is how long the slot of the service may take to appear: the client
// first fetches a token from the identity service and opens two channels, and
// from version 10.5 on slots come and go at run time. It is short, because a
// client that was initialised while the service was out of reach may never see
// it, and people wait for the next process, which follows at once.
const tokenWait = 500 * time.Millisecond

func open(ctx context.Context, req plugin.OpenRequest) (hsm.Token, error) {
	settings := plugin.ReadSettings(req.Settings)
	config := lunaclient.ReadSettings(settings, req)
	dir := settings.String("client_dir")
	fips, err := readFIPS(settings)
	if err != nil {
		return nil, err
	}
	if err := settings.Err(); err != nil {
		return nil, err
	}
	conf, err := checkClientDir(dir, time.Now())
	if err != nil {
		return nil, err
	}
	// The C library reads the variable when it is loaded. Setting it here, which
	// reaches the C environment too, leaves no second place that could disagree
	// with the setting.
	if err := os.Setenv(chrystoki.DirVariable, dir); err != nil {
		return nil, hsm.Errorf(hsm.Internal, "set %s: %v", chrystoki.DirVariable, err)
	}
	config.Library = conf.Library()
	config.TokenWait = tokenWait
	config.Hints = hints()
	config.Inspect = assumeFIPS(fips, lunaclient.Inspector(config.Library))
	token, err := lunaclient.Open(ctx, config, conf.HAGroups())
	if err != nil {
		return nil, withReach(ctx, err, conf)
	}
	return token, nil
}

// readFIPS reads how the service was created: in FIPS mode unless the setting
// says otherwise.
func readFIPS(settings *plugin.Settings) (bool, error) {
	switch value := settings.String("fips"); value {
	case "", "true":
		return true, nil
	case "false":
		return false, nil
	default:
		return false, hsm.Errorf(hsm.Misconfigured, `setting fips: %.20q is neither "true" nor "false"`, value)
	}
}

// assumeFIPS fills in the mode of a service whose client does not tell. It is
// chosen when a service is created, is on by default and never changes.
func assumeFIPS(fips bool, inspect func(pkcs11.Slot) pkcs11.Details) func(pkcs11.Slot) pkcs11.Details {
	return func(slot pkcs11.Slot) pkcs11.Details {
		details := inspect(slot)
		if details.FIPS == nil {
			details.FIPS = &fips
		}
		return details
	}
}
