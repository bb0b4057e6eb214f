package backend

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/plugin"
	"github.com/kmsbroker/kmsbroker/internal/secretfile"
)

// ManifestName is the file beside the plugins that lists their checksums, as
// sha256sum writes it.
const ManifestName = "SHA256SUMS"

// PluginConfig says how the plugin process of a backend is started.
type PluginConfig struct {
	Dir         string // where plugins and their manifest lie
	Plugin      string // a name within Dir, or an absolute path
	SHA256      string // pinned checksum in hex; empty: the manifest's
	Environment []string
	SocketDir   string // exists, 0700
	Settings    map[string]string
	PINFile     string
	Prompted    *PromptedPIN      // instead of PINFile, unless nil
	Asked       func(hsm.TokenID) // is told what the PIN is asked for; may be nil
	Log         *slog.Logger

	Backend string           // its name
	Logins  *keyring.Keyring // remembers them, by token
}

// LaunchPlugin returns a Launch that starts a plugin process. The checksum and
// the PIN are read anew at each start. A login that is about to be attempted is
// written down before the plugin gets the PIN, and its outcome afterwards.
func LaunchPlugin(config PluginConfig) Launch {
	return func(ctx context.Context) (Process, error) {
		var end func(outcome error) error
		process, err := launch(ctx, config, func(ctx context.Context, token hsm.TokenID) ([]byte, error) {
			if config.Asked != nil {
				config.Asked(token)
			}
			pin, err := config.pin()
			if err != nil {
				return nil, err
			}
			if end, err = config.Logins.BeginLogin(ctx, token, config.Backend, time.Now()); err != nil {
				clear(pin)
				return nil, err
			}
			return pin, nil
		})
		if end == nil {
			return process, err
		}
		if config.Prompted != nil && hsm.ReasonOf(err).NeedsOperator() {
			config.Prompted.wipe()
		}
		if noted := end(err); noted != nil && err == nil {
			process.Kill()
			return nil, noted
		}
		return process, err
	}
}

// LaunchPluginWith is LaunchPlugin with another PIN than the configured one, for
// the conformance suite. It is not remembered: an administrator asked for it.
func LaunchPluginWith(config PluginConfig, pin []byte) Launch {
	return func(ctx context.Context) (Process, error) { return launch(ctx, config, hsm.PIN(pin)) }
}

// InitToken has a plugin make a new token with the backend's settings.
func InitToken(ctx context.Context, config PluginConfig, label string, soPIN, pin []byte) (serial string, err error) {
	process, err := start(ctx, config)
	if err != nil {
		return "", err
	}
	defer process.Kill()
	return process.InitToken(ctx, hsm.TokenSpec{Settings: config.Settings, Label: label, SOPIN: soPIN, PIN: pin})
}

func launch(ctx context.Context, config PluginConfig, pin hsm.PINSource) (Process, error) {
	process, err := start(ctx, config)
	if err != nil {
		return nil, err
	}
	token, err := process.Open(ctx, plugin.OpenConfig{Settings: config.Settings, PIN: pin})
	if err != nil {
		process.Kill()
		return nil, err
	}
	return pluginProcess{process, token}, nil
}

func start(ctx context.Context, config PluginConfig) (*plugin.Process, error) {
	path := config.path()
	sum, err := expectedSum(config, path)
	if err != nil {
		return nil, err
	}
	return plugin.Start(ctx, plugin.Command{
		Path: path, SHA256: sum, Env: config.Environment, SocketDir: config.SocketDir, Logger: config.Log,
	})
}

type pluginProcess struct {
	*plugin.Process
	token hsm.Token
}

func (p pluginProcess) Token() hsm.Token { return p.token }

// path of the executable, absolute.
func (c PluginConfig) path() string {
	if filepath.IsAbs(c.Plugin) {
		return c.Plugin
	}
	return filepath.Join(c.Dir, c.Plugin)
}

// pin returns the configured PIN. The caller wipes it.
func (c PluginConfig) pin() ([]byte, error) {
	if c.Prompted == nil {
		return readPIN(c.PINFile)
	}
	pin := c.Prompted.read()
	if pin == nil {
		return nil, hsm.Errorf(hsm.PINMissing, "backend %q waits for its PIN", c.Backend)
	}
	return pin, nil
}

// readPIN reads a PIN file and drops one line ending. What is wrong with the file
// is no refused login: it is looked at again until it is right.
func readPIN(path string) ([]byte, error) {
	raw, err := secretfile.Read(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, hsm.Errorf(hsm.Misconfigured, "PIN file %s does not exist: write the PIN into it, mode 0600", path)
	case err != nil:
		return nil, hsm.Errorf(hsm.Misconfigured, "PIN file: %v", err)
	}
	pin := bytes.TrimSuffix(bytes.TrimSuffix(raw, []byte("\n")), []byte("\r"))
	if len(pin) == 0 {
		return nil, hsm.Errorf(hsm.Misconfigured, "PIN file %s is empty", path)
	}
	return pin, nil
}

func expectedSum(config PluginConfig, path string) ([]byte, error) {
	text := config.SHA256
	if text == "" {
		var err error
		if text, err = manifestSum(filepath.Join(config.Dir, ManifestName), path); err != nil {
			return nil, hsm.Errorf(hsm.Misconfigured, "checksum of plugin %s: %v", path, err)
		}
	}
	sum, err := hex.DecodeString(text)
	if err != nil || len(sum) != 32 {
		return nil, hsm.Errorf(hsm.Misconfigured, "checksum of plugin %s is not a SHA-256 in hex", path)
	}
	return sum, nil
}

func manifestSum(manifest, path string) (string, error) {
	f, err := os.Open(manifest)
	if err != nil {
		return "", fmt.Errorf("%w; pin the plugin with sha256 in the backend's section", err)
	}
	defer f.Close()
	if err := plugin.CheckTrusted(manifest, f); err != nil {
		return "", err
	}
	dir, name := filepath.Split(path)
	if filepath.Clean(dir) == filepath.Dir(manifest) {
		for lines := bufio.NewScanner(f); lines.Scan(); {
			sum, file, ok := strings.Cut(lines.Text(), "  ")
			if ok && file == name {
				return sum, nil
			}
		}
	}
	return "", fmt.Errorf("%s does not list it; pin it with sha256 in the backend's section", manifest)
}

// CheckPlugin reports what keeps a plugin from being started: it is missing, others
// could change it, or its checksum is another one.
func CheckPlugin(config PluginConfig) error {
	path := config.path()
	want, err := expectedSum(config, path)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := plugin.CheckTrusted(path, f); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), want) {
		return fmt.Errorf("%s has the SHA-256 %x, not %x", path, sum.Sum(nil), want)
	}
	return nil
}
