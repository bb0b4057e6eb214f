// Package devices runs the real plugins against every device there is here: the
// simulated Lunas and the simulated DPoD service.
package devices

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// device is a simulated HSM and how its plugin is started.
type device struct {
	*hsmsim.Sim
	config backend.PluginConfig
	launch backend.Launch
	logins *keyring.Keyring
}

// with is the same device, and its plugin started with other settings; an empty one
// is left out.
func (d *device) with(changed map[string]string) *device {
	other := *d
	other.config.Settings = maps.Clone(d.config.Settings)
	for setting, value := range changed {
		if other.config.Settings[setting] = value; value == "" {
			delete(other.config.Settings, setting)
		}
	}
	other.launch = backend.LaunchPlugin(other.config)
	return &other
}

// newDevice makes a device and what the daemon would have for it.
func newDevice(t *testing.T, dress hsmsim.Dress, opts ...hsmsim.Option) *device {
	t.Helper()
	d := &device{Sim: hsmsim.New(t, dress, opts...)}
	dir := t.TempDir()
	var err error
	if d.logins, err = keyring.Open(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.logins.Close(); err != nil {
			t.Error(err)
		}
	})
	sockets, err := os.MkdirTemp("", "kb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	pin := filepath.Join(dir, "pin")
	if err := os.WriteFile(pin, []byte(d.PIN), 0o600); err != nil {
		t.Fatal(err)
	}
	d.config = backend.PluginConfig{
		Environment: d.Env, SocketDir: sockets, PINFile: pin, Log: slog.New(slog.DiscardHandler), Backend: "hsm", Logins: d.logins,
	}
	name := "luna"
	d.config.Settings = map[string]string{"library": d.Library, "token_label": d.Label}
	if dress == hsmsim.DPoD {
		name = "dpod"
		d.config.Settings = map[string]string{"client_dir": d.Dir, "token_label": d.Label}
	}
	d.config.Plugin = filepath.Join(stage.Binaries(t), "plugins", name)
	d.config.SHA256 = checksum(t, d.config.Plugin)
	d.launch = backend.LaunchPlugin(d.config)
	return d
}

func checksum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// one holds the plugin process that a test has at a time.
type one struct {
	launch  backend.Launch
	process backend.Process
}

func (o *one) open(ctx context.Context) (hsm.Token, error) {
	o.kill()
	process, err := o.launch(ctx)
	if err != nil {
		return nil, err
	}
	o.process = process
	return process.Token(), nil
}

func (o *one) kill() {
	if o.process != nil {
		o.process.Kill()
		o.process = nil
	}
}
