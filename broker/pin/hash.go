// Package pin keeps the application PINs that a grant can ask for: as hashes in the
// configuration, and compared in a way that is neither a means to guess them nor one
// to keep the machine busy. It has nothing to do with the PINs of HSMs, which never
// get here: a wrong application PIN is none of the HSM's business.
package pin

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Limits of a hash and of what it is made of.
const (
	// Iterations is what OWASP's Password Storage Cheat Sheet asks of
	// PBKDF2-HMAC-SHA-256: about 200 ms.
	Iterations      = 600_000
	LeastIterations = 100_000
	MostIterations  = 10_000_000
	// Longest is how many bytes a PIN may have. The shortest has one: what a PIN is
	// worth is the administrator's decision.
	Longest = 256

	scheme    = "pbkdf2-sha256"
	saltBytes = 16
	mostSalt  = 64
)

// ErrForm says how a hash is written.
var ErrForm = errors.New(`it is not of the form "` + scheme + `$ITERATIONS$SALT$HASH" that "kmsbrokerctl policy hash-pin" prints`)

// encoding has no padding, and one text for each value.
var encoding = base64.RawStdEncoding.Strict()

// hash is one that has been read.
type hash struct {
	iterations int
	salt, key  []byte
}

// Hash makes the hash of a PIN, with a salt of its own each time:
// "pbkdf2-sha256$600000$SALT$HASH", of PBKDF2 (RFC 8018) with HMAC-SHA-256, salt and
// hash in base64 without padding.
func Hash(given []byte) (string, error) {
	h := hash{iterations: Iterations, salt: make([]byte, saltBytes)}
	rand.Read(h.salt)
	var err error
	if h.key, err = h.derive(given); err != nil {
		return "", err
	}
	return strings.Join([]string{scheme, strconv.Itoa(h.iterations), encoding.EncodeToString(h.salt), encoding.EncodeToString(h.key)}, "$"), nil
}

// CheckHash refuses what is no hash, without repeating it: it may be the PIN.
func CheckHash(text string) error {
	_, err := parse(text)
	return err
}

func parse(text string) (hash, error) {
	var h hash
	parts := strings.Split(text, "$")
	const fields = 4
	if len(parts) != fields || parts[0] != scheme {
		return hash{}, ErrForm
	}
	var err error
	if h.iterations, err = strconv.Atoi(parts[1]); err != nil || strconv.Itoa(h.iterations) != parts[1] {
		return hash{}, ErrForm
	}
	if h.iterations < LeastIterations || h.iterations > MostIterations {
		return hash{}, fmt.Errorf("it has %d iterations, and must have %d to %d", h.iterations, LeastIterations, MostIterations)
	}
	var errs [2]error
	h.salt, errs[0] = encoding.DecodeString(parts[2])
	h.key, errs[1] = encoding.DecodeString(parts[3])
	if errors.Join(errs[:]...) != nil || strings.ContainsAny(text, "\r\n") || len(h.salt) < saltBytes || len(h.salt) > mostSalt || len(h.key) != sha256.Size {
		return hash{}, ErrForm
	}
	return h, nil
}

// derive makes a copy of the PIN that nobody can wipe: PBKDF2 takes a string.
func (h hash) derive(given []byte) ([]byte, error) {
	if len(given) == 0 || len(given) > Longest {
		return nil, fmt.Errorf("a PIN has 1 to %d bytes, not %d", Longest, len(given))
	}
	return pbkdf2.Key(sha256.New, string(given), h.salt, h.iterations, sha256.Size)
}

// matches compares a PIN with a hash, which takes as long as its iterations do.
func matches(text string, given []byte) (bool, error) {
	h, err := parse(text)
	if err != nil {
		return false, err
	}
	key, err := h.derive(given)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(key, h.key) == 1, nil
}
