package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/internal/secretfile"
)

func (c *ctl) backendInitToken() *cobra.Command {
	var label, soPINFile, pinFile string
	cmd := &cobra.Command{
		Use: "init-token NAME --label LABEL", Args: cobra.ExactArgs(1),
		Short: "Make a new token for development (SoftHSM only)",
		Long: `Make a new token with the settings of a backend, for development. SoftHSM allows it;
partitions of Luna HSMs and of DPoD are made with the vendor's lunacm. The PINs are asked for
on the terminal, or come from files that nobody else can read.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if label == "" {
				return usagef("--label is missing: what shall the token be called?")
			}
			soPIN, err := c.secret("PIN of the new security officer", soPINFile)
			if err != nil {
				return err
			}
			defer clear(soPIN)
			pin, err := c.secret("PIN of the new Crypto Officer", pinFile)
			if err != nil {
				return err
			}
			defer clear(pin)
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				made, err := control.InitToken(cmd.Context(), &v1.InitTokenRequest{Name: args[0], Label: label, SoPin: soPIN, Pin: pin})
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.printJSON(made)
				}
				return c.fields("Token", label, "Serial", made.GetSerial())
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&label, "label", "", "label of the token (required)")
	flags.StringVar(&soPINFile, "so-pin-file", "", "file with the security officer's PIN, mode 0600 (default: ask)")
	flags.StringVar(&pinFile, "pin-file", "", "file with the Crypto Officer's PIN, mode 0600 (default: ask)")
	return cmd
}

// secret reads a secret from a file, or from the terminal without an echo. It
// never comes from an argument, which others could see.
func (c *ctl) secret(what, path string) ([]byte, error) {
	if path != "" {
		content, err := secretfile.Read(path)
		return bytes.TrimRight(content, "\r\n"), err
	}
	in, ok := c.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return nil, usagef("%s: there is no terminal to ask on; give a file", what)
	}
	fmt.Fprintf(c.stderr, "%s: ", what)
	first, err := term.ReadPassword(int(in.Fd()))
	if err != nil {
		return nil, err
	}
	fmt.Fprint(c.stderr, "\nonce more: ")
	second, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(c.stderr)
	if err == nil && !bytes.Equal(first, second) {
		err = errors.New("the two differ, nothing was done")
	}
	clear(second)
	return first, err
}
