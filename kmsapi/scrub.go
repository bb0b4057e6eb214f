package kmsapi

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

const (
	maxMessage = 512 // characters
	// telling is how many characters a text may share with a secret. An echo can
	// be cut short on either side.
	telling = 16 // bytes
	// Shorter plaintexts are not looked for in their decoded form: they would be
	// found in any sentence.
	minDecoded = 4 // bytes
)

// withheld replaces a text of the server that repeats a secret.
const withheld = "(withheld: the answer repeats a secret of the request)"

// secretParameters may not come back in an error.
var secretParameters = []string{
	"Plaintext", "CiphertextBlob", "EncryptionContext", "EncryptedKeyMaterial",
	"ImportToken", "SecurityToken", "Signature", "OIDCToken",
}

// secretsOf returns the forms in which an answer could repeat the secret
// parameters of a request: as they are, escaped, escaped twice as in a string to
// sign, or decoded.
func secretsOf(form url.Values) []string {
	var secrets []string
	for _, name := range secretParameters {
		value := form.Get(name)
		if value == "" {
			continue
		}
		once := url.QueryEscape(value)
		secrets = append(secrets, value, once, url.QueryEscape(once))
		for _, inner := range decoded(value) {
			if inner = printable(inner); len(inner) >= minDecoded {
				secrets = append(secrets, inner)
			}
		}
	}
	return secrets
}

// decoded returns what is inside a parameter: the bytes of base64, the values of
// an encryption context.
func decoded(value string) []string {
	if data, err := base64.StdEncoding.DecodeString(value); err == nil {
		return []string{string(data)}
	}
	var pairs map[string]string
	if err := json.Unmarshal([]byte(value), &pairs); err != nil {
		return nil
	}
	var values []string
	for _, v := range pairs {
		values = append(values, v)
	}
	return values
}

// repeats reports that text holds a secret, or a telling part of one.
func repeats(text string, secrets []string) bool {
	if len(text) <= maxRequestID {
		return slices.ContainsFunc(secrets, func(secret string) bool { return sharesPart(text, secret) })
	}
	parts := map[string]bool{}
	for i := range len(text) - telling + 1 {
		parts[text[i:i+telling]] = true
	}
	for _, secret := range secrets {
		if len(secret) < telling && strings.Contains(text, secret) {
			return true
		}
		for i := range len(secret) - telling + 1 {
			if parts[secret[i:i+telling]] {
				return true
			}
		}
	}
	return false
}

// sharesPart is repeats for one secret, quick when text is short.
func sharesPart(text, secret string) bool {
	if len(secret) < telling {
		return strings.Contains(text, secret)
	}
	for i := range len(text) - telling + 1 {
		if strings.Contains(secret, text[i:i+telling]) {
			return true
		}
	}
	return false
}

// scrub makes a text of the server fit for logs. SignatureDoesNotMatch quotes
// the string to sign, which holds every parameter.
func scrub(text string, secrets []string) string {
	if before, _, found := strings.Cut(text, "server string to sign is"); found {
		text = strings.TrimRight(before, " .") + " (string to sign withheld)"
	}
	// What lies beyond is not shown, but tells an echo that begins before it.
	text = text[:min(len(text), maxMessage*8)]
	if text = printable(text); repeats(text, secrets) {
		return withheld
	}
	if runes := []rune(text); len(runes) > maxMessage {
		text = string(runes[:maxMessage])
	}
	return text
}

func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(text, ""))
}
