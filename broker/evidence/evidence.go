// Package evidence makes and checks signed records of where a key came from: its
// birth in an HSM and every time it left one wrapped. A record is one JSON file
// that an auditor reads, and checks without the broker.
//
// The signature says that this broker wrote the record and that nobody changed it
// since. It cannot say more than the broker knew: what the HSM told of itself is
// as trustworthy as the HSM's driver.
package evidence

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/keyring"
)

// Format names this form of a record, and begins what is signed, so that no
// signature over anything else can be taken for one.
const Format = "kmsbroker-evidence-1"

// Record is what the broker knows of a key.
type Record struct {
	Format   string           `json:"format"`
	IssuedAt time.Time        `json:"issued_at"`
	Broker   Broker           `json:"broker"`
	Key      string           `json:"key"`
	CMKs     []keyring.CMK    `json:"cmks"`
	Births   []keyring.Birth  `json:"births"`
	Exports  []keyring.Export `json:"exports"`
	// Observed are HSM keys that were adopted, as the HSM described them then.
	Observed []keyring.Birth `json:"observed,omitempty"`
}

// Broker is who says so.
type Broker struct {
	InstanceID string `json:"instance_id"`
	Version    string `json:"version"`
}

// Signed is a record with its signature, as it is written to a file.
type Signed struct {
	Record    json.RawMessage `json:"record"`
	PublicKey []byte          `json:"public_key"` // Ed25519, 32 bytes
	Signature []byte          `json:"signature"`  // over Format, a zero byte and the compact record
}

// Sign makes the file of a record.
func (s *Signer) Sign(record Record) ([]byte, error) {
	record.Format = Format
	raw, err := json.Marshal(record)
	if err != nil {
		return nil, fmt.Errorf("encode evidence: %w", err)
	}
	signed := Signed{Record: raw, PublicKey: s.Public(), Signature: ed25519.Sign(s.private, message(raw))}
	file, err := json.MarshalIndent(signed, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode evidence: %w", err)
	}
	return append(file, '\n'), nil
}

// Verify checks a file and returns its record and the fingerprint of the key that
// signed it, which says who did: compare it with that of the broker.
func Verify(file []byte) (*Record, string, error) {
	var signed Signed
	if err := strict(file, &signed); err != nil {
		return nil, "", fmt.Errorf("not a signed record of evidence: %w", err)
	}
	compact, err := onlyForm(file, signed)
	if err != nil {
		return nil, "", err
	}
	if len(signed.PublicKey) != ed25519.PublicKeySize || !ed25519.Verify(signed.PublicKey, message(compact), signed.Signature) {
		return nil, "", errors.New("the signature is wrong: the record was changed after it was signed")
	}
	var record Record
	if err := strict(signed.Record, &record); err != nil {
		return nil, "", fmt.Errorf("the record is signed and not of a form that is known here: %w", err)
	}
	if record.Format != Format {
		return nil, "", fmt.Errorf("the record has the format %.40q, not %s", record.Format, Format)
	}
	return &record, Fingerprint(signed.PublicKey), nil
}

// onlyForm returns the compact record, if the file is nothing but what it decodes
// to. Other readers of JSON may take the first of two fields of one name, or tell
// "Record" from "record", and would then see what nobody signed.
func onlyForm(file []byte, signed Signed) ([]byte, error) {
	var record, whole bytes.Buffer
	if err := errors.Join(json.Compact(&record, signed.Record), json.Compact(&whole, file)); err != nil {
		return nil, fmt.Errorf("not a signed record of evidence: %w", err)
	}
	again, err := json.Marshal(signed)
	if err != nil || !bytes.Equal(again, whole.Bytes()) {
		return nil, errors.New("not a signed record of evidence as a broker writes it: a field is twice in it, or out of its place")
	}
	return record.Bytes(), nil
}

// message is what is signed.
func message(compact []byte) []byte { return append([]byte(Format+"\x00"), compact...) }

// strict decodes JSON that has no other fields and nothing behind it.
func strict(raw []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errors.New("something follows the JSON object")
	}
	return nil
}

// Fingerprint is the SHA-256 of a public key in hex.
func Fingerprint(public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:])
}
