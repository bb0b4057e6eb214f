package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kmsbroker/kmsbroker/client"
)

// maxInput bounds what is read before the daemon is asked, in bytes: more than
// KMS takes, so that the refusal comes from the broker with its reason.
const maxInput = 32 << 10

// cryptoFlags are common to encrypt and decrypt.
type cryptoFlags struct {
	key, in, out     string
	regions, context []string
	envelope         bool
}

func (f *cryptoFlags) add(cmd *cobra.Command, keyUsage string) {
	flags := cmd.Flags()
	flags.StringVar(&f.key, "key", "", keyUsage)
	flags.StringArrayVar(&f.regions, "region", nil, "region of the CMK (default: the key's home region)")
	flags.StringVar(&f.in, "in", "", "file to read (default: standard input)")
	flags.StringVar(&f.out, "out", "", "file to write (default: standard output)")
	flags.StringArrayVar(&f.context, "context", nil, "entry of the encryption context, NAME=VALUE; may be repeated")
}

// addEnvelope is for those that also do messages of any length.
func (f *cryptoFlags) addEnvelope(cmd *cobra.Command, usage string) {
	cmd.Flags().BoolVar(&f.envelope, "envelope", false, usage)
}

// standardStream as a file name means standard input or output.
const standardStream = "-"

func (f *cryptoFlags) toStdout() bool { return f.out == "" || f.out == standardStream }

// region is the one that was named, "" if there is none.
func (f *cryptoFlags) region() (string, error) {
	if len(f.regions) > 1 {
		return "", usagef("--region can be repeated only to seal an envelope")
	}
	return strings.Join(f.regions, ""), nil
}

func (f *cryptoFlags) encryptionContext() (map[string]string, error) { return parseContext(f.context) }

// parseContext reads what --context was given.
func parseContext(list []string) (map[string]string, error) {
	entries := map[string]string{}
	for _, entry := range list {
		name, value, ok := strings.Cut(entry, "=")
		if _, twice := entries[name]; !ok || name == "" || twice {
			return nil, usagef("--context %q is not NAME=VALUE with a name of its own", entry)
		}
		entries[name] = value
	}
	return entries, nil
}

func (c *ctl) encryptCommand() *cobra.Command {
	var f cryptoFlags
	cmd := &cobra.Command{
		Use: "encrypt --key NAME", Short: "Encrypt up to 6144 bytes with a key, or with --envelope any length", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.key == "" {
				return usagef("--key is missing: which key shall encrypt?")
			}
			encryptionContext, err := f.encryptionContext()
			if err != nil {
				return err
			}
			if f.envelope {
				return c.seal(cmd.Context(), &f, encryptionContext)
			}
			region, err := f.region()
			if err != nil {
				return err
			}
			plaintext, err := c.read(f.in)
			if err != nil {
				return err
			}
			defer clear(plaintext)
			return c.application(func(app *client.Client) error {
				sealed, err := app.In(region).Encrypt(cmd.Context(), f.key, plaintext, encryptionContext)
				if err != nil {
					return err
				}
				if c.output == "json" && f.toStdout() {
					return c.writeFields(map[string]any{
						"key": sealed.Key, "key_id": sealed.KeyID, "ciphertext_blob": sealed.CiphertextBlob, "request_id": sealed.RequestID,
					})
				}
				return c.write(f.out, []byte(sealed.CiphertextBlob+"\n"))
			})
		},
	}
	f.add(cmd, "name of the key (required)")
	f.addEnvelope(cmd, "encrypt on this machine, to a message of any length; --region may be repeated (default: all regions of the key)")
	return cmd
}

func (c *ctl) decryptCommand() *cobra.Command {
	var f cryptoFlags
	cmd := &cobra.Command{
		Use: "decrypt", Short: "Decrypt what encrypt made", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			encryptionContext, err := f.encryptionContext()
			if err != nil {
				return err
			}
			region, err := f.region()
			if err != nil {
				return err
			}
			if f.envelope {
				return c.open(cmd.Context(), &f, region, encryptionContext)
			}
			blob, err := c.read(f.in)
			if err != nil {
				return err
			}
			return c.application(func(app *client.Client) error {
				opened, err := app.In(region).DecryptWith(cmd.Context(), f.key, strings.TrimSpace(string(blob)), encryptionContext)
				if err != nil {
					return err
				}
				defer clear(opened.Plaintext)
				if c.output == "json" && f.toStdout() {
					return c.writeFields(map[string]any{
						"key": opened.Key, "key_id": opened.KeyID, "plaintext": opened.Plaintext, "request_id": opened.RequestID,
					})
				}
				return c.write(f.out, opened.Plaintext)
			})
		},
	}
	f.add(cmd, "refuse unless this key encrypted it")
	f.addEnvelope(cmd, "open what encrypt --envelope made")
	return cmd
}

// application runs f with a client of the application socket.
func (c *ctl) application(f func(*client.Client) error) error {
	app, err := client.New(c.socket)
	if err != nil {
		return err
	}
	defer app.Close()
	return f(app)
}

func (c *ctl) read(path string) ([]byte, error) {
	in := c.stdin
	if path != "" && path != standardStream {
		f, err := os.Open(path)
		if err != nil {
			return nil, usageError{err}
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return nil, fmt.Errorf("read the input: %w", err)
	}
	if len(data) > maxInput {
		return nil, fmt.Errorf("the input is longer than %d bytes; KMS encrypts at most 6144 bytes at once, use --envelope", maxInput)
	}
	return data, nil
}

func (c *ctl) writeFields(fields map[string]any) error {
	raw, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	return c.writeJSON(raw)
}
