package importer

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// plan checks everything that can be checked before anything is made, and
// decides the wrapping algorithm.
func (r *run) plan(ctx context.Context, req Request) (keyring.ImportPlan, error) {
	none := keyring.ImportPlan{}
	if err := r.checkRequest(req); err != nil {
		return none, err
	}
	backend, err := r.Backend(req.Backend)
	if err != nil {
		return none, err
	}
	r.backend = backend
	if err := r.checkEndpoint(req.Backend, backend); err != nil {
		return none, err
	}
	info, err := backend.Token.Describe(ctx)
	if err != nil {
		return none, err
	}
	algorithm, err := ChooseAlgorithm(req.WrappingAlgorithm, info.WrappingAlgorithms, r.Endpoint.WrappingAlgorithms)
	if err != nil {
		return none, err
	}
	if err := r.checkCloud(ctx, req); err != nil {
		return none, err
	}
	return keyring.ImportPlan{
		Backend: req.Backend, Region: r.Endpoint.Region, Alias: req.Alias, Description: req.Description,
		WrappingAlgorithm: algorithm, MaterialExpiresAt: req.MaterialExpiresAt.UTC(),
	}, nil
}

func (r *run) checkRequest(req Request) error {
	if err := keyring.CheckName(req.Name); err != nil {
		return err
	}
	if req.Region != "" && req.Region != r.Endpoint.Region {
		return failure.New(failure.Invalid, "REGION", "region %.40q is not configured", req.Region).
			WithHint("this kmsbrokerd serves %s", r.Endpoint.Region)
	}
	if err := checkAlias(req.Alias); err != nil {
		return err
	}
	if len(req.Description) > kmsapi.MaxDescription {
		return failure.New(failure.Invalid, "DESCRIPTION", "the description is longer than %d bytes", kmsapi.MaxDescription)
	}
	return r.checkExpiry(req.MaterialExpiresAt)
}

// checkAlias applies the rules of CreateAlias.
func checkAlias(alias string) error {
	if alias == "" {
		return nil
	}
	name, ok := strings.CutPrefix(alias, kmsapi.AliasPrefix)
	if !ok || name == "" || len(alias) > 255 || strings.HasPrefix(name, "acs") {
		return failure.New(failure.Invalid, "ALIAS",
			"alias %.80q is not alias/NAME of at most 255 characters whose NAME does not begin with acs", alias)
	}
	return nil
}

func (r *run) checkEndpoint(name string, backend Backend) error {
	if r.Endpoint.Genuine || backend.AllowForeignEndpoint {
		return nil
	}
	return failure.New(failure.Denied, "FOREIGN_ENDPOINT",
		"%s is not verified TLS to Alibaba Cloud, and whoever runs it would receive the HSM key", r.Endpoint.URL).
		WithHint("for an emulator set allow_foreign_endpoint = true in [backend.%s]", name)
}

// ChooseAlgorithm picks a wrapping algorithm that both the token and the
// service accept. Left to itself it takes the strongest OAEP and never PKCS#1
// v1.5, whose padding lets an attacker who can submit blobs learn the key.
func ChooseAlgorithm(wanted string, token, service []hsm.WrappingAlgorithm) (hsm.WrappingAlgorithm, error) {
	if wanted != "" && wanted != "auto" {
		algorithm := hsm.WrappingAlgorithm(wanted)
		switch {
		case !algorithm.Valid():
			return "", failure.New(failure.Invalid, "WRAPPING_ALGORITHM", "there is no wrapping algorithm %.60q", wanted).
				WithHint("choose auto or one of %s", list(hsm.WrappingAlgorithms()))
		case slices.Contains(token, algorithm) && slices.Contains(service, algorithm):
			return algorithm, nil
		}
		return "", noAlgorithm(fmt.Sprintf("%s cannot be used", wanted), token, service)
	}
	for _, algorithm := range hsm.WrappingAlgorithms() {
		if algorithm != hsm.PKCS1v15 && slices.Contains(token, algorithm) && slices.Contains(service, algorithm) {
			return algorithm, nil
		}
	}
	return "", noAlgorithm("there is no OAEP algorithm for both ends", token, service)
}

func noAlgorithm(what string, token, service []hsm.WrappingAlgorithm) error {
	return failure.New(failure.WrongState, "WRAPPING_ALGORITHM",
		"%s: the HSM token does %s, the KMS endpoint accepts %s", what, list(token), list(service)).
		WithHint("newer HSM firmware or library may do more; RSAES_PKCS1_V1_5 must be asked for by name")
}

func list(algorithms []hsm.WrappingAlgorithm) string {
	if len(algorithms) == 0 {
		return "none"
	}
	names := make([]string, len(algorithms))
	for i, a := range algorithms {
		names[i] = string(a)
	}
	return strings.Join(names, ", ")
}

// checkCloud asks KMS something harmless, so that a wrong access key, endpoint
// or alias is known before a key exists.
func (r *run) checkCloud(ctx context.Context, req Request) error {
	if req.Alias == "" {
		_, err := r.Endpoint.KMS.ListKeys(ctx, kmsapi.Page{Number: 1, Size: 1})
		return err
	}
	owner, err := r.aliasOwner(ctx, req.Alias)
	if err != nil {
		return err
	}
	if owner == "" {
		return nil
	}
	if imp, ok := r.Keyring.Import(req.Name); !ok || imp.KeyID != owner {
		return failure.New(failure.WrongState, "ALIAS_TAKEN", "%s belongs to CMK %s already", req.Alias, owner).
			WithHint("choose another alias, or delete the old one")
	}
	return nil
}

// aliasOwner returns the CMK that an alias stands for, or "".
func (r *run) aliasOwner(ctx context.Context, alias string) (string, error) {
	for page := 1; ; page++ {
		answer, err := r.Endpoint.KMS.ListAliases(ctx, kmsapi.Page{Number: page, Size: kmsapi.MaxPageSize})
		if err != nil {
			return "", err
		}
		for _, a := range answer.Aliases {
			if a.Name == alias {
				return a.KeyID, nil
			}
		}
		if len(answer.Aliases) == 0 || page*kmsapi.MaxPageSize >= answer.Total {
			return "", nil
		}
	}
}
