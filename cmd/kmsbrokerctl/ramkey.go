package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// keyOutput is where a new access key goes: into a file that only its owner can
// read, or encrypted by systemd-creds(1) into one that only this machine can.
type keyOutput struct {
	path       string
	credential string // name of the systemd credential, "" for a plain file
}

// credentialStore is where systemd looks for encrypted credentials by itself
// (systemd.exec(5), LoadCredentialEncrypted=).
const credentialStore = "/etc/credstore.encrypted" //nolint:gosec // a path, no credential

func (o *keyOutput) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&o.path, "out", "", "file for the access key, in the form of credentials_file; it is made with mode 0600")
	flags.StringVar(&o.credential, "systemd-credential", "",
		"encrypt the access key with systemd-creds as a credential of this name (default of --out: "+credentialStore+"/NAME)")
}

// credentialName is stricter than systemd, so that it is a file name too.
var credentialName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

func (o *keyOutput) check() error {
	switch {
	case o.credential != "" && !credentialName.MatchString(o.credential):
		return usagef("--systemd-credential %q is not the name of a credential", o.credential)
	case o.path == "" && o.credential == "":
		return usagef("--out or --systemd-credential is missing: where shall the access key go? It is shown nowhere")
	case o.path == "":
		o.path = filepath.Join(credentialStore, o.credential)
	}
	return nil
}

// howToSwitch says what to do with a new key.
func (o *keyOutput) howToSwitch() string {
	if o.credential != "" {
		return fmt.Sprintf("have the unit load %s (LoadCredentialEncrypted=%s:%s) and restart kmsbrokerd", o.path, o.credential, o.path)
	}
	return fmt.Sprintf("rename %s over kmsbrokerd's credentials_file, keeping its owner; it is read without a restart", o.path)
}

// present returns the ID of the access key that is there from an earlier run, ""
// when there is no file.
func (o *keyOutput) present(ctx context.Context) (string, error) {
	if _, err := os.Lstat(o.path); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if o.credential == "" {
		file, err := kmsapi.CredentialsFile(o.path)
		if err != nil {
			return "", fmt.Errorf("%w (remove it if an earlier run was interrupted)", err)
		}
		key, err := file.Credentials(ctx)
		return key.AccessKeyID, err
	}
	content, err := systemdCreds(ctx, nil, "decrypt", "--name="+o.credential, o.path, "-")
	if err != nil {
		return "", err
	}
	defer clear(content)
	key, err := kmsapi.ParseCredentials(content)
	if err != nil {
		return "", fmt.Errorf("credential %s: %w", o.path, err)
	}
	return key.AccessKeyID, nil
}

// keySlot is a file that was made for a key before the key is, so that a key that
// cannot be kept is not made.
type keySlot struct {
	output keyOutput
	file   *os.File
	filled bool
}

// reserve makes the file. It must not exist: what is in it could be the only copy
// of another key.
func (o *keyOutput) reserve(ctx context.Context) (*keySlot, error) {
	if o.credential != "" {
		if _, err := o.encrypt(ctx, []byte("trial")); err != nil {
			return nil, err
		}
	}
	file, err := os.OpenFile(o.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w: a new access key goes into a new file, name another with --out", err)
	}
	if err != nil {
		return nil, err
	}
	return &keySlot{output: *o, file: file}, nil
}

func (o *keyOutput) encrypt(ctx context.Context, content []byte) ([]byte, error) {
	return systemdCreds(ctx, content, "encrypt", "--name="+o.credential, "-", "-")
}

// deliver writes the key and has it reach the disk. It implements [ram.Deliver].
func (s *keySlot) deliver(ctx context.Context, key kmsapi.Credentials) error {
	content := fmt.Appendf(nil, "access_key_id     = %q\naccess_key_secret = %q\n", key.AccessKeyID, key.AccessKeySecret)
	defer func() { clear(content) }()
	if _, err := kmsapi.ParseCredentials(content); err != nil {
		return fmt.Errorf("the access key does not fit into a credentials file: %w", err)
	}
	if s.output.credential != "" {
		sealed, err := s.output.encrypt(ctx, content)
		if err != nil {
			return err
		}
		clear(content)
		content = sealed
	}
	_, err := s.file.Write(content)
	if err = errors.Join(err, s.file.Sync(), syncDir(filepath.Dir(s.output.path))); err != nil {
		return fmt.Errorf("write %s: %w", s.output.path, err)
	}
	s.filled = true
	return nil
}

// syncDir makes the name of a new file as durable as its content.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// abandon removes the file unless it holds a key.
func (s *keySlot) abandon() {
	s.file.Close()
	if !s.filled {
		os.Remove(s.output.path)
	}
}

// systemdCreds runs systemd-creds(1), which takes secrets and gives them through
// pipes alone.
func systemdCreds(ctx context.Context, in []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "systemd-creds", args...)
	cmd.Stdin = bytes.NewReader(in)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("systemd-creds %s: %w: %.300s", args[0], err, strings.TrimSpace(complaint.String()))
	}
	return out, nil
}
