package broker

import (
	"context"
	"errors"
	"iter"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/internal/tracing"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// Decrypted is the answer of Decrypt. The caller wipes Plaintext.
type Decrypted struct {
	Key          string
	KeyID        string
	KeyVersionID string
	Plaintext    []byte
	RequestID    string
}

// Decrypt opens a ciphertext blob.
//
// KMS finds the CMK from the blob, which nobody else can read, and opens
// whatever the broker's own RAM user may open. So the caller is authorized
// twice: before the call for the key it names (or, naming none, for some key of
// the region), and afterwards for the key that the CMK in the answer belongs
// to. When the second answer is no, the plaintext is wiped and the refusal says
// nothing about the blob.
//
// A blob is opened in the region where it was made, which nothing in it tells: the
// one that is named, or the home region of the named key, or the default one.
func (b *Broker) Decrypt(ctx context.Context, call Call, key, region, ciphertextBlob string, encryptionContext map[string]string) (*Decrypted, error) {
	return b.decrypt(ctx, call, key, region, ciphertextBlob, encryptionContext, own{})
}

func (b *Broker) decrypt(ctx context.Context, call Call, key, region, ciphertextBlob string, encryptionContext map[string]string, ours own) (*Decrypted, error) {
	ctx, end := tracing.Start(withApplication(ctx, call), "core decrypt", tracing.Key, recordable(key))
	event := audit.Event{Action: string(authz.Decrypt), Key: key, Application: true, Details: ours.details}
	answer, err := func() (*Decrypted, error) {
		request := authz.Request{Caller: call.Caller, Operation: authz.Decrypt, Key: key, Context: encryptionContext}
		endpoint, spent, err := b.authorizeDecrypt(request, region)
		if err != nil {
			return nil, err
		}
		if ciphertextBlob == "" {
			return nil, failure.New(failure.Invalid, "CIPHERTEXT", "the ciphertext is empty")
		}
		resp, err := endpoint.KMS.Decrypt(ctx, kmsapi.DecryptRequest{CiphertextBlob: ciphertextBlob, Context: ours.bound(encryptionContext)})
		if err != nil {
			return nil, discreet(err)
		}
		event.KeyID, event.RequestID = resp.KeyID, resp.RequestID
		owner, err := b.authorizeAnswer(request, spent, endpoint.Region, resp.KeyID)
		if err == nil && !ours.mayBe(resp.KeyID) {
			err = foreign(request)
		}
		if err != nil {
			clear(resp.Plaintext)
			return nil, err
		}
		event.Key = owner.Name
		return &Decrypted{Key: owner.Name, KeyID: resp.KeyID, KeyVersionID: resp.KeyVersionID, Plaintext: resp.Plaintext, RequestID: resp.RequestID}, nil
	}()
	err = b.finish(ctx, event, err)
	if end(err); err != nil {
		if answer != nil {
			clear(answer.Plaintext)
		}
		return nil, err
	}
	return answer, nil
}

// discreet drops KMS's own sentence from a refusal to decrypt. Whose blob it was
// is not known then, and the sentence may name an account and a key.
func discreet(err error) error {
	e, ok := errors.AsType[*kmsapi.Error](err)
	if !ok || e.Code == "" {
		return err
	}
	quiet := *e
	quiet.Message = "KMS refused to decrypt"
	return &quiet
}

// authorizeDecrypt also returns the decision whose rate pays for the call.
func (b *Broker) authorizeDecrypt(r authz.Request, region string) (importer.Endpoint, authz.Decision, error) {
	if r.Key == "" {
		return b.authorizeUnnamed(r, region)
	}
	decision, err := b.permit(r)
	if err != nil {
		return importer.Endpoint{}, decision, err
	}
	cmk, _, err := b.locate(r.Key, region)
	if err != nil {
		return importer.Endpoint{}, decision, err
	}
	endpoint, err := b.Regions.In(cmk.Region)
	return endpoint, decision, err
}

// authorizeUnnamed looks for a key of the region that the caller may decrypt with
// and whose grant has something left of its rate.
func (b *Broker) authorizeUnnamed(r authz.Request, region string) (importer.Endpoint, authz.Decision, error) {
	if err := checkContext(r.Context); err != nil {
		return importer.Endpoint{}, authz.Decision{}, err
	}
	if err := b.Audit.Ready(); err != nil {
		return importer.Endpoint{}, authz.Decision{}, unrecorded(err)
	}
	endpoint, err := b.Regions.In(region)
	if err != nil {
		return importer.Endpoint{}, authz.Decision{}, err
	}
	policy := b.policy.Load()
	var exhausted authz.Decision
	for key := range b.candidates(policy, r) {
		if _, there := key.CurrentIn(endpoint.Region); !there {
			continue
		}
		r.Key = key.Name
		switch decision := policy.Decide(r); {
		case !decision.Allowed, decision == exhausted:
		case decision.Spend(r.Caller.Identity(), b.Now()):
			return endpoint, decision, nil
		default:
			exhausted = decision
		}
	}
	if exhausted.Allowed {
		return importer.Endpoint{}, exhausted, throttled(exhausted, r.Caller)
	}
	r.Key = ""
	return importer.Endpoint{}, authz.Decision{}, denied(r, authz.Decision{})
}

// candidates are the keys that the caller may decrypt with in its context unless a
// grant denies it, some of them more than once. Of ten thousand keys few are looked at, as long as grants
// name keys.
func (b *Broker) candidates(policy *authz.Policy, r authz.Request) iter.Seq[*keyring.Key] {
	return func(yield func(*keyring.Key) bool) {
		for _, pattern := range policy.Patterns(r) {
			if key, err := b.Keyring.Key(pattern); err == nil {
				if !yield(key) {
					return
				}
				continue
			}
			for key := range b.Keyring.All() {
				if authz.MatchKey(pattern, key.Name) && !yield(key) {
					return
				}
			}
		}
	}
}

// authorizeAnswer returns the key that a CMK belongs to, in any generation, if
// the caller may decrypt with it and it is the one that was named. Its grant pays
// for the call, and what was spent before it was known is given back.
func (b *Broker) authorizeAnswer(r authz.Request, spent authz.Decision, region, keyID string) (*keyring.Key, error) {
	owner, ok := b.Keyring.ByCMK(keyID)
	if !ok || r.Key != "" && owner.Name != r.Key {
		return nil, foreign(r)
	}
	if cmk, _ := owner.CMK(keyID); cmk.Region != region {
		return nil, foreign(r)
	}
	r.Key = owner.Name
	decision := b.policy.Load().Decide(r)
	switch {
	case !decision.Allowed:
		return nil, foreign(r)
	case decision == spent:
		return owner, nil
	case !decision.Spend(r.Caller.Identity(), b.Now()):
		return nil, throttled(decision, r.Caller)
	}
	spent.Refund(r.Caller.Identity())
	return owner, nil
}

// foreign refuses a ciphertext and says nothing about it.
func foreign(r authz.Request) error {
	return failure.New(failure.Denied, "FOREIGN_CIPHERTEXT",
		"the ciphertext was not made with a key that %s may decrypt with", r.Caller).
		WithHint("check that the ciphertext and the key belong together")
}
