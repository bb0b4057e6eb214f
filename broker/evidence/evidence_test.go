package evidence

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/keyring"
)

func record() Record {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return Record{
		IssuedAt: at, Broker: Broker{InstanceID: "i", Version: "1.0"}, Key: "payments",
		CMKs:   []keyring.CMK{{KeyID: "cmk-1", Region: "cn-hangzhou", HSMKeyID: "ab", CreatedAt: at}},
		Births: []keyring.Birth{{At: at, Backend: "luna", HSMKeyID: "ab", CheckValue: "a1b2c3"}},
		Exports: []keyring.Export{
			{At: at, HSMKeyID: "ab", KeyID: "cmk-1", WrappingKeySHA256: strings.Repeat("0", 64), Imported: "r-1"},
		},
	}
}

func TestSignAndVerify(t *testing.T) {
	dir := t.TempDir()
	signer, err := OpenSigner(dir)
	if err != nil {
		t.Fatal(err)
	}
	file, err := signer.Sign(record())
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenSigner(dir)
	if err != nil || !again.Public().Equal(signer.Public()) {
		t.Fatalf("the key did not stay: %v", err)
	}
	got, fingerprint, err := Verify(file)
	if err != nil || got.Key != "payments" || got.Births[0].CheckValue != "a1b2c3" || fingerprint != Fingerprint(signer.Public()) {
		t.Errorf("Verify = %+v, %s, %v", got, fingerprint, err)
	}
	var reindented bytes.Buffer
	if err := json.Indent(&reindented, file, "", "\t"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Verify(reindented.Bytes()); err != nil {
		t.Errorf("white space changed: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, FileName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// TestChanged: no byte of the record can be changed unnoticed, nor can a record be
// given to another signer.
func TestChanged(t *testing.T) {
	signer, err := OpenSigner(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file, err := signer.Sign(record())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"check value": {"a1b2c3", "a1b2c4"},
		"key":         {"payments", "paiments"},
		"format":      {Format, "kmsbroker-evidence-2"},
		"a new field": {`"key":`, `"kay": 1, "key":`},
	} {
		changed := bytes.Replace(file, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(changed, file) {
			t.Fatalf("%s: nothing changed", name)
		}
		if _, _, err := Verify(changed); err == nil {
			t.Errorf("%s: changed unnoticed", name)
		}
	}
	other, err := OpenSigner(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var signed Signed
	if err := json.Unmarshal(file, &signed); err != nil {
		t.Fatal(err)
	}
	signed.PublicKey = other.Public()
	stolen, _ := json.Marshal(signed)
	if _, _, err := Verify(stolen); err == nil {
		t.Error("another public key verifies the signature")
	}
	forged := strings.Replace(strings.Replace(string(file), `"record"`, `"Record"`, 1), "{", `{"record": {"key": "forged"},`, 1)
	if _, _, err := Verify([]byte(forged)); err == nil {
		t.Error("a second record in front of the signed one was not noticed")
	}
	for _, bad := range []string{"", "{}", "null", string(file) + "{}"} {
		if _, _, err := Verify([]byte(bad)); err == nil {
			t.Errorf("%.20q verifies", bad)
		}
	}
}

func FuzzVerify(f *testing.F) {
	// The same in every process that fuzzes.
	signer := &Signer{private: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}
	file, err := signer.Sign(record())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Add([]byte(`{"record":{},"public_key":"","signature":""}`))
	f.Fuzz(func(t *testing.T, file []byte) {
		record, fingerprint, err := Verify(file)
		if err == nil && (record == nil || fingerprint != Fingerprint(signer.Public())) {
			t.Errorf("verified a record that nobody signed: %+v", record)
		}
	})
}

func TestDamagedSigner(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	os.WriteFile(path, []byte("garbage"), 0o600)
	if _, err := OpenSigner(dir); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("OpenSigner: %v", err)
	}
	os.WriteFile(path, []byte("garbage"), 0o644)
	os.Chmod(path, 0o644)
	if _, err := OpenSigner(dir); err == nil {
		t.Error("a key that everybody reads was taken")
	}
}
