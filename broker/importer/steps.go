package importer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/internal/fault"
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
	if err := usable(key); err != nil {
		return "", nil, err
	}
	kcv, err := token.CheckValue(ctx, r.imp.HSMKeyID)
	if err != nil {
		return "", nil, err
	}
	info, err := token.Describe(ctx)
	if err != nil {
		return "", nil, err
	}
	birth := &keyring.Birth{
		At: r.Now().UTC(), Backend: r.imp.Plan.Backend, Device: keyring.DeviceOf(info),
		HSMKeyID: r.imp.HSMKeyID, CheckValue: kcv.String(), Attributes: keyring.AttributesOf(key),
	}
	return fmt.Sprintf("HSM key %s, check value %s", r.imp.HSMKeyID, kcv),
		func(i *keyring.Import) { i.CheckValue, i.Birth = kcv.String(), birth }, nil
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
			cmk.RequestID = "" // of the search
			return "found CMK " + cmk.KeyID + " of an earlier attempt", r.adopt(cmk), nil
		}
		// The grace of the attempt that follows begins with it, not with the search.
		if err := r.restamp(stepCreate, r.Now()); err != nil {
			return "", nil, err
		}
	}
	cmk, err := r.createCMK(ctx, earlier)
	if err != nil {
		return "", nil, err
	}
	return "CMK " + cmk.KeyID, r.adopt(cmk), nil
}

// createTimeout is how long CreateKey may take, and createGrace how long after
// its beginning a lost one may still take effect, or its tags stay invisible.
const (
	createTimeout = 20 * time.Second
	createGrace   = 30 * time.Second
)

// restamp gives a step that is under way another beginning.
func (r *run) restamp(step string, began time.Time) error {
	fault.Point("import/restamp/before")
	imp, err := r.Keyring.BeginStep(r.imp.Name, r.endpoint.Region, step, began.UTC())
	fault.Point("import/restamp/after")
	if err == nil {
		r.imp = imp
	}
	return err
}

// createCMK asks for the CMK even if the administrator leaves meanwhile, so that
// the answer is not lost for that. A definite refusal takes the step's record
// back: the next attempt need not look for what cannot exist. But what an earlier
// attempt may have made still can, however often KMS refuses since.
func (r *run) createCMK(ctx context.Context, earlier *keyring.ImportStep) (*kmsapi.KeyMetadata, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), createTimeout)
	defer cancel()
	cmk, err := r.endpoint.KMS.CreateKey(ctx, kmsapi.CreateKeyRequest{
		Origin: kmsapi.OriginExternal, KeySpec: kmsapi.KeySpecAES256, KeyUsage: kmsapi.UsageEncrypt,
		Description: r.imp.Plan.Description, InstanceID: r.endpoint.InstanceID, Tags: r.tags(),
	})
	if err == nil {
		return cmk, checkCMK(cmk)
	}
	if e, ok := errors.AsType[*kmsapi.Error](err); ok && !e.OutcomeUnknown() {
		err = errors.Join(explainLimit(e), r.takeBack(earlier))
	}
	return nil, err
}

// takeBack undoes the record of an attempt that made nothing.
func (r *run) takeBack(earlier *keyring.ImportStep) error {
	if earlier != nil {
		return r.restamp(stepCreate, earlier.Started)
	}
	fault.Point("import/withdraw/before")
	_, err := r.Keyring.WithdrawStep(r.imp.Name, r.endpoint.Region, stepCreate)
	fault.Point("import/withdraw/after")
	return err
}

