package kmsapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/BurntSushi/toml"

	"github.com/kmsbroker/kmsbroker/internal/secretfile"
)

// CredentialsFile reads credentials from a TOML file with access_key_id,
// access_key_secret and, for a role, security_token:
//
//	access_key_id     = "LTAI..."
//	access_key_secret = "..."
//
// The file must be closed to others, see package secretfile. It is read now, so
// that a mistake shows at start, and again whenever it changes: the key is
// rotated by renaming a new file over it.
func CredentialsFile(path string) (CredentialSource, error) {
	f := &credentialsFile{path: path}
	if _, err := f.Credentials(context.Background()); err != nil {
		return nil, err
	}
	return f, nil
}

type credentialsFile struct {
	path string

	mu     sync.Mutex
	seen   fileVersion
	cached staticCredentials
}

// fileVersion tells one content of a file from another. The change time catches
// what the modification time can hide: a new owner or mode.
type fileVersion struct {
	device, inode  uint64
	size           int64
	mtime, changed syscall.Timespec
}

func versionOf(info fs.FileInfo) fileVersion {
	s := info.Sys().(*syscall.Stat_t)
	return fileVersion{device: s.Dev, inode: s.Ino, size: s.Size, mtime: s.Mtim, changed: s.Ctim}
}

// Credentials implements CredentialSource.
func (f *credentialsFile) Credentials(context.Context) (Credentials, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	// Asked before reading: what changes in between is noticed the next time.
	info, err := os.Stat(f.path)
	if err != nil {
		return Credentials{}, fmt.Errorf("credentials file: %w", err)
	}
	version := versionOf(info)
	if f.cached != nil && version == f.seen {
		return f.cached(), nil
	}
	f.cached = nil
	data, err := secretfile.Read(f.path)
	if err != nil {
		return Credentials{}, fmt.Errorf("credentials file: %w", err)
	}
	defer clear(data)
	c, err := ParseCredentials(data)
	if err != nil {
		return Credentials{}, fmt.Errorf("credentials file %s: %w", f.path, err)
	}
	f.cached, f.seen = func() Credentials { return c }, version
	return c, nil
}

// ParseCredentials reads what a credentials file holds. Its errors never quote the
// file, not even a key: people paste secrets in the wrong place.
func ParseCredentials(data []byte) (Credentials, error) {
	var file struct {
		AccessKeyID     string `toml:"access_key_id"`
		AccessKeySecret string `toml:"access_key_secret"`
		SecurityToken   string `toml:"security_token"`
	}
	meta, err := toml.Decode(string(data), &file)
	if at, ok := errors.AsType[toml.ParseError](err); ok {
		return Credentials{}, fmt.Errorf("line %d is not one of access_key_id, access_key_secret and security_token with a quoted string", at.Position.Line)
	}
	if err != nil || len(meta.Undecoded()) > 0 {
		return Credentials{}, errors.New("it holds something else than access_key_id, access_key_secret and security_token with a quoted string each")
	}
	for _, required := range []struct{ name, value string }{
		{"access_key_id", file.AccessKeyID},
		{"access_key_secret", file.AccessKeySecret},
	} {
		if required.value == "" {
			return Credentials{}, fmt.Errorf("%s is missing", required.name)
		}
	}
	for _, value := range []string{file.AccessKeyID, file.AccessKeySecret, file.SecurityToken} {
		if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return Credentials{}, errors.New("a value holds a character that no AccessKey has, such as a space")
		}
	}
	return Credentials(file), nil
}
