package emulator_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

// startOn is start for an emulator that the test closes itself.
func startOn(t *testing.T, dir string, clock *fakeClock) *emulator.Server {
	t.Helper()
	s, err := emulator.New(rootConfig(dir, clock))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func rootConfig(dir string, clock *fakeClock) emulator.Config {
	return emulator.Config{
		Regions: []string{"cn-hangzhou"}, AccessKeyID: rootID, AccessKeySecret: rootSecret, StateDir: dir, Clock: clock.Now,
	}
}

func TestRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	clock := newClock()
	var id, deleted, blob string
	var second params
	t.Run("before", func(t *testing.T) {
		f := start(t, emulator.Config{StateDir: dir, Clock: clock.Now})
		f.clock = clock
		id = f.newKey("EXTERNAL")
		first := f.wrapped(id, "RSAES_OAEP_SHA_256", wrapOAEP256, material(32))
		second = f.wrapped(id, "RSAES_PKCS1_V1_5", wrapPKCS1, material(32))
		f.ok("ImportKeyMaterial", first)
		f.ok("CreateAlias", params{"KeyId": id, "AliasName": "alias/kept"})
		f.ok("CreateAlias", params{"KeyId": id, "AliasName": "alias/dropped"})
		f.ok("DeleteAlias", params{"AliasName": "alias/dropped"})
		f.ok("TagResource", params{"KeyId": id, "Tags": `[{"TagKey":"a","TagValue":"b"}]`})
		blob = f.encrypt("alias/kept", "hello")
		deleted = f.newKey("Aliyun_KMS")
		f.ok("ScheduleKeyDeletion", params{"KeyId": deleted, "PendingWindowInDays": "7"})
	})
	t.Run("after", func(t *testing.T) {
		f := start(t, emulator.Config{StateDir: dir, Clock: clock.Now})
		if got := f.ok("Decrypt", params{"CiphertextBlob": blob}).text("Plaintext"); got != b64("hello") {
			t.Errorf("Plaintext = %q", got)
		}
		if got := f.ok("DescribeKey", params{"KeyId": "alias/kept"}).text("KeyMetadata", "KeyId"); got != id {
			t.Errorf("the alias names %s", got)
		}
		f.refused(404, "Forbidden.AliasNotFound", "DescribeKey", params{"KeyId": "alias/dropped"})
		if tags := f.ok("ListResourceTags", params{"KeyId": id}).list("Tags", "Tag"); len(tags) != 1 {
			t.Errorf("tags %v", tags)
		}
		if _, ok := f.server.WrappingKey(second["ImportToken"]); !ok {
			t.Error("an import token was forgotten")
		}
		f.ok("ImportKeyMaterial", second)
		if got := f.keyState(deleted); got != "PendingDeletion" {
			t.Errorf("state %s", got)
		}
		clock.advance(8 * 24 * time.Hour)
		f.refused(404, "Forbidden.KeyNotFound", "DescribeKey", params{"KeyId": deleted})
	})
	t.Run("deleted for good", func(t *testing.T) {
		f := start(t, emulator.Config{StateDir: dir, Clock: newClock().Now})
		f.refused(404, "Forbidden.KeyNotFound", "DescribeKey", params{"KeyId": deleted})
	})
	for path, want := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, "emulator.db"): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %v, want %v", path, got, want)
		}
	}
}

func TestStateDirInUse(t *testing.T) {
	dir := t.TempDir()
	s := startOn(t, dir, newClock())
	defer s.Close()
	_, err := emulator.New(rootConfig(dir, newClock()))
	if err == nil || !strings.Contains(err.Error(), "in use by another emulator") {
		t.Errorf("a second emulator got %v", err)
	}
}

func TestDamagedState(t *testing.T) {
	for name, tt := range map[string]struct {
		damage func(t *testing.T, path string)
		want   string
	}{
		"not a database": {func(t *testing.T, path string) { write(t, path, []byte(strings.Repeat("garbage ", 10000))) }, "damaged"},
		"truncated": {func(t *testing.T, path string) {
			if err := os.Truncate(path, 2*4096); err != nil {
				t.Fatal(err)
			}
		}, "damaged"},
		"pages overwritten": {func(t *testing.T, path string) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i := 2 * os.Getpagesize(); i < len(data); i++ {
				data[i] = 0xff
			}
			write(t, path, data)
		}, "damaged"},
		"newer format":  {update("kmsbroker-emulator", nil, "format", "2"), `format "2"`},
		"another's":     {func(t *testing.T, path string) { os.Remove(path); update("", []string{"theirs"}, "a", "b")(t, path) }, "another program"},
		"bad record":    {update("regions", []string{"cn-hangzhou", "keys"}, "k", "{"), "damaged"},
		"foreign alias": {update("regions", []string{"cn-hangzhou", "aliases"}, "alias/a", `"none"`), "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := startOn(t, dir, newClock())
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			tt.damage(t, filepath.Join(dir, "emulator.db"))
			s, err := emulator.New(rootConfig(dir, newClock()))
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error that says %q", err, tt.want)
			}
		})
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// update puts a value into a bucket of the state file.
func update(bucket string, nested []string, name, value string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		db, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if bucket != "" {
			nested = append([]string{bucket}, nested...)
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte(nested[0]))
			for _, name := range nested[1:] {
				if err == nil {
					b, err = b.CreateBucketIfNotExists([]byte(name))
				}
			}
			if err != nil {
				return err
			}
			return b.Put([]byte(name), []byte(value))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := emulator.Config{Regions: []string{"cn-hangzhou"}, AccessKeyID: "a", AccessKeySecret: "b"}
	for name, change := range map[string]func(*emulator.Config){
		"no region":          func(c *emulator.Config) { c.Regions = nil },
		"region twice":       func(c *emulator.Config) { c.Regions = []string{"r", "r"} },
		"not a region":       func(c *emulator.Config) { c.Regions = []string{"../x"} },
		"no secret":          func(c *emulator.Config) { c.AccessKeySecret = "" },
		"no access key":      func(c *emulator.Config) { c.AccessKeyID = "" },
		"negative key limit": func(c *emulator.Config) { c.MaxKeys = -1 },
	} {
		cfg := good
		change(&cfg)
		if _, err := emulator.New(cfg); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}
