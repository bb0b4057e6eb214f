package kmsapi

import (
	"context"
	"fmt"
	"log/slog"
)

// Credentials are an AccessKey of a RAM user, or of a role when there is a
// SecurityToken. They print without their secrets.
type Credentials struct {
	AccessKeyID     string
	AccessKeySecret string
	SecurityToken   string
}

func (c Credentials) String() string {
	return "AccessKey " + c.AccessKeyID + " (secret withheld)"
}

// Format keeps the secrets out of every verb of fmt.
func (c Credentials) Format(f fmt.State, _ rune) {
	fmt.Fprint(f, c.String())
}

// GoString keeps the secrets out of %#v.
func (c Credentials) GoString() string { return c.String() }

// LogValue keeps the secrets out of logs.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText keeps the secrets out of JSON.
func (c Credentials) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// CredentialSource gives the credentials for a call. It is asked every time, so
// that they can be rotated, and concurrently. Its errors hold no secret.
type CredentialSource interface {
	Credentials(ctx context.Context) (Credentials, error)
}

// StaticCredentials never change.
func StaticCredentials(c Credentials) CredentialSource {
	return staticCredentials(func() Credentials { return c })
}

// staticCredentials is a function because fmt ignores the methods of unexported
// fields and, for some verbs, follows their pointers.
type staticCredentials func() Credentials

func (s staticCredentials) Credentials(context.Context) (Credentials, error) { return s(), nil }
