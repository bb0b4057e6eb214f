package backup

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/kmsbroker/kmsbroker/broker/evidence"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
)

// maxManifest bounds a manifest in bytes.
const maxManifest = 16 << 20

// Target says where a backup is unpacked.
type Target struct {
	// StateDir must not be there, or be empty: nothing is overwritten. "" is where it was.
	StateDir string
	// Config is where the configuration goes, which must not be there; "" leaves it in
	// the backup.
	Config   string
	UID, GID int // who gets the files; -1 leaves them
}

// Restore unpacks a backup. The state directory is there whole, with every file's
// checksum compared, or not at all.
func Restore(r io.Reader, to Target) (*Manifest, error) {
	zipped, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	archive := tar.NewReader(zipped)
	m, err := readManifest(archive)
	if err != nil {
		return nil, err
	}
	if to.StateDir == "" {
		to.StateDir = m.StateDir
	}
	if err := to.check(); err != nil {
		return nil, err
	}
	temporary, err := os.MkdirTemp(filepath.Dir(to.StateDir), filepath.Base(to.StateDir)+".restore-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temporary)
	if err := os.Mkdir(filepath.Join(temporary, auditFolder), 0o700); err != nil {
		return nil, err
	}
	for _, f := range m.Files {
		if err := to.unpack(archive, f, temporary); err != nil {
			return nil, err
		}
	}
	if _, err := archive.Next(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: there is more in it than its manifest says", ErrFormat)
	}
	if err := keyring.CheckFile(filepath.Join(temporary, keyring.FileName)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return m, to.install(temporary, m.Files)
}

func (t Target) check() error {
	if !filepath.IsAbs(t.StateDir) {
		return fmt.Errorf("%w: it does not say where the state was", ErrFormat)
	}
	entries, err := os.ReadDir(t.StateDir)
	switch {
	case err == nil && len(entries) > 0:
		return fmt.Errorf("%s is not empty: stop kmsbrokerd and move the directory away first", t.StateDir)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	case t.Config != "" && exists(t.Config):
		return fmt.Errorf("%s is there already: move it away first", t.Config)
	}
	return nil
}

func readManifest(archive *tar.Reader) (*Manifest, error) {
	header, err := archive.Next()
	if err != nil || header.Name != manifestName || header.Size > maxManifest {
		return nil, fmt.Errorf("%w: it does not begin with a manifest", ErrFormat)
	}
	var m Manifest
	if err := json.NewDecoder(archive).Decode(&m); err != nil {
		return nil, fmt.Errorf("%w: its manifest: %w", ErrFormat, err)
	}
	if m.Format != Format {
		return nil, fmt.Errorf("%w: it has format %d, written by kmsbroker %.40q; this one knows %d", ErrFormat, m.Format, m.Version, Format)
	}
	seen := map[string]bool{}
	for _, f := range m.Files {
		known := slices.Contains([]string{keyring.FileName, evidence.FileName, configName}, f.Name) || segmentName.MatchString(f.Name)
		if !known || seen[f.Name] || f.Size < 0 {
			return nil, fmt.Errorf("%w: %.80q does not belong into it", ErrFormat, f.Name)
		}
		seen[f.Name] = true
	}
	if !seen[keyring.FileName] || !seen[configName] {
		return nil, fmt.Errorf("%w: it lacks the registry or the configuration", ErrFormat)
	}
	return &m, nil
}

func (t Target) unpack(archive *tar.Reader, f File, dir string) error {
	header, err := archive.Next()
	if err != nil || header.Name != f.Name || header.Size != f.Size || header.Typeflag != tar.TypeReg {
		return fmt.Errorf("%w: %s is missing or another one than its manifest says", ErrFormat, f.Name)
	}
	out, err := os.OpenFile(filepath.Join(dir, filepath.FromSlash(f.Name)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, hash), io.LimitReader(archive, f.Size))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s: %w", ErrFormat, f.Name, err)
	case n != f.Size || hex.EncodeToString(hash.Sum(nil)) != f.SHA256:
		return fmt.Errorf("%w: %s is damaged", ErrFormat, f.Name)
	}
	return out.Sync()
}

// install puts what was unpacked into its place, the state first: what fails then leaves
// no configuration.
func (t Target) install(temporary string, files []File) error {
	content, err := os.ReadFile(filepath.Join(temporary, configName))
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(temporary, configName)); err != nil {
		return err
	}
	if t.UID >= 0 {
		// The directory last: then nobody else could have changed what is in it.
		for _, name := range append(names(files), auditFolder, ".") {
			if err := os.Lchown(filepath.Join(temporary, name), t.UID, t.GID); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(t.StateDir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(temporary, t.StateDir); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(t.StateDir)); err != nil || t.Config == "" {
		return err
	}
	return writeNew(t.Config, content)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// names of the files that become part of the state.
func names(files []File) []string {
	var all []string
	for _, f := range files {
		if f.Name != configName {
			all = append(all, filepath.FromSlash(f.Name))
		}
	}
	return all
}

// writeNew writes a file where nothing is.
func writeNew(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // G302: there is no secret in it
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return syncDir(filepath.Dir(path))
}
