package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// checkCertificate checks a file of certificates that a key of Chrystoki.conf
// names.
func (c *checker) checkCertificate(key, path, section string) {
	if path == "" {
		c.complain("%s is not set in section %s: run `source ./setenv` in %s", key, section, c.dir)
		return
	}
	if !c.isPath(key, path) {
		return
	}
	content, err := os.ReadFile(path)
	if err != nil {
		c.complain("%s: %v", key, err)
		return
	}
	if bytes.Contains(content, []byte("PRIVATE KEY-----")) {
		c.checkPrivate(path, "a private key")
	}
	if err := checkCertificates(content, c.now); err != nil {
		c.complain("%s: %s %v", key, path, err)
	}
}

// checkCertificates demands that every certificate in a PEM file is valid now.
// Other blocks, such as the private key beside the partition's certificate, are
// passed over.
func checkCertificates(content []byte, now time.Time) error {
	found := 0
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		found++
		certificate, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			return fmt.Errorf("has a certificate that cannot be parsed: %w", err)
		case now.After(certificate.NotAfter):
			return fmt.Errorf("expired on %s: download the service client again", certificate.NotAfter.Format(time.DateOnly))
		case now.Before(certificate.NotBefore):
			return fmt.Errorf("is not valid before %s: is the clock right?", certificate.NotBefore.Format(time.RFC3339))
		}
	}
	if found == 0 {
		return errors.New("contains no PEM certificate")
	}
	return nil
}
