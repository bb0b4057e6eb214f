package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kmsbroker/kmsbroker/internal/secretfile"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Kinds of HSMs.
const (
	softhsm = "softhsm"
	luna    = "luna"
	dpod    = "dpod"
)

// fillIn finds or asks for what was not given.
func (c *ctl) fillIn(ctx context.Context, s *setup) error {
	if err := c.ask(ctx, &s.plugin, "plugin", "kind of the HSM (softhsm, luna, dpod)", installed()); err != nil {
		return err
	}
	if !slices.Contains([]string{softhsm, luna, dpod}, s.plugin) {
		return usagef("--plugin is softhsm, luna or dpod, not %q", s.plugin)
	}
	if err := c.ask(ctx, &s.label, "token-label", "label of the token or partition", ""); err != nil {
		return err
	}
	if s.plugin == dpod {
		if err := c.ask(ctx, &s.clientDir, "client-dir", "directory of the service client", ""); err != nil {
			return err
		}
	}
	return c.ask(ctx, &s.region, "region", "region of Alibaba Cloud KMS", regionOfInstance(ctx))
}

// ask asks for a value that was not given.
func (c *ctl) ask(ctx context.Context, value *string, flag, what, suggestion string) error {
	if *value != "" {
		return nil
	}
	if _, ok := c.terminal(); !ok {
		return usagef("--%s is missing, and there is no terminal to ask on", flag)
	}
	question := what
	if suggestion != "" {
		question += " [" + suggestion + "]"
	}
	fmt.Fprintf(c.stderr, "%s: ", question)
	line, err := readLine(c.stdin)
	if err != nil || ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if *value = strings.TrimSpace(string(line)); *value == "" {
		*value = suggestion
	}
	if *value == "" {
		return usagef("--%s: nothing was entered", flag)
	}
	return nil
}

// installed guesses the kind of the HSM by the libraries that are there.
func installed() string {
	for _, known := range []struct{ kind, path string }{
		{luna, "/usr/safenet/lunaclient"}, {softhsm, "/usr/lib/softhsm/libsofthsm2.so"},
	} {
		if _, err := os.Stat(known.path); err == nil {
			return known.kind
		}
	}
	return ""
}

// regionOfInstance asks the metadata service of ECS, "" elsewhere.
func regionOfInstance(ctx context.Context) string {
	const patience, longest = time.Second, 64
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://100.100.100.200/latest/meta-data/region-id", nil)
	if err != nil {
		return ""
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req) // no proxy
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, longest))
	if region := string(text); err == nil && resp.StatusCode == http.StatusOK && kmsapi.CheckRegion(region) == nil {
		return region
	}
	return ""
}

// secrets of a setup, in the form of the files that the daemon reads.
type secrets struct{ pin, accessKey []byte }

func (s *secrets) wipe() {
	clear(s.pin)
	clear(s.accessKey)
}

func (c *ctl) secretsOf(ctx context.Context, s *setup) (*secrets, error) {
	var found secrets
	var err error
	if s.pinFile != "" {
		if found.pin, err = secretfile.Read(s.pinFile); err != nil {
			return nil, err
		}
		found.pin = bytes.TrimRight(found.pin, "\r\n")
	} else if found.pin, err = c.knownSecret(ctx, "PIN"); err != nil {
		return nil, err
	}
	switch {
	case s.ecsRole:
		return &found, nil
	case s.accessKeyFile != "":
		if found.accessKey, err = secretfile.Read(s.accessKeyFile); err != nil {
			return nil, err
		}
	default:
		var id string
		if err := c.ask(ctx, &id, "access-key-file", "access key ID", ""); err != nil {
			return nil, err
		}
		secret, err := c.knownSecret(ctx, "access key secret")
		if err != nil {
			return nil, err
		}
		defer clear(secret)
		found.accessKey = fmt.Appendf(nil, "access_key_id     = %q\naccess_key_secret = %q\n", id, secret)
	}
	if _, err := kmsapi.ParseCredentials(found.accessKey); err != nil {
		return nil, fmt.Errorf("access key: %w", err)
	}
	return &found, nil
}
