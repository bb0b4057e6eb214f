package hsmsim

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// libraryName is what the Luna client calls its library.
const libraryName = "libCryptoki2_64.so"

//go:embed build.sh cryptoki
var sources embed.FS

var buildOnce = sync.OnceValues(build)

// library returns the path of the simulator: the one of `make build`, else one
// that is built from the sources in this binary and kept for later runs.
func library(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("KMSBROKER_BIN"); dir != "" {
		made := filepath.Join(dir, "hsmsim", libraryName)
		if _, err := os.Stat(made); err == nil { //nolint:gosec // whoever runs the tests says where `make build` put things
			return made
		}
	}
	path, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// build keeps the library under the hash of its sources, so that test binaries
// that run at once neither disturb each other nor use an old one.
func build() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	sum, err := hashSources()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "kmsbroker-hsmsim", sum, libraryName)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	dir, err := os.MkdirTemp("", "hsmsim")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, sources); err != nil {
		return "", err
	}
	out, err := exec.Command("/bin/sh", filepath.Join(dir, "build.sh"), path).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the HSM simulator: %w (it needs the Debian packages gcc, libssl-dev and libp11-kit-dev)\n%s", err, out)
	}
	return path, nil
}

func hashSources() (string, error) {
	sum := sha256.New()
	err := fs.WalkDir(sources, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := sources.ReadFile(path)
		fmt.Fprintf(sum, "%s %d\n", path, len(content))
		sum.Write(content)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil))[:16], err
}
