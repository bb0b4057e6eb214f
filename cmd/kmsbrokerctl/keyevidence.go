package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker/evidence"
	"github.com/kmsbroker/kmsbroker/client"
)

func (c *ctl) keyEvidence() *cobra.Command {
	var out, verify, fingerprint string
	cmd := &cobra.Command{
		Use:   "evidence NAME [--out FILE] | evidence --verify FILE",
		Short: "Write the signed history of a key, or check one without the daemon",
		Long: `Write a signed JSON record of a key: where its HSM keys were born, with the
device's identity, their attributes and check values, and every time that one left
its HSM, wrapped under which key and for which CMK.

With --verify a record is checked, offline. The fingerprint says which broker signed
it: compare it with what ` + "`kmsbrokerctl status`" + ` shows there, or give it with --fingerprint.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case verify != "" && len(args) == 0:
				return c.verifyEvidence(verify, fingerprint)
			case verify == "" && len(args) == 1:
				return c.control(func(_ *client.Conn, control v1.ControlClient) error {
					answer, err := control.KeyEvidence(cmd.Context(), &v1.KeyRequest{Name: args[0]})
					if err != nil {
						return err
					}
					fmt.Fprintf(c.stderr, "signed by %s\n", answer.GetFingerprint())
					return c.write(out, answer.GetFile())
				})
			default:
				return usagef("name a key, or a file with --verify")
			}
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&out, "out", "", "file to write (default: standard output)")
	flags.StringVar(&verify, "verify", "", "file to check, without the daemon")
	flags.StringVar(&fingerprint, "fingerprint", "", "with --verify: who must have signed it, SHA-256 in hex")
	return cmd
}

func (c *ctl) verifyEvidence(path, expected string) error {
	file, err := os.ReadFile(path)
	if err != nil {
		return usageError{err}
	}
	record, fingerprint, err := evidence.Verify(file)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if expected != "" && !strings.EqualFold(expected, fingerprint) {
		return fmt.Errorf("%s is signed by %s, not by %s", path, fingerprint, expected)
	}
	if c.output == "json" {
		raw, err := json.Marshal(map[string]any{"signed_by": fingerprint, "record": record})
		if err != nil {
			return err
		}
		return c.writeJSON(raw)
	}
	err = c.fields(
		"Signature", "good", "Signed by", fingerprint, "Key", record.Key, "Broker", record.Broker.InstanceID,
		"Version", record.Broker.Version, "Issued", record.IssuedAt.Format("2006-01-02 15:04:05Z"),
		"CMKs", strconv.Itoa(len(record.CMKs)), "HSM keys", strconv.Itoa(len(record.Births)), "Exports", strconv.Itoa(len(record.Exports)))
	if err != nil {
		return err
	}
	if expected == "" {
		fmt.Fprintln(c.stderr, "compare \"Signed by\" with the broker's own `kmsbrokerctl status`")
	}
	return nil
}
