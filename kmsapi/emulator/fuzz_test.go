package emulator

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// knownBlob was sealed with knownKey in the context {"a":"1","b":"2"}. State
// directories outlive versions of the emulator, so it has to open for ever.
const knownBlob = "MmY4YTFiOGUtNWQzYy00YjhlLTlhNTUtMGE0YThiN2M2ZDVlyMBnKVOyHmXL4s05TMGYepfm49DyHrR99xJ0BnswHLWo"

func knownKey(tb testing.TB) *key {
	tb.Helper()
	k := &key{ID: "k", Version: "2f8a1b8e-5d3c-4b8e-9a55-0a4a8b7c6d5e"}
	if err := k.setMaterial(bytes.Repeat([]byte{7}, materialSize), time.Time{}); err != nil {
		tb.Fatal(err)
	}
	return k
}

// FuzzOpenBlob checks that nothing opens but what was sealed.
func FuzzOpenBlob(f *testing.F) {
	k := knownKey(f)
	context := encryptionContext{"b": "2", "a": "1"}
	f.Add(knownBlob)
	f.Add(knownBlob[:60])
	f.Add("")
	f.Add(strings.Repeat("A", 48))
	f.Add(knownBlob + "\n")
	f.Fuzz(func(t *testing.T, blob string) {
		version, sealed, err := splitBlob(blob)
		if err != nil {
			return
		}
		if len(version) != versionSize || len(sealed) == 0 {
			t.Fatalf("%q: split into %q and %d bytes", blob, version, len(sealed))
		}
		// The 36 bytes of the version are 48 characters.
		plain, err := k.open(k.Version, sealed, context)
		if opened := err == nil; opened != (blob[48:] == knownBlob[48:]) || opened && string(plain) != "hello" {
			t.Fatalf("%q opens as %q, %v", blob, plain, err)
		}
	})
}

// FuzzParseContext checks that a context that passes is what encoding/json reads,
// and that one text stands for one additional data.
func FuzzParseContext(f *testing.F) {
	for _, seed := range []string{`{"b":"2", "a":"1"}`, `{}`, `[]`, `{"a":1}`, `{"a":null}`, `{"a":"1","a":"2"}`, `{"a":"1"}x`, `{"":""}`, `{"a":"\ud800"}`, `{"a":{"b":"c"}}`, "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ec, err := wire.Params{"c": text}.Context("c")
		if err != nil || text == "" {
			return
		}
		var want map[string]string
		if err := json.Unmarshal([]byte(text), &want); err != nil || !maps.Equal(ec, want) {
			t.Fatalf("%q read as %v, encoding/json says %v, %v", text, ec, want, err)
		}
		canonical, err := json.Marshal(ec)
		if err != nil {
			t.Fatal(err)
		}
		// Escapes can make the text longer than a context may be.
		again, err := wire.Params{"c": string(canonical)}.Context("c")
		if err == nil && !bytes.Equal(encryptionContext(again).additionalData("v"), encryptionContext(ec).additionalData("v")) {
			t.Fatalf("%q and %q bind differently", text, canonical)
		}
	})
}
