package main

import (
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

// The root access key of the emulator comes from the variables that Alibaba's
// own tools read, so that it is on no command line.
const (
	accessKeyIDVariable     = "ALIBABA_CLOUD_ACCESS_KEY_ID"
	accessKeySecretVariable = "ALIBABA_CLOUD_ACCESS_KEY_SECRET"
)

func (c *ctl) emulatorCommand() *cobra.Command {
	var config emulator.RunConfig
	var quota string
	var instances []string
	cmd := &cobra.Command{
		Use:   "emulator --listen HOST:PORT",
		Short: "Run an Alibaba Cloud KMS and RAM on this machine, for tests and development",
		Long: `Run an emulator of Alibaba Cloud KMS, RAM and STS in the foreground. It speaks
the services' own protocol, so official SDKs work with it unchanged, and it really
keeps keys. Its root access key is taken from ` + accessKeyIDVariable + ` and
` + accessKeySecretVariable + `. Key material is kept in clear: never
give it a key that matters.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if quota != "on" && quota != "off" {
				return usagef("--quota is on or off, not %q", quota)
			}
			config.Quota = quota == "on"
			config.AccessKeyID, config.AccessKeySecret = os.Getenv(accessKeyIDVariable), os.Getenv(accessKeySecretVariable)
			if config.AccessKeyID == "" || config.AccessKeySecret == "" {
				return usagef("set %s and %s to the root access key that the emulator shall have", accessKeyIDVariable, accessKeySecretVariable)
			}
			if err := checkEmulator(&config, instances); err != nil {
				return err
			}
			return emulator.Run(cmd.Context(), config, c.stdout, slog.New(slog.NewTextHandler(c.stderr, nil)))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&config.Listen, "listen", "127.0.0.1:8770", "address to listen on; port 0 takes a free one")
	flags.StringVar(&config.CertFile, "tls-cert", "", "PEM certificate, to serve HTTPS")
	flags.StringVar(&config.KeyFile, "tls-key", "", "PEM private key of the certificate")
	flags.BoolVar(&config.Control, "control", false, "serve /-/faults, which makes it misbehave, and /-/keys, to whoever can connect")
	flags.StringVar(&config.MetadataListen, "metadata-listen", "", "address to serve ECS instance metadata on (needs --metadata-role)")
	flags.StringVar(&config.MetadataRole, "metadata-role", "", "RAM role whose credentials the instance metadata has")
	flags.StringArrayVar(&instances, "instance", nil, "KMS instance in the first region and the address of its gateway, ID=HOST:PORT; may be repeated")
	flags.StringVar(&config.InstanceCertFile, "instance-cert", "", "PEM certificate of the gateways, of a private authority as a rule")
	flags.StringVar(&config.InstanceKeyFile, "instance-key", "", "PEM private key of the gateways' certificate")
	flags.StringVar(&config.StateDir, "state", "", "directory to keep the keys in (default: memory)")
	flags.StringArrayVar(&config.Regions, "region", []string{"cn-hangzhou"}, "region to serve; may be repeated, the first is the default")
	flags.StringVar(&quota, "quota", "on", "enforce the quotas of an account: on or off")
	flags.IntVar(&config.MaxKeys, "max-keys", 200, "CMKs that an account may have in a region, while quotas are on")
	return cmd
}

// checkEmulator reports flags that need one another, and reads those of KMS
// instances.
func checkEmulator(config *emulator.RunConfig, instances []string) error {
	switch {
	case (config.CertFile == "") != (config.KeyFile == ""):
		return usagef("--tls-cert and --tls-key go together")
	case (config.MetadataListen == "") != (config.MetadataRole == ""):
		return usagef("--metadata-listen and --metadata-role go together")
	case (config.InstanceCertFile == "") != (config.InstanceKeyFile == ""):
		return usagef("--instance-cert and --instance-key go together")
	case (len(instances) > 0) != (config.InstanceCertFile != ""):
		return usagef("--instance and --instance-cert go together: the gateway of a KMS instance speaks TLS alone")
	}
	for _, text := range instances {
		id, listen, ok := strings.Cut(text, "=")
		if !ok || id == "" || listen == "" {
			return usagef("--instance %q is not of the form ID=HOST:PORT", text)
		}
		config.Instances = append(config.Instances, emulator.RunInstance{ID: id, Listen: listen})
	}
	return nil
}
