package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	brokerconfig "github.com/kmsbroker/kmsbroker/broker/config"
	"github.com/kmsbroker/kmsbroker/internal/build"
	"github.com/kmsbroker/kmsbroker/internal/doctor"
)

// setup is what init has to know.
type setup struct {
	backend, plugin, label             string
	library, clientDir, softhsmConf    string
	region, endpoint                   string
	foreign, ecsRole, plain, dontStart bool
	pinFile, accessKeyFile             string
	config, dropIns                    string
}

func (c *ctl) initCommand() *cobra.Command {
	var s setup
	cmd := &cobra.Command{
		Use: "init", Short: "Write a first configuration, and the credentials that it needs", Args: cobra.NoArgs,
		Long: `Write a configuration for one HSM and one region, encrypt PIN and access key with systemd-creds(1) for the service, start
it and look at it as ` + "`kmsbrokerctl doctor`" + ` does. What is not given as a flag is found or asked for; without a terminal
it has to be given. A configuration that has something in it is left alone. Run it as root.`,
		Example: `  kmsbrokerctl init
  kmsbrokerctl init --plugin luna --token-label payments --region cn-hangzhou --pin-file pin --access-key-file key.toml`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.setUp(cmd.Context(), &s) },
	}
	flags := cmd.Flags()
	flags.StringVar(&s.backend, "backend", "hsm", "name of the backend")
	flags.StringVar(&s.plugin, "plugin", "", "kind of the HSM: softhsm, luna or dpod")
	flags.StringVar(&s.label, "token-label", "", "label of the token or partition")
	flags.StringVar(&s.library, "library", "", "PKCS#11 library of SoftHSM or Luna (default: found)")
	flags.StringVar(&s.clientDir, "client-dir", "", "directory of the service client, for dpod")
	flags.StringVar(&s.softhsmConf, "softhsm-conf", "/etc/softhsm/softhsm2.conf", "configuration of SoftHSM")
	flags.StringVar(&s.region, "region", "", "region of Alibaba Cloud KMS")
	flags.StringVar(&s.endpoint, "endpoint", "", "address of KMS (default: the region's)")
	flags.BoolVar(&s.foreign, "allow-foreign-endpoint", false, "let keys go to an endpoint that is not Alibaba Cloud's, such as an emulator")
	flags.BoolVar(&s.ecsRole, "ecs-role", false, "be the RAM role of this ECS instance, instead of having an access key")
	flags.StringVar(&s.pinFile, "pin-file", "", "file with the PIN (default: asked for)")
	flags.StringVar(&s.accessKeyFile, "access-key-file", "", "file with access_key_id and access_key_secret (default: asked for)")
	flags.BoolVar(&s.plain, "plain-files", false, "keep PIN and access key in files of mode 0600 instead of encrypted credentials")
	flags.BoolVar(&s.dontStart, "no-start", false, "do not start the service and do not look at it")
	flags.StringVar(&s.config, "config", defaultConfig, "configuration to write")
	flags.StringVar(&s.dropIns, "drop-ins", "/etc/systemd/system/kmsbrokerd.service.d", "directory for what the service needs beyond its unit")
	return cmd
}

func (c *ctl) setUp(ctx context.Context, s *setup) error {
	if err := s.free(); err != nil {
		return err
	}
	if err := c.fillIn(ctx, s); err != nil {
		return err
	}
	secrets, err := c.secretsOf(ctx, s)
	if err != nil {
		return err
	}
	defer secrets.wipe()
	text := s.text()
	if err := s.check(text); err != nil {
		return err
	}
	if err := s.writeSecrets(ctx, secrets); err != nil {
		return err
	}
	if err := c.write(s.config, []byte(text)); err != nil {
		return err
	}
	if err := os.Chmod(s.config, 0o644); err != nil { //nolint:gosec // G302: there is no secret in it
		return err
	}
	fmt.Fprintf(c.stderr, "wrote %s\n", s.config)
	if s.dontStart {
		return nil
	}
	for _, args := range [][]string{{"daemon-reload"}, {"restart", "kmsbrokerd.service"}} {
		if out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
	}
	findings := doctor.Examine(ctx, doctor.Options{Config: s.config, Version: build.Version()})
	if err := c.showFindings(findings, false); err != nil {
		return err
	}
	fmt.Fprintf(c.stderr, "next: kmsbrokerctl key import NAME --backend %s, and a [[grant]] in %s\n", s.backend, s.config)
	return nil
}

// free refuses to take the place of a configuration that has something in it.
func (s *setup) free() error {
	if _, err := os.Lstat(s.config); os.IsNotExist(err) {
		return nil
	}
	cfg, err := brokerconfig.Load(s.config)
	if err != nil {
		return fmt.Errorf("%w\ncorrect it, or move it away: init writes only where nothing is configured", err)
	}
	if len(cfg.KMS.AllRegions()) > 0 || len(cfg.Backends) > 0 || len(cfg.Grants) > 0 || len(cfg.Objects) > 0 {
		return fmt.Errorf("%s has something in it already: move it away, or go on by hand (man kmsbrokerd.toml)", s.config)
	}
	return nil
}

// text is the configuration.
func (s *setup) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by kmsbrokerctl init. man kmsbrokerd.toml explains every key.\n\n[kms]\nregion = %q\n", s.region)
	if s.endpoint != "" {
		fmt.Fprintf(&b, "endpoint = %q\n", s.endpoint)
	}
	if s.ecsRole {
		b.WriteString("ecs_role = {}\n")
	} else {
		fmt.Fprintf(&b, "credentials_file = %q\n", s.secretPath(accessKeyName))
	}
	fmt.Fprintf(&b, "\n[backend.%s]\nplugin   = %q\npin_file = %q\n", s.backend, s.plugin, s.secretPath(pinName))
	if s.foreign {
		b.WriteString("allow_foreign_endpoint = true\n")
	}
	settings := []string{fmt.Sprintf("token_label = %q", s.label)}
	if s.library != "" {
		settings = append(settings, fmt.Sprintf("library = %q", s.library))
	}
	if s.clientDir != "" {
		settings = append(settings, fmt.Sprintf("client_dir = %q", s.clientDir))
	}
	fmt.Fprintf(&b, "settings = { %s }\n", strings.Join(settings, ", "))
	if s.plugin == softhsm {
		fmt.Fprintf(&b, "environment = { SOFTHSM2_CONF = %q }\n", s.softhsmConf)
	}
	b.WriteString("\n# Who may do what with a key: man kmsbrokerd.toml, docs/grants.md.\n#[[grant]]\n#keys       = [\"payments\"]\n#operations = [\"encrypt\", \"decrypt\"]\n#units      = [\"payments.service\"]\n")
	return b.String()
}

// check has the daemon's own rules look at the text before it is anywhere.
func (s *setup) check(text string) error {
	f, err := os.CreateTemp("", "kmsbrokerd-*.toml")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err = cmp.Or(err, f.Close()); err != nil {
		return err
	}
	_, err = brokerconfig.Load(f.Name())
	return err
}

// secretPath is where the daemon reads a secret.
func (s *setup) secretPath(name string) string {
	if s.plain {
		return filepath.Join(filepath.Dir(s.config), name)
	}
	return "/run/credentials/kmsbrokerd.service/" + name
}
