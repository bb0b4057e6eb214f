package kmsapi

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
)

// fields reads the fields of a success and remembers the first that breaks the
// documented form. The SDK checks nothing: an empty object is a success to it.
type fields struct {
	operation string
	requestID string
	broken    error
}

func fieldsOf(req requests.AcsRequest, id string) *fields {
	f := &fields{operation: req.GetActionName(), requestID: requestID(id)}
	if f.required("RequestId", id) != requestID(id) {
		f.breaks("RequestId", "is not an ID")
	}
	return f
}

// err returns the failure of the answer as a whole.
func (f *fields) err() error {
	if f.broken == nil {
		return nil
	}
	return &Error{Operation: f.operation, Status: http.StatusOK, Stage: StageAnswered, RequestID: f.requestID, Cause: f.broken}
}

// breaks notes a violation. The value is not quoted: it may be a plaintext.
func (f *fields) breaks(name, how string) {
	if f.broken == nil {
		f.broken = fmt.Errorf("%s in the answer %s", name, how)
	}
}

func (f *fields) required(name, value string) string {
	if value == "" {
		f.breaks(name, "is missing")
	}
	return value
}

// time reads an optional time.
func (f *fields) time(name, value string) time.Time {
	if value == "" {
		return time.Time{}
	}
	t, err := time.Parse(TimeLayout, value)
	if err != nil {
		f.breaks(name, "is not a time of the form "+TimeLayout)
	}
	return t
}

// base64 decodes a required value into a slice that its owner can wipe.
func (f *fields) base64(name, value string) []byte {
	f.required(name, value)
	data := make([]byte, base64.StdEncoding.DecodedLen(len(value)))
	n, err := base64.StdEncoding.Decode(data, []byte(value))
	if err != nil {
		clear(data)
		f.breaks(name, "is not base64")
		return nil
	}
	return data[:n]
}

func (f *fields) state(value string) KeyState {
	state := KeyState(value)
	if !slices.Contains([]KeyState{Enabled, Disabled, PendingDeletion, PendingImport}, state) {
		f.breaks("KeyState", "is not a known state")
	}
	return state
}

// wrappingKey reads a DER SubjectPublicKeyInfo of RSA_2048, the one wrapping key
// that is asked for.
func (f *fields) wrappingKey(name, value string) []byte {
	der := f.base64(name, value)
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		f.breaks(name, "is not a SubjectPublicKeyInfo")
		return nil
	}
	if k, ok := key.(*rsa.PublicKey); !ok || k.N.BitLen() != 2048 {
		f.breaks(name, "is not an RSA key of 2048 bits")
		return nil
	}
	return der
}

func (f *fields) page(number, size, total, entries int) Page {
	switch {
	case number < 1:
		f.breaks("PageNumber", "is not positive")
	case size < entries:
		f.breaks("PageSize", "is less than the number of entries")
	case total < entries:
		f.breaks("TotalCount", "is less than the number of entries")
	}
	return Page{Number: number, Size: size}
}
