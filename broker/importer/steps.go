package importer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// LabelPrefix begins the CKA_LABEL of every key that the broker generates.
const LabelPrefix = "kmsbroker/"

// generate makes the HSM key. The ID was journaled before, and the token
// returns the key of an earlier attempt under the same ID.
func (r *run) generate(ctx context.Context, _ *keyring.ImportStep) (string, func(*keyring.Import), error) {
	token := r.backend.Token
	key, err := token.GenerateKey(ctx, hsm.KeySpec{ID: r.imp.HSMKeyID, Label: LabelPrefix + r.imp.Name})
	if err != nil {
		return "", nil, err
	}
	if !key.Sensitive || !key.Extractable || key.Bits != 256 {
		return "", nil, hsm.Errorf(hsm.Corrupt, "the HSM made a key that is not AES-256, sensitive and extractable: %+v", *key)
	}
	kcv, err := token.CheckValue(ctx, r.imp.HSMKeyID)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("HSM key %s, check value %s", r.imp.HSMKeyID, kcv),
		func(i *keyring.Import) { i.CheckValue = kcv.String() }, nil
}

// create makes the CMK. CreateKey is not idempotent and an orphan costs money
// for ever, so a repeat first looks for the CMK of the earlier attempt.
func (r *run) create(ctx context.Context, earlier *keyring.ImportStep) (string, func(*keyring.Import), error) {
	if earlier != nil {
		cmk, err := r.awaitCMK(ctx, earlier.Started)
		if err != nil {
			return "", nil, err
		}
		if cmk != nil {
			return "found CMK " + cmk.KeyID + " of an earlier attempt", adopt(cmk), nil
		}
	}
	cmk, err := r.createCMK(ctx)
	if err != nil {
		return "", nil, err
	}
	return "CMK " + cmk.KeyID, adopt(cmk), nil
}

// createTimeout is how long CreateKey may take, and createGrace how long after
// its beginning a lost one may still take effect, or its tags stay invisible.
const (
	createTimeout = 20 * time.Second
	createGrace   = 30 * time.Second
)

// createCMK asks for the CMK even if the administrator leaves meanwhile, so that
// the answer is not lost for that. A definite refusal takes the step's record
// back: the next attempt need not look for what cannot exist.
func (r *run) createCMK(ctx context.Context) (*kmsapi.KeyMetadata, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), createTimeout)
	defer cancel()
	cmk, err := r.Endpoint.KMS.CreateKey(ctx, kmsapi.CreateKeyRequest{
		Origin: kmsapi.OriginExternal, KeySpec: kmsapi.KeySpecAES256, KeyUsage: kmsapi.UsageEncrypt,
		Description: r.imp.Plan.Description, Tags: r.tags(),
	})
	if err == nil {
		return cmk, checkCMK(cmk)
	}
	if e, ok := errors.AsType[*kmsapi.Error](err); ok && !e.OutcomeUnknown() {
		_, withdrawn := r.Keyring.WithdrawStep(r.imp.Name, stepCreate)
		err = errors.Join(err, withdrawn)
	}
	return nil, err
}

