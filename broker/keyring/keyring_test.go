package keyring

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/hsm"
)

func open(t *testing.T, dir string) *Keyring {
	t.Helper()
	k, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// finished puts a key into the registry the way an import does.
func finished(t *testing.T, k *Keyring, name, cmk string) *Key {
	t.Helper()
	imp := &Import{
		ID: "i-" + name, Name: name, Kind: NewKey, HSMKeyID: hsm.NewKeyID(),
		Regions: []RegionImport{{Region: "r1", KeyID: cmk}},
	}
	if err := k.BeginImport(imp); err != nil {
		t.Fatal(err)
	}
	key, err := k.FinishRegion(name, "r1")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestSurvivesReopening(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir)
	id := k.InstanceID()
	want := finished(t, k, "payments", "cmk-1")
	if err := k.BeginImport(&Import{ID: "i2", Name: "logs", Kind: NewKey, Regions: []RegionImport{{Region: "r1"}}}); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if _, err := k.BeginStep("logs", "", "generate", now); err != nil {
		t.Fatal(err)
	}
	if _, err := k.EndStep("logs", "", "generate", now, func(i *Import) { i.CheckValue = "a1b2c3" }); err != nil {
		t.Fatal(err)
	}
	if _, err := k.BeginStep("logs", "r1", "create", now); err != nil {
		t.Fatal(err)
	}
	k.Close()

	k = open(t, dir)
	if k.InstanceID() != id || id == "" {
		t.Errorf("instance id %q became %q", id, k.InstanceID())
	}
	got, err := k.Key("payments")
	if err != nil || got.Current().HSMKeyID != want.Current().HSMKeyID {
		t.Errorf("Key = %+v, %v", got, err)
	}
	if owner, ok := k.ByCMK("cmk-1"); !ok || owner.Name != "payments" {
		t.Errorf("ByCMK = %v, %v", owner, ok)
	}
	imp, ok := k.Import("logs")
	if !ok || !imp.Completed("", "generate") || imp.CheckValue != "a1b2c3" || imp.Completed("r1", "create") || !imp.Begun("r1", "create") {
		t.Errorf("journal = %+v", imp)
	}
	if info, err := os.Stat(filepath.Join(dir, FileName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("registry mode %v, %v", info.Mode(), err)
	}
}

func TestOneNameOneKey(t *testing.T) {
	k := open(t, t.TempDir())
	finished(t, k, "payments", "cmk-1")
	if err := k.BeginImport(&Import{Name: "payments", Kind: NewKey, Regions: []RegionImport{{Region: "r1"}}}); failure.KindOf(err) != failure.WrongState {
		t.Errorf("import over a key: %v", err)
	}
	var wg sync.WaitGroup
	won := make(chan error, 20)
	for range cap(won) {
		wg.Go(func() {
			won <- k.BeginImport(&Import{Name: "logs", Kind: NewKey, Regions: []RegionImport{{Region: "r1"}}})
		})
	}
	wg.Wait()
	close(won)
	winners := 0
	for err := range won {
		if err == nil {
			winners++
		}
	}
	if winners != 1 {
		t.Errorf("%d imports of one name began", winners)
	}
}

func TestCopiesDoNotAlias(t *testing.T) {
	k := open(t, t.TempDir())
	finished(t, k, "payments", "cmk-1")
	got, _ := k.Key("payments")
	got.CMKs[0].KeyID = "changed"
	refused := errors.New("refused")
	if _, err := k.Update("payments", func(key *Key) error {
		key.CMKs[0].KeyID = "changed"
		return refused
	}); !errors.Is(err, refused) {
		t.Fatal(err)
	}
	if again, _ := k.Key("payments"); again.CMKs[0].KeyID != "cmk-1" {
		t.Error("a caller's change reached the registry")
	}
}

func TestRefusesWhatItCannotRead(t *testing.T) {
	t.Run("in use", func(t *testing.T) {
		dir := t.TempDir()
		open(t, dir)
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("second Open: %v", err)
		}
	})
	t.Run("not a registry", func(t *testing.T) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, FileName), []byte(strings.Repeat("garbage!", 1024)), 0o600)
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "backup") {
			t.Errorf("Open: %v", err)
		}
	})
	t.Run("cut short", func(t *testing.T) {
		dir := t.TempDir()
		k := open(t, dir)
		finished(t, k, "payments", "cmk-1")
		k.Close()
		if err := os.Truncate(filepath.Join(dir, FileName), int64(3*os.Getpagesize())); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), FileName) {
			t.Errorf("Open: %v", err)
		}
	})
	t.Run("newer format", func(t *testing.T) {
		dir := t.TempDir()
		edit(t, dir, func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Put(versionKey, []byte("2")) })
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "format 2") {
			t.Errorf("Open: %v", err)
		}
	})
	t.Run("damaged record", func(t *testing.T) {
		dir := t.TempDir()
		edit(t, dir, func(tx *bbolt.Tx) error { return tx.Bucket(keysBucket).Put([]byte("x"), []byte("{}")) })
		if _, err := Open(dir); failure.KindOf(err) != failure.Corrupt {
			t.Errorf("Open: %v", err)
		}
	})
}

// edit changes the file behind the registry's back.
func edit(t *testing.T, dir string, change func(*bbolt.Tx) error) {
	t.Helper()
	k := open(t, dir)
	k.Close()
	db, err := bbolt.Open(filepath.Join(dir, FileName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(change); err != nil {
		t.Fatal(err)
	}
}

func TestCheckName(t *testing.T) {
	for name, want := range map[string]bool{
		"payments": true, "A.b_c-9": true, "": false, "-x": false, "a/b": false, "a b": false,
		strings.Repeat("x", 48): true, strings.Repeat("x", 49): false, "ключ": false, "a\n": false,
	} {
		if got := CheckName(name) == nil; got != want {
			t.Errorf("CheckName(%q) ok = %v, want %v", name, got, want)
		}
	}
}
