package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"sync"

	"github.com/kmsbroker/kmsbroker/broker/config"
	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/identity"
)

// identify finds the source of the credentials. AccessKeys in the environment are
// none: every process of the user could read them there.
func (c *regionClients) identify(cfg config.KMS, log *slog.Logger) error {
	sts := identity.STS{Region: cfg.Default.Region, Endpoint: cfg.Credentials.STSEndpoint}
	if sts.Endpoint != "" && cfg.Default.CAFile != "" {
		roots, err := readRoots(cfg.Default.CAFile)
		if err != nil {
			return err
		}
		sts.RootCAs = roots
	}
	if err := c.base(cfg.Credentials, sts, log); err != nil {
		return err
	}
	role := cfg.Credentials.Role
	if role == nil {
		return nil
	}
	return c.source(identity.Role(identity.RoleConfig{
		STS: sts, Session: session(role.Session), ExternalID: role.ExternalID, Base: c.credentials, Log: log,
	}))
}

// base makes the source that stands on no other.
func (c *regionClients) base(cfg config.Credentials, sts identity.STS, log *slog.Logger) error {
	switch {
	case cfg.ECSRole != nil:
		return c.source(identity.ECSRole(identity.ECSConfig{RoleName: cfg.ECSRole.Name, Metadata: cfg.ECSRole.Metadata, Log: log}))
	case cfg.OIDC != nil:
		return c.source(identity.OIDC(identity.OIDCConfig{
			STS: sts, Session: session(cfg.OIDC.Session), ProviderARN: cfg.OIDC.ProviderARN, TokenFile: cfg.OIDC.TokenFile, Log: log,
		}))
	default:
		file, err := kmsapi.CredentialsFile(cfg.File)
		if errors.Is(err, fs.ErrNotExist) {
			log.Warn("credentials file not there yet", "error", err)
			file, err = awaitedFile(cfg.File), nil
		}
		c.credentials = file
		return err
	}
}

// awaitedFile is a credentials file that was not there at the start: that which
// `kmsbrokerctl ram provision` is going to make, for which it asks this daemon.
func awaitedFile(path string) kmsapi.CredentialSource {
	var mu sync.Mutex
	var there kmsapi.CredentialSource
	return credentialFunc(func(ctx context.Context) (kmsapi.Credentials, error) {
		mu.Lock()
		defer mu.Unlock()
		if there == nil {
			file, err := kmsapi.CredentialsFile(path)
			if err != nil {
				return kmsapi.Credentials{}, err
			}
			there = file
		}
		return there.Credentials(ctx)
	})
}

type credentialFunc func(context.Context) (kmsapi.Credentials, error)

// Credentials implements [kmsapi.CredentialSource].
func (f credentialFunc) Credentials(ctx context.Context) (kmsapi.Credentials, error) { return f(ctx) }

// source keeps a source for as long as the clients.
func (c *regionClients) source(source *identity.Source, err error) error {
	if err != nil {
		return err
	}
	c.credentials = source
	c.open = append(c.open, source)
	return nil
}

func session(s config.Session) identity.Session {
	return identity.Session{RoleARN: s.RoleARN, Name: s.Name, Duration: s.Duration}
}