// awaitCMK looks for the CMK of an attempt that began at started, until it can no
// longer appear; nil if there is none.
func (r *run) awaitCMK(ctx context.Context, started time.Time) (*kmsapi.KeyMetadata, error) {
	for {
		cmk, err := r.findCMK(ctx)
		if cmk != nil || err != nil {
			return cmk, err
		}
		if r.Now().Sub(started) > createGrace {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func adopt(cmk *kmsapi.KeyMetadata) func(*keyring.Import) {
	return func(i *keyring.Import) { i.KeyID, i.ARN, i.CreatedAt = cmk.KeyID, cmk.ARN, cmk.CreatedAt.UTC() }
}

func checkCMK(cmk *kmsapi.KeyMetadata) error {
	if cmk.Origin != kmsapi.OriginExternal || cmk.Spec != kmsapi.KeySpecAES256 {
		return failure.New(failure.Corrupt, "CMK_UNEXPECTED", "KMS made CMK %s with origin %s and spec %s, not %s and %s",
			cmk.KeyID, cmk.Origin, cmk.Spec, kmsapi.OriginExternal, kmsapi.KeySpecAES256)
	}
	return nil
}

func (r *run) tags() []kmsapi.Tag {
	return []kmsapi.Tag{
		{Key: TagInstance, Value: r.Keyring.InstanceID()},
		{Key: TagImport, Value: r.imp.ID},
	}
}

// findCMK returns the CMK that carries this import's tags, nil if there is none.
func (r *run) findCMK(ctx context.Context) (*kmsapi.KeyMetadata, error) {
	var ids []string
	req := kmsapi.ListTagResourcesRequest{Tags: r.tags()}
	for {
		page, err := r.Endpoint.KMS.ListTagResources(ctx, req)
		if err != nil {
			return nil, err
		}
		ids = append(ids, page.KeyIDs...)
		if page.NextToken == "" {
			break
		}
		req.NextToken = page.NextToken
	}
	switch len(ids) {
	case 0:
		return nil, nil
	case 1:
		cmk, err := r.Endpoint.KMS.DescribeKey(ctx, ids[0])
		if err != nil {
			return nil, err
		}
		return cmk, checkCMK(cmk)
	default:
		return nil, failure.New(failure.Corrupt, "CMK_AMBIGUOUS", "CMKs %v all carry the tag %s=%s", ids, TagImport, r.imp.ID).
			WithHint("delete those that are in state PendingImport but one, then repeat the command")
	}
}

// parameters fetches a wrapping key. Only what is fetched here, in this
// process, is ever wrapped under.
func (r *run) parameters(ctx context.Context, _ *keyring.ImportStep) (string, func(*keyring.Import), error) {
	params, err := r.fetchParameters(ctx, r.imp.KeyID, r.imp.Plan.WrappingAlgorithm)
	if err != nil {
		return "", nil, err
	}
	r.params = params
	return "wrapping key " + fingerprint(params.PublicKey)[:16] + ", token until " + params.ExpiresAt.UTC().Format(time.RFC3339), nil, nil
}

func (i *Importer) fetchParameters(ctx context.Context, keyID string, algorithm hsm.WrappingAlgorithm) (*kmsapi.ImportParameters, error) {
	params, err := i.Endpoint.KMS.GetParametersForImport(ctx, kmsapi.ImportParametersRequest{
		KeyID: keyID, WrappingAlgorithm: string(algorithm), WrappingKeySpec: kmsapi.WrappingRSA2048,
	})
	if err != nil {
		return nil, err
	}
	if params.KeyID != keyID {
		return nil, failure.New(failure.Corrupt, "PARAMETERS_FOREIGN",
			"KMS answered with import parameters of CMK %s instead of %s", params.KeyID, keyID)
	}
	return params, nil
}

// wrap has the HSM encrypt the key. It is the only way in which key material
// leaves the HSM, so it is on record before it happens.
func (r *run) wrap(ctx context.Context, _ *keyring.ImportStep) (string, func(*keyring.Import), error) {
	wrapped, err := r.export(ctx, r.imp.Name, r.backend, r.imp.Plan.Backend, hsm.WrapRequest{
		Key: r.imp.HSMKeyID, Algorithm: r.imp.Plan.WrappingAlgorithm, PublicKey: r.params.PublicKey,
	}, r.imp.KeyID)
	if err != nil {
		return "", nil, err
	}
	r.wrapped = wrapped
	return fmt.Sprintf("%d bytes, %s", len(wrapped), r.imp.Plan.WrappingAlgorithm), nil, nil
}

func (i *Importer) export(ctx context.Context, name string, backend Backend, backendName string, req hsm.WrapRequest, keyID string) ([]byte, error) {
	event := audit.Event{
		Action: audit.KeyExport, Outcome: audit.Allowed, Key: name, KeyID: keyID, Backend: backendName,
		Details: map[string]string{
			audit.DetailHSMKeyID: string(req.Key), audit.DetailAlgorithm: string(req.Algorithm),
			audit.DetailWrappingKey: fingerprint(req.PublicKey), audit.DetailEndpoint: i.Endpoint.URL,
		},
	}
	if err := i.Record(ctx, event); err != nil {
		return nil, err
	}
	wrapped, err := backend.Token.Wrap(ctx, req)
	if err != nil {
		event.Outcome, event.Reason = audit.Failed, failure.From(err).Reason
		return nil, errors.Join(err, i.Record(context.WithoutCancel(ctx), event))
	}
	return wrapped, nil
}

func (r *run) importMaterial(ctx context.Context, _ *keyring.ImportStep) (string, func(*keyring.Import), error) {
	ack, err := r.Endpoint.KMS.ImportKeyMaterial(ctx, kmsapi.ImportKeyMaterialRequest{
		KeyID: r.imp.KeyID, EncryptedKeyMaterial: r.wrapped, ImportToken: r.params.ImportToken,
		ExpiresAt: r.imp.Plan.MaterialExpiresAt,
	})
	if err != nil {
		return "", nil, err
	}
	return "request " + ack.RequestID, nil, nil
}

func (r *run) verify(ctx context.Context, _ *keyring.ImportStep) (string, func(*keyring.Import), error) {
	if err := r.roundTrip(ctx, r.imp.KeyID); err != nil {
		return "", nil, err
	}
	return "Enabled; a round trip through KMS came back equal", nil, nil
}

// alias names the CMK. An alias that an earlier attempt set is left as it is.
func (r *run) alias(ctx context.Context, earlier *keyring.ImportStep) (string, func(*keyring.Import), error) {
	alias := r.imp.Plan.Alias
	if alias == "" {
		return "none asked for", nil, nil
	}
	if earlier != nil {
		owner, err := r.aliasOwner(ctx, alias)
		if err != nil {
			return "", nil, err
		}
		if owner == r.imp.KeyID {
			return alias + " was set by an earlier attempt", nil, nil
		}
	}
	if _, err := r.Endpoint.KMS.CreateAlias(ctx, r.imp.KeyID, alias); err != nil {
		return "", nil, err
	}
	return alias, nil, nil
}
