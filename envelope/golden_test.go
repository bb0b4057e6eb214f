package envelope

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write golden files that are not there; those that are stay for ever")

// vector is a golden message: NAME.kmse lies beside vectors.json.
type vector struct {
	Name       string            `json:"name"`
	DataKey    string            `json:"data_key"`    // hex
	MessageKey string            `json:"message_key"` // hex
	Context    map[string]string `json:"context"`
	Size       int               `json:"size"` // of the plaintext, which is that of pattern
}

const golden = "testdata/v1"

// pattern is a plaintext in which no two segments are alike.
func pattern(size int) []byte {
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(i*7 + i>>8 + i>>16)
	}
	return p
}

func dataKey() []byte { return pattern(KeySize) }

func wrapped(regions ...string) []WrappedKey {
	keys := make([]WrappedKey, len(regions))
	for i, region := range regions {
		keys[i] = WrappedKey{Region: region, KeyID: "key-" + region, CiphertextBlob: "YmxvYiBmb3Ig" + region + "=="}
	}
	return keys
}

// firstFull is the longest plaintext that fits into one segment.
const firstFull = SegmentSize - tinkHeader - tagSize

func newGolden(t *testing.T) {
	t.Helper()
	var vectors []vector
	for _, v := range []struct {
		vector
		regions []string
	}{
		{vector{Name: "empty", Size: 0}, []string{"cn-hangzhou"}},
		{vector{Name: "byte", Size: 1, Context: map[string]string{"tenant": "a"}}, []string{"cn-hangzhou"}},
		{vector{Name: "context", Size: 100, Context: map[string]string{"b": "", "": "x", "ä": "ö", "B": "2", "a": "=\n\x00"}}, []string{"cn-hangzhou", "cn-shanghai"}},
		{vector{Name: "one-full-segment", Size: firstFull}, []string{"eu-central-1"}},
		{vector{Name: "two-segments", Size: firstFull + 1}, []string{"eu-central-1"}},
		{vector{Name: "three-segments", Size: 150_000, Context: map[string]string{"tenant": "a"}}, []string{"cn-hangzhou", "cn-shanghai", "eu-central-1"}},
	} {
		m, err := New("payments", wrapped(v.regions...), dataKey(), v.Context)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := m.Seal(pattern(v.Size))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(golden, v.Name+".kmse"), sealed, 0o644); err != nil {
			t.Fatal(err)
		}
		v.DataKey, v.MessageKey = hex.EncodeToString(dataKey()), hex.EncodeToString(m.Key())
		vectors = append(vectors, v.vector)
	}
	text, err := json.MarshalIndent(vectors, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(golden, "vectors.json"), append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func vectors(t testing.TB) []vector {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(golden, "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	if err := json.Unmarshal(text, &all); err != nil || len(all) == 0 {
		t.Fatalf("%d vectors, %v", len(all), err)
	}
	return all
}

func (v vector) read(t testing.TB) (message, dataKey, messageKey []byte) {
	t.Helper()
	message, err := os.ReadFile(filepath.Join(golden, v.Name+".kmse"))
	dataKey, dataErr := hex.DecodeString(v.DataKey)
	messageKey, keyErr := hex.DecodeString(v.MessageKey)
	if err := errors.Join(err, dataErr, keyErr); err != nil {
		t.Fatal(err)
	}
	return message, dataKey, messageKey
}

// TestGolden: every message of every release opens for ever.
func TestGolden(t *testing.T) {
	if _, err := os.Stat(golden); *update && errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(golden, 0o755); err != nil {
			t.Fatal(err)
		}
		newGolden(t)
	}
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			message, dataKey, messageKey := v.read(t)
			header, segments, err := Split(message)
			if err != nil {
				t.Fatal(err)
			}
			m, err := WithDataKey(header, dataKey, v.Context)
			if err != nil || !bytes.Equal(m.Key(), messageKey) {
				t.Fatalf("message key %x, %v", m.Key(), err)
			}
			if opened, err := m.Open(segments); err != nil || !bytes.Equal(opened, pattern(v.Size)) {
				t.Errorf("Open: %d bytes, %v", len(opened), err)
			}
			if m, err = WithMessageKey(header, messageKey, v.Context); err != nil {
				t.Fatal(err)
			}
			src := bytes.NewReader(message)
			if read, err := ReadHeader(src); err != nil || !bytes.Equal(read, header) {
				t.Fatalf("ReadHeader: %x, %v", read, err)
			}
			r, err := m.NewReader(src)
			if err != nil {
				t.Fatal(err)
			}
			if opened, err := io.ReadAll(r); err != nil || !bytes.Equal(opened, pattern(v.Size)) {
				t.Errorf("NewReader: %d bytes, %v", len(opened), err)
			}
		})
	}
}

// TestIndependentDecoder has another implementation in another language read the
// same messages, and refuse them when they are changed.
func TestIndependentDecoder(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			message, _, _ := v.read(t)
			changed := bytes.Clone(message)
			changed[len(changed)-1] ^= 1
			for _, key := range []struct{ flag, hex string }{{"--data-key", v.DataKey}, {"--message-key", v.MessageKey}} {
				if out, err := v.decode(t, key.flag, key.hex, message); err != nil || !bytes.Equal(out, pattern(v.Size)) {
					t.Errorf("%s: %d bytes, %v", key.flag, len(out), err)
				}
				if out, err := v.decode(t, key.flag, key.hex, changed); err == nil || len(out) > 0 {
					t.Errorf("%s: a changed message opens to %d bytes", key.flag, len(out))
				}
			}
		})
	}
}

func (v vector) decode(t *testing.T, flag, key string, message []byte) ([]byte, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"../examples/envelope/decode.mjs", flag, file}
	for name, value := range v.Context {
		if bytes.ContainsRune([]byte(value), 0) {
			return v.decodeModule(t, flag, key, message)
		}
		args = append(args, "--context", name+"="+value)
	}
	node := exec.CommandContext(t.Context(), "node", args...)
	node.Stdin = bytes.NewReader(message)
	return node.Output()
}

// decodeModule calls the decoder with a context that no argument can hold.
func (v vector) decodeModule(t *testing.T, flag, key string, message []byte) ([]byte, error) {
	t.Helper()
	context, err := json.Marshal(v.Context)
	if err != nil {
		t.Fatal(err)
	}
	name := map[string]string{"--data-key": "dataKey", "--message-key": "key"}[flag]
	node := exec.CommandContext(t.Context(), "node", "--input-type=module", "-e", `
import { open } from '`+absolute(t, "../examples/envelope/decode.mjs")+`';
import { readFileSync, writeSync } from 'node:fs';
writeSync(1, open(readFileSync(0), { `+name+`: Buffer.from('`+key+`', 'hex'), context: `+string(context)+` }));`)
	node.Stdin = bytes.NewReader(message)
	return node.Output()
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
