package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/aliyun/alibaba-cloud-sdk-go/services/sts"

	"github.com/kmsbroker/kmsbroker/internal/secretfile"
)

// OIDCConfig says which role to assume with which token.
type OIDCConfig struct {
	STS         STS
	Session     Session
	ProviderARN string // "acs:ram::1234567890123456:oidc-provider/NAME"
	// TokenFile holds the token of the identity provider and must be closed to
	// others, see package secretfile. It is read at every fetch, because such
	// tokens live for an hour or so.
	TokenFile string
	Log       *slog.Logger // of fetches that fail; nil: none
}

const oidcSource = "OIDC"

// OIDC gives the credentials for which STS exchanges a token of an OIDC identity
// provider (AssumeRoleWithOIDC), such as a Kubernetes cluster. It contacts
// nothing yet. Close the source.
func OIDC(config OIDCConfig) (*Source, error) {
	s, err := config.Session.complete()
	if err != nil {
		return nil, err
	}
	switch {
	case !providerARN.MatchString(config.ProviderARN):
		return nil, fmt.Errorf("OIDC provider ARN %.200q is not of the form acs:ram::1234567890123456:oidc-provider/NAME", config.ProviderARN)
	case !filepath.IsAbs(config.TokenFile):
		return nil, fmt.Errorf("OIDC token file %q is not an absolute path", config.TokenFile)
	}
	rpc, err := config.STS.dial(nil)
	if err != nil {
		return nil, err
	}
	return newSource(oidcSource, config.Log, func(ctx context.Context) (session, error) {
		defer rpc.Close()
		token, err := readToken(config.TokenFile)
		if err != nil {
			return session{}, &Error{
				Source: oidcSource, Tried: "read the token", Err: err,
				Hint: "in Kubernetes, securityContext.runAsUser gives the token to the daemon's user alone",
			}
		}
		req := sts.CreateAssumeRoleWithOIDCRequest()
		req.RoleArn, req.RoleSessionName, req.DurationSeconds = s.RoleARN, s.Name, s.seconds()
		req.OIDCProviderArn, req.OIDCToken = config.ProviderARN, token
		resp := sts.CreateAssumeRoleWithOIDCResponse()
		err = rpc.Do(ctx, req, resp)
		var got session
		if err == nil {
			got, err = ofSTS(resp.Credentials)
		}
		if err != nil {
			return session{}, &Error{Source: oidcSource, Tried: "assume " + s.RoleARN + " at " + rpc.Endpoint().String(), Hint: stsHint(err), Err: err}
		}
		return got, nil
	}), nil
}

func readToken(path string) (string, error) {
	content, err := secretfile.Read(path)
	if err != nil {
		return "", err
	}
	defer clear(content)
	token := bytes.TrimSpace(content)
	if len(token) == 0 || bytes.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", errors.New(path + " does not hold one token")
	}
	return string(token), nil
}
