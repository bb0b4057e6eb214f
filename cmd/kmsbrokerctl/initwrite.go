package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Names of the secrets, as credentials and as files.
const (
	pinName       = "hsm.pin"
	accessKeyName = "credentials.toml"
)

// dropInName is what the service needs beyond its unit.
const dropInName = "kmsbrokerctl-init.conf"

// writeSecrets puts the secrets where the daemon reads them: encrypted credentials of
// the service, or files that belong to its user.
//
// When that fails, nothing of it is left.
func (s *setup) writeSecrets(ctx context.Context, all *secrets) (err error) {
	var needs []string   // of the unit
	var written []string // to be removed
	defer func() {
		for _, path := range written {
			if err != nil {
				os.Remove(path)
			}
		}
	}()
	for _, secret := range []struct {
		name    string
		content []byte
	}{{pinName, all.pin}, {accessKeyName, all.accessKey}} {
		if len(secret.content) == 0 {
			continue
		}
		path := filepath.Join(filepath.Dir(s.config), secret.name)
		if s.plain {
			if err := writeSecretFile(path, secret.content); err != nil {
				return err
			}
			written = append(written, path)
			continue
		}
		path += ".cred"
		sealed, err := systemdCreds(ctx, secret.content, "encrypt", "--name="+secret.name, "-", "-")
		if err != nil {
			return fmt.Errorf("%w\nwhere systemd-creds does not work, --plain-files does", err)
		}
		if err := writeNew(path, sealed); err != nil {
			return err
		}
		written = append(written, path)
		needs = append(needs, fmt.Sprintf("LoadCredentialEncrypted=%s:%s", secret.name, path))
	}
	if dir := s.tokenDir(); dir != "" {
		needs = append(needs, "ReadWritePaths="+dir)
	}
	if len(needs) == 0 {
		return nil
	}
	dropIn := "# Written by kmsbrokerctl init.\n[Service]\n" + strings.Join(needs, "\n") + "\n"
	if err := os.MkdirAll(s.dropIns, 0o755); err != nil { //nolint:gosec // G301: as all of /etc/systemd
		return err
	}
	path := filepath.Join(s.dropIns, dropInName)
	return os.WriteFile(path, []byte(dropIn), 0o644) //nolint:gosec // G306: likewise
}

var tokenDirLine = regexp.MustCompile(`(?m)^\s*directories\.tokendir\s*=\s*(\S+)`)

// tokenDir is where SoftHSM writes, "" for other HSMs.
func (s *setup) tokenDir() string {
	content, err := os.ReadFile(s.softhsmConf)
	match := tokenDirLine.FindSubmatch(content)
	if s.plugin != softhsm || err != nil || match == nil {
		return ""
	}
	return filepath.Clean(string(match[1]))
}

// writeSecretFile makes a file that the daemon's user alone can read. Where the package
// is not installed there is no such user, and the daemon runs as whoever this is.
func writeSecretFile(path string, content []byte) error {
	if err := writeNew(path, content); err != nil || os.Geteuid() != 0 {
		return err
	}
	uid, gid, err := idsOf("kmsbroker")
	if err != nil {
		return nil //nolint:nilerr // as said above
	}
	return os.Chown(path, uid, gid)
}

// writeNew makes a file of mode 0600. What is there already may be the only copy of
// something.
func writeNew(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%w: move it away first", err)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
