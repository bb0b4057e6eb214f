package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/ram"
)

func (c *ctl) ramCommand() *cobra.Command {
	cmd := noun("ram", "Make, rotate and revoke the cloud identity of a broker", c.ramProvision(), c.ramRotate(), c.ramRevoke())
	cmd.Long = `Make, rotate and revoke the RAM user that kmsbrokerd is in Alibaba Cloud. These
commands speak to RAM themselves, with an administrator's access key from a file that
nobody else can read. An access key that they make goes into a file or an encrypted
systemd credential, and is never shown.`
	return cmd
}

// ramFlags are common to the commands that speak to RAM.
type ramFlags struct {
	admin, endpoint, user string
}

func (f *ramFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.admin, "admin-credentials", "", "file with the administrator's access key, mode 0600, in the form of credentials_file (required)")
	flags.StringVar(&f.endpoint, "endpoint", "", "address of an emulated RAM and STS, such as http://127.0.0.1:8770 (default: Alibaba Cloud's)")
	flags.StringVar(&f.user, "user", "", "name of the RAM user (required)")
}

// withRAM runs f with a client of RAM.
func (f *ramFlags) withRAM(do func(*ram.Client) error) error {
	if f.user == "" {
		return usagef("--user is missing: what is the RAM user called?")
	}
	if err := ram.CheckUser(f.user); err != nil {
		return usageError{err}
	}
	if f.admin == "" {
		return usagef("--admin-credentials is missing: which file has an access key that may administer RAM?")
	}
	credentials, err := kmsapi.CredentialsFile(f.admin)
	if err != nil {
		return fmt.Errorf("--admin-credentials: %w", err)
	}
	cloud, err := ram.New(ram.Config{Endpoint: f.endpoint, Credentials: credentials})
	if err != nil {
		return usageError{err}
	}
	defer cloud.Close()
	return do(cloud)
}

func (c *ctl) writeObject(object any) error {
	raw, err := json.Marshal(object)
	if err != nil {
		return err
	}
	return c.writeJSON(raw)
}
