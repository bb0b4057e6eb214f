// Package backup packs what a kmsbrokerd remembers into one file, and unpacks it again:
// the key registry, the audit trail, the key that signs evidence, and the configuration.
// The HSM's keys and the CMKs are not in it, and neither is the private key of the
// audit trail's present epoch: restored without it the trail goes on with a new one and
// says so, as docs/audit.md explains.
package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/evidence"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
)

// Format of the file. Another one is refused.
const Format = 1

// Names in a backup.
const (
	manifestName = "manifest.json"
	configName   = "kmsbrokerd.toml"
	auditFolder  = "audit"
)

// ErrFormat is about a file that is no backup, or a damaged one.
var ErrFormat = errors.New("not a backup of kmsbroker's that can be read here")

var segmentName = regexp.MustCompile(`^audit/audit-[0-9]{20}\.log$`)

// Manifest comes first in a backup.
type Manifest struct {
	Format     int       `json:"format"`
	Version    string    `json:"version"` // of kmsbroker
	MadeAt     time.Time `json:"made_at"`
	InstanceID string    `json:"instance_id"`
	StateDir   string    `json:"state_dir"` // where it was
	// Head of the audit trail when the registry was copied, as NUMBER:HASH.
	Head  string `json:"audit_head"`
	Files []File `json:"files"` // in their order
}

// File is one file of a backup.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // hex
}

// Source says where things are.
type Source struct {
	StateDir string
	Snapshot string // the copy of the registry
	Config   string
}

// source is a file to be packed, opened once: what takes its place meanwhile is not it.
type source struct {
	name, path string
	file       *os.File
	size       int64
}

// Create writes a backup. The manifest's files are filled in.
func Create(w io.Writer, from Source, m Manifest) (*Manifest, error) {
	sources, err := from.list()
	defer func() {
		for _, s := range sources {
			s.file.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	m.Format = Format
	for _, s := range sources {
		sum, err := s.sum()
		if err != nil {
			return nil, err
		}
		m.Files = append(m.Files, File{Name: s.name, Size: s.size, SHA256: sum})
	}
	zipped := gzip.NewWriter(w)
	archive := tar.NewWriter(zipped)
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := add(archive, m.MadeAt, manifestName, int64(len(text)), bytes.NewReader(text)); err != nil {
		return nil, err
	}
	for i, s := range sources {
		if err := s.pack(archive, m.MadeAt, m.Files[i].SHA256); err != nil {
			return nil, err
		}
	}
	return &m, errors.Join(archive.Close(), zipped.Close())
}

// list finds what there is to pack. The audit trail's last segment grows meanwhile; it
// is packed up to the end of its last whole record now.
func (f Source) list() ([]source, error) {
	sources := []source{{name: keyring.FileName, path: f.Snapshot}, {name: configName, path: f.Config}}
	if path := filepath.Join(f.StateDir, evidence.FileName); exists(path) {
		sources = append(sources, source{name: evidence.FileName, path: path})
	}
	segments, err := filepath.Glob(filepath.Join(f.StateDir, auditFolder, "audit-*.log"))
	if err != nil {
		return nil, err
	}
	for _, path := range segments {
		sources = append(sources, source{name: auditFolder + "/" + filepath.Base(path), path: path})
	}
	for i := range sources {
		s := &sources[i]
		if s.file, err = os.OpenFile(s.path, os.O_RDONLY|syscall.O_NOFOLLOW, 0); err != nil {
			return sources[:i], err
		}
		if s.size, err = wholeSize(s.file, i+1 == len(sources) && len(segments) > 0); err != nil {
			return sources[:i+1], err
		}
	}
	return sources, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// wholeSize is the size of a file; of one that is written to, up to its last newline.
func wholeSize(f *os.File, growing bool) (int64, error) {
	info, err := f.Stat()
	if err != nil || !growing {
		return sizeOf(info), err
	}
	const most = 64 << 10 // no record is longer
	from := max(info.Size()-most, 0)
	tail, err := io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
	return from + int64(bytes.LastIndexByte(tail, '\n')+1), err
}

func sizeOf(info os.FileInfo) int64 {
	if info == nil {
		return 0
	}
	return info.Size()
}

func (s source) content() io.Reader { return io.NewSectionReader(s.file, 0, s.size) }

func (s source) sum() (string, error) {
	hash := sha256.New()
	if _, err := io.Copy(hash, s.content()); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// pack adds a file, which must be what its checksum was made of.
func (s source) pack(archive *tar.Writer, at time.Time, sum string) error {
	hash := sha256.New()
	if err := add(archive, at, s.name, s.size, io.TeeReader(s.content(), hash)); err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	if hex.EncodeToString(hash.Sum(nil)) != sum {
		return fmt.Errorf("%s was changed while it was packed: make the backup again", s.path)
	}
	return nil
}

func add(archive *tar.Writer, at time.Time, name string, size int64, content io.Reader) error {
	header := &tar.Header{Name: name, Size: size, Mode: 0o600, ModTime: at, Format: tar.FormatPAX}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.Copy(archive, content)
	return err
}
