package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kmsbroker/kmsbroker/client"
)

// maxInput bounds what is read before the daemon is asked, in bytes: more than
// KMS takes, so that the refusal comes from the broker with its reason.
const maxInput = 32 << 10

// cryptoFlags are common to encrypt and decrypt.
type cryptoFlags struct {
	key, region, in, out string
	context              []string
}

func (f *cryptoFlags) add(cmd *cobra.Command, keyUsage string) {
	flags := cmd.Flags()
	flags.StringVar(&f.key, "key", "", keyUsage)
	flags.StringVar(&f.region, "region", "", "region of the CMK (default: the key's home region)")
	flags.StringVar(&f.in, "in", "", "file to read (default: standard input)")
	flags.StringVar(&f.out, "out", "", "file to write (default: standard output)")
	flags.StringArrayVar(&f.context, "context", nil, "entry of the encryption context, NAME=VALUE; may be repeated")
}

// standardStream as a file name means standard input or output.
const standardStream = "-"

func (f *cryptoFlags) toStdout() bool { return f.out == "" || f.out == standardStream }

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
		Use: "encrypt --key NAME", Short: "Encrypt up to 6144 bytes with a key", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.key == "" {
				return usagef("--key is missing: which key shall encrypt?")
			}
			encryptionContext, err := f.encryptionContext()
			if err != nil {
				return err
			}
			plaintext, err := c.read(f.in)
			if err != nil {
				return err
			}
			defer clear(plaintext)
			return c.application(func(app *client.Client) error {
				sealed, err := app.In(f.region).Encrypt(cmd.Context(), f.key, plaintext, encryptionContext)
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
			blob, err := c.read(f.in)
			if err != nil {
				return err
			}
			return c.application(func(app *client.Client) error {
				opened, err := app.In(f.region).DecryptWith(cmd.Context(), f.key, strings.TrimSpace(string(blob)), encryptionContext)
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
		return nil, fmt.Errorf("the input is longer than %d bytes; KMS encrypts at most 6144 bytes at once", maxInput)
	}
	return data, nil
}

// write puts data into a file, whole or not at all. A new file can be read by
// its owner alone, one that is there keeps its mode, and what is no regular file,
// such as a FIFO, is written to and stays what it is.
func (c *ctl) write(path string, data []byte) error {
	if path == "" || path == standardStream {
		_, err := c.stdout.Write(data)
		return err
	}
	mode := os.FileMode(0o600)
	if target, err := filepath.EvalSymlinks(path); err == nil {
		info, err := os.Stat(target)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return writeInto(target, data)
		}
		path, mode = target, info.Mode().Perm()
	}
	if err := replace(path, data, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func writeInto(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// replace writes a file beside path and renames it over path.
func replace(path string, data []byte, mode os.FileMode) error {
	return replaceWith(path, bytes.NewReader(data), mode)
}

func replaceWith(path string, data io.Reader, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".kmsbrokerctl-")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func (c *ctl) writeFields(fields map[string]any) error {
	raw, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	return c.writeJSON(raw)
}
