package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/keyring"
)

// registry makes a copy of an empty one, the same each time.
var registry = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "registry")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	keys, err := keyring.Open(dir)
	if err != nil {
		panic(err)
	}
	defer keys.Close()
	path, err := keys.Snapshot()
	if err != nil {
		panic(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	return string(content)
})

// state is what a daemon could have left.
var state = map[string]string{
	"evidence.key": "key", "audit/epoch.key": "secret",
	"audit/audit-00000000000000000001.log": "1\n2\n", "audit/audit-00000000000000000003.log": "3\n4\nunfinish",
}

func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func create(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, state)
	write(t, dir, map[string]string{"config.toml": "# nothing\n", "snapshot.db": registry()})
	var out bytes.Buffer
	from := Source{StateDir: dir, Snapshot: filepath.Join(dir, "snapshot.db"), Config: filepath.Join(dir, "config.toml")}
	if _, err := Create(&out, from, Manifest{Version: "test", MadeAt: time.Unix(1e9, 0).UTC(), InstanceID: "I", StateDir: dir, Head: "3:x"}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestRoundTrip(t *testing.T) {
	made := create(t)
	dir := t.TempDir()
	to := Target{StateDir: filepath.Join(dir, "state"), Config: filepath.Join(dir, "c.toml"), UID: -1}
	m, err := Restore(bytes.NewReader(made), to)
	if err != nil || m.InstanceID != "I" || m.Head != "3:x" || m.Version != "test" {
		t.Fatalf("%+v, %v", m, err)
	}
	want := map[string]string{
		"state/keyring.db": registry(), "state/evidence.key": "key", "c.toml": "# nothing\n",
		"state/audit/audit-00000000000000000001.log": "1\n2\n", "state/audit/audit-00000000000000000003.log": "3\n4\n",
	}
	for name, content := range want {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != content {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	found := 0
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		info, infoErr := d.Info()
		if err == nil && infoErr == nil && !d.IsDir() {
			found++
			if mode := info.Mode().Perm(); mode != 0o600 && filepath.Base(path) != "c.toml" {
				t.Errorf("%s has mode %04o", path, mode)
			}
		}
		return err
	})
	if found != len(want) {
		t.Errorf("%d files, want %d", found, len(want))
	}
	if info, err := os.Stat(to.StateDir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	for _, again := range []Target{{StateDir: to.StateDir, UID: -1}, {StateDir: filepath.Join(dir, "other"), Config: to.Config, UID: -1}} {
		if _, err := Restore(bytes.NewReader(made), again); err == nil || errors.Is(err, ErrFormat) {
			t.Errorf("over what is there: %v", err)
		}
	}
}

// TestReplaced: what takes the place of a file while it is packed is not packed, and what
// is changed in it fails the backup.
func TestReplaced(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, state)
	write(t, dir, map[string]string{"config.toml": "# nothing\n", "snapshot.db": registry()})
	from := Source{StateDir: dir, Snapshot: filepath.Join(dir, "snapshot.db"), Config: filepath.Join(dir, "config.toml")}
	var out bytes.Buffer
	replace := first{&out, func() {
		write(t, dir, map[string]string{"new.db": "another"})
		if err := os.Rename(filepath.Join(dir, "new.db"), from.Snapshot); err != nil {
			t.Error(err)
		}
	}}
	if _, err := Create(&replace, from, Manifest{StateDir: dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(&out, Target{StateDir: filepath.Join(t.TempDir(), "s"), UID: -1}); err != nil {
		t.Error(err)
	}
	write(t, dir, map[string]string{"snapshot.db": registry()})
	change := first{io.Discard, func() { write(t, dir, map[string]string{"config.toml": "# changed\n"}) }}
	if _, err := Create(&change, from, Manifest{StateDir: dir}); err == nil {
		t.Error("a file that was changed is in the backup")
	}
}

// first does something when it is first written to.
type first struct {
	io.Writer
	do func()
}

func (f *first) Write(p []byte) (int, error) {
	if f.do != nil {
		f.do()
		f.do = nil
	}
	return f.Writer.Write(p)
}

// TestDamage: whatever is changed or cut off, nothing is restored.
func TestDamage(t *testing.T) {
	zipped, err := gzip.NewReader(bytes.NewReader(create(t)))
	if err != nil {
		t.Fatal(err)
	}
	var plain bytes.Buffer
	if _, err := plain.ReadFrom(zipped); err != nil {
		t.Fatal(err)
	}
	pack := func(raw []byte) []byte {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		if _, err := w.Write(raw); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	fails := func(what string, backup []byte) {
		t.Helper()
		dir := t.TempDir()
		if _, err := Restore(bytes.NewReader(backup), Target{StateDir: filepath.Join(dir, "s"), UID: -1}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: %v is left", what, left)
		}
	}
	for _, word := range []string{"instance-id", "1\n2\n", "# nothing", "key"} {
		at := bytes.LastIndex(plain.Bytes(), []byte(word))
		changed := slices.Clone(plain.Bytes())
		changed[at] ^= 1
		fails("a change of "+word, pack(changed))
	}
	for n := 0; n < plain.Len()-1024; n += 512 { // the last two blocks are padding
		fails("a cut", pack(plain.Bytes()[:n]))
	}
	fails("no gzip", plain.Bytes())
	fails("nothing", nil)
}

// TestForeignManifests: only what belongs into a backup comes out of one.
func TestForeignManifests(t *testing.T) {
	keys, config := File{Name: "keyring.db", SHA256: empty}, File{Name: "kmsbrokerd.toml", SHA256: empty}
	for name, m := range map[string]Manifest{
		"a later format": {Format: 2, Files: []File{keys, config}},
		"no registry":    {Format: 1, Files: []File{config}},
		"a path":         {Format: 1, Files: []File{keys, config, {Name: "../../etc/passwd", SHA256: empty}}},
		"an epoch key":   {Format: 1, Files: []File{keys, config, {Name: "audit/epoch.key", SHA256: empty}}},
		"twice":          {Format: 1, Files: []File{keys, keys, config}},
		"no database":    {Format: 1, Files: []File{keys, config}},
		"a negative":     {Format: 1, Files: []File{keys, config, {Name: "evidence.key", Size: -1}}},
	} {
		dir := t.TempDir()
		if _, err := Restore(bytes.NewReader(packed(t, m)), Target{StateDir: filepath.Join(dir, "s"), UID: -1}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// empty is the SHA-256 of nothing.
const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// packed makes a backup of empty files.
func packed(t testing.TB, m Manifest) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	archive := tar.NewWriter(zipped)
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := add(archive, time.Time{}, manifestName, int64(len(text)), bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	for _, f := range m.Files {
		if err := add(archive, time.Time{}, f.Name, 0, bytes.NewReader(nil)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(archive.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func FuzzRestore(f *testing.F) {
	f.Add(create(f))
	f.Add(packed(f, Manifest{Format: 1}))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		_, err := Restore(bytes.NewReader(data), Target{StateDir: filepath.Join(dir, "s"), UID: -1})
		left, _ := os.ReadDir(dir)
		if err != nil && len(left) > 0 || err == nil && (len(left) != 1 || left[0].Name() != "s") {
			t.Errorf("%v, and %v is left", err, left)
		}
	})
}
