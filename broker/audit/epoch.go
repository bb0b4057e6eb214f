package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/kmsbroker/kmsbroker/internal/secretfile"
)

// format is what LogOpen records say of how the trail is written.
const format = "1"

// The private key of the current epoch and, during a rotation, that of the next:
// an Ed25519 seed (RFC 8032) of 32 bytes, mode 0600.
const (
	keyName     = "epoch.key"
	nextKeyName = "epoch.key.next"
)

// sealDomain keeps a signature from meaning anything elsewhere.
const sealDomain = "kmsbroker audit seal 1\n"

// sigField begins what is appended to a line when it is signed.
const sigField = `,"sig":"`

func openEvent(key ed25519.PrivateKey) Event {
	return Event{Action: LogOpen, Outcome: Done, Details: map[string]string{
		DetailFormat: format, DetailPublicKey: publicHex(key),
	}}
}

// sealLine makes the last line of an epoch: it vouches for the whole chain up to
// itself, and for the next epoch's key.
func sealLine(head Head, at time.Time, key, next ed25519.PrivateKey) ([]byte, error) {
	event, err := encode(Event{Action: LogSeal, Outcome: Done, Details: map[string]string{DetailNextPublicKey: publicHex(next)}})
	if err != nil {
		return nil, err
	}
	line := bytes.TrimSuffix(head.next(at, event), []byte("}"))
	signature := ed25519.Sign(key, append([]byte(sealDomain), line...))
	return fmt.Appendf(line, `%s%x"}`, sigField, signature), nil
}

// sealedBy reports that line was signed with the private half of public.
func sealedBy(line []byte, r *Record, public ed25519.PublicKey) bool {
	signature, err := hex.DecodeString(r.Signature)
	end := bytes.LastIndex(line, []byte(sigField))
	return err == nil && end > 0 && hex.EncodeToString(signature) == r.Signature &&
		ed25519.Verify(public, append([]byte(sealDomain), line[:end]...), signature)
}

func publicHex(key ed25519.PrivateKey) string {
	return hex.EncodeToString(key.Public().(ed25519.PublicKey))
}

func parsePublic(s string) (ed25519.PublicKey, bool) {
	key, err := hex.DecodeString(s)
	return key, err == nil && len(key) == ed25519.PublicKeySize
}

// makeKey writes a new private key to the file of that name, and returns it.
func makeKey(dir, name string, random io.Reader) (ed25519.PrivateKey, error) {
	seed := make([]byte, ed25519.SeedSize)
	defer clear(seed)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name)
	if err := wipe(path); err != nil {
		return nil, err
	}
	if err := writeFile(path, seed); err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(seed), syncDir(dir)
}

// readKey returns nil when there is no such file.
func readKey(dir, name string) (ed25519.PrivateKey, error) {
	seed, err := secretfile.Read(filepath.Join(dir, name))
	defer clear(seed)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case len(seed) != ed25519.SeedSize:
		return nil, nil // a crash cut it short before anything depended on it
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// promoteKey wipes the key of the epoch that has ended and gives its name to that
// of the next. It may be repeated.
func promoteKey(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, nextKeyName)); errors.Is(err, fs.ErrNotExist) {
		return syncDir(dir)
	}
	if err := wipe(filepath.Join(dir, keyName)); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, nextKeyName), filepath.Join(dir, keyName)); err != nil {
		return err
	}
	return syncDir(dir)
}

// wipe overwrites a file before it removes it. Whether the medium forgets is up
// to the medium.
func wipe(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, ed25519.SeedSize), 0)
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(path))
}

func writeFile(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
