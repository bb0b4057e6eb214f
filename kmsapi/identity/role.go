package identity

import (
	"context"
	"errors"
	"log/slog"

	"github.com/aliyun/alibaba-cloud-sdk-go/services/sts"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// RoleConfig says which role to assume, and as whom.
type RoleConfig struct {
	STS     STS
	Session Session
	// ExternalID is what the role's trust policy may demand; empty for none.
	ExternalID string
	// Base assumes the role. It is asked at every fetch, so that it can rotate,
	// and stays the caller's to close.
	Base kmsapi.CredentialSource
	Log  *slog.Logger // of fetches that fail; nil: none
}

const roleSource = "role"

// Role gives the credentials for which STS exchanges those of another source
// (AssumeRole). It contacts nothing yet. Close the source.
func Role(config RoleConfig) (*Source, error) {
	s, err := config.Session.complete()
	if err != nil {
		return nil, err
	}
	switch {
	case config.Base == nil:
		return nil, errors.New("a role needs credentials to assume it with")
	case config.ExternalID != "" && !externalID(config.ExternalID):
		return nil, errors.New("the external ID is not 2 to 1224 printable characters of ASCII")
	}
	rpc, err := config.STS.dial(config.Base)
	if err != nil {
		return nil, err
	}
	return newSource(roleSource, config.Log, func(ctx context.Context) (session, error) {
		defer rpc.Close()
		req := sts.CreateAssumeRoleRequest()
		req.RoleArn, req.RoleSessionName, req.DurationSeconds, req.ExternalId = s.RoleARN, s.Name, s.seconds(), config.ExternalID
		resp := sts.CreateAssumeRoleResponse()
		err := rpc.Do(ctx, req, resp)
		var got session
		if err == nil {
			got, err = ofSTS(resp.Credentials)
		}
		if err != nil {
			return session{}, &Error{Source: roleSource, Tried: "assume " + s.RoleARN + " at " + rpc.Endpoint().String(), Hint: stsHint(err), Err: err}
		}
		return got, nil
	}), nil
}

// externalID checks the length that AssumeRole documents.
func externalID(id string) bool {
	for _, r := range id {
		if r < ' ' || r > '~' {
			return false
		}
	}
	return 2 <= len(id) && len(id) <= 1224
}