// explainLimit adds what to do about the number of CMKs, which KMS limits to one
// default CMK of an account in a region (KMS 3.0); more need a KMS instance.
func explainLimit(e *kmsapi.Error) error {
	if e.Code != kmsapi.CodeLimitExceeded && e.Code != kmsapi.CodeShareLimitExceeded {
		return e
	}
	f := *failure.From(e)
	f.Kind, f.Reason = failure.WrongState, "CMK_LIMIT"
	f.Message += ": the account may have no further CMK of this kind in this region"
	f.Hint = "KMS 3.0 gives one default CMK to an account and region, and a KMS instance as many as were bought: buy an instance and name it as id in [kms.instance], enlarge the one that is named there, or delete a CMK that is not needed"
	f.Err = e
	return &f
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

func (r *run) adopt(cmk *kmsapi.KeyMetadata) func(*keyring.Import) {
	return r.note(func(i *keyring.RegionImport) {
		i.KeyID, i.ARN, i.CreatedAt, i.CreateRequestID = cmk.KeyID, cmk.ARN, cmk.CreatedAt.UTC(), cmk.RequestID
	})
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
		page, err := r.endpoint.KMS.ListTagResources(ctx, req)
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
		cmk, err := r.endpoint.KMS.DescribeKey(ctx, ids[0])
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
	params, err := fetchParameters(ctx, r.endpoint.KMS, r.here().KeyID, r.here().WrappingAlgorithm)
	if err != nil {
		return "", nil, err
	}
	r.params = params
	return "wrapping key " + fingerprint(params.PublicKey)[:16] + ", token until " + params.ExpiresAt.UTC().Format(time.RFC3339), nil, nil
}

func fetchParameters(ctx context.Context, kms kmsapi.KMS, keyID string, algorithm hsm.WrappingAlgorithm) (*kmsapi.ImportParameters, error) {
	params, err := kms.GetParametersForImport(ctx, kmsapi.ImportParametersRequest{
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

// wrap has the HSM encrypt the key.
func (r *run) wrap(ctx context.Context, _ *keyring.ImportStep) (string, func(*keyring.Import), error) {
	remember := func(export *keyring.Export) error {
		imp, err := r.Keyring.UpdateImport(r.imp.Name, r.note(func(i *keyring.RegionImport) { i.Exports = append(i.Exports, *export) }))
		if err == nil {
			r.imp = imp
		}
		return err
	}
	wrapped, err := r.export(ctx, r.imp.Name, r.imp.Plan.Backend, r.here().KeyID, hsm.WrapRequest{
		Key: r.imp.HSMKeyID, Algorithm: r.here().WrappingAlgorithm, PublicKey: r.params.PublicKey,
	}, remember)
	if err != nil {
		return "", nil, err
	}
	r.wrapped = wrapped
	return fmt.Sprintf("%d bytes, %s", len(wrapped), r.here().WrappingAlgorithm), nil, nil
}

// export is the only way in which key material leaves the HSM, so it is on record
// before it happens, in the audit trail and in the key's own history.
func (r *run) export(ctx context.Context, name, backend, keyID string, req hsm.WrapRequest, remember func(*keyring.Export) error) ([]byte, error) {
	info, err := r.backend.Token.Describe(ctx)
	if err != nil {
		return nil, err
	}
	device := keyring.DeviceOf(info)
	export := &keyring.Export{
		At: r.Now().UTC(), HSMKeyID: req.Key, Region: r.endpoint.Region, KeyID: keyID, Endpoint: r.endpoint.URL,
		WrappingAlgorithm: req.Algorithm, WrappingKeySHA256: fingerprint(req.PublicKey), WrappingKey: req.PublicKey, Device: &device, Parameters: r.params.RequestID,
	}
	event := audit.Event{
		Action: audit.KeyExport, Outcome: audit.Allowed, Key: name, KeyID: keyID, Backend: backend,
		Details: map[string]string{
			audit.DetailHSMKeyID: string(req.Key), audit.DetailAlgorithm: string(req.Algorithm), audit.DetailRegion: export.Region,
			audit.DetailWrappingKey: export.WrappingKeySHA256, audit.DetailEndpoint: export.Endpoint,
		},
	}
	// First the history, which says of an export without an answer of KMS that it may
	// not have happened; so it never lacks one that the audit trail has.
	fault.Point("export/remember/before")
	if err := remember(export); err != nil {
		return nil, err
	}
	fault.Point("export/remember/after")
	if err := r.Record(ctx, event); err != nil {
		return nil, err
	}
	fault.Point("export/record/after")
	wrapped, err := r.backend.Token.Wrap(ctx, req)
	if err != nil {
		event.Outcome, event.Reason = audit.Failed, failure.From(err).Reason
		return nil, errors.Join(err, r.Record(context.WithoutCancel(ctx), event))
	}
	return wrapped, nil
}

func (r *run) importMaterial(ctx context.Context, _ *keyring.ImportStep) (string, func(*keyring.Import), error) {
	ack, err := r.endpoint.KMS.ImportKeyMaterial(ctx, kmsapi.ImportKeyMaterialRequest{
		KeyID: r.here().KeyID, EncryptedKeyMaterial: r.wrapped, ImportToken: r.params.ImportToken,
		ExpiresAt: r.imp.Plan.MaterialExpiresAt,
	})
	if err != nil {
		return "", nil, err
	}
	return "request " + ack.RequestID, r.note(func(i *keyring.RegionImport) {
		if n := len(i.Exports); n > 0 {
			i.Exports[n-1].Imported = ack.RequestID
		}
	}), nil
}

func (r *run) verify(ctx context.Context, _ *keyring.ImportStep) (string, func(*keyring.Import), error) {
	if err := roundTrip(ctx, r.endpoint.KMS, r.here().KeyID); err != nil {
		return "", nil, err
	}
	return "Enabled; a round trip through KMS came back equal", nil, nil
}

// alias names the CMK, and takes the name from the CMK before it on a rotation.
func (r *run) alias(ctx context.Context, _ *keyring.ImportStep) (string, func(*keyring.Import), error) {
	alias, keyID := r.imp.Plan.Alias, r.here().KeyID
	if alias == "" {
		return "none asked for", nil, nil
	}
	owner, err := aliasOwner(ctx, r.endpoint.KMS, alias)
	if err != nil {
		return "", nil, err
	}
	if err := r.mayTakeAlias(r.imp, r.endpoint.Region, owner); err != nil {
		return "", nil, err
	}
	switch owner {
	case keyID:
		return alias + " was set by an earlier attempt", nil, nil
	case "":
		_, err = r.endpoint.KMS.CreateAlias(ctx, keyID, alias)
		if e, ok := errors.AsType[*kmsapi.Error](err); ok && e.OutcomeUnknown() {
			// KMS refuses an alias that exists, so it is not tried again but looked for.
			if owner, lookErr := aliasOwner(ctx, r.endpoint.KMS, alias); lookErr == nil && owner == keyID {
				err = nil
			}
		}
		return alias, nil, err
	default:
		_, err = r.endpoint.KMS.UpdateAlias(ctx, keyID, alias)
		return alias + ", before of CMK " + owner, nil, err
	}
}

// fingerprint is the SHA-256 of a DER SubjectPublicKeyInfo.
func fingerprint(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}
