package broker

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"slices"
	"strings"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/health"
	"github.com/kmsbroker/kmsbroker/envelope"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// maxSeed is the longest seed in bytes. Those of Kubernetes have 32, and what is
// made of one has to fit into its 1 kB.
const maxSeed = 256

// Provider is a KMS provider of a Kubernetes cluster.
type Provider struct {
	Name string
	Key  string // the broker's name
	// Envelope has seeds sealed under a cached data key, which opens in all regions of
	// the key. Otherwise KMS encrypts each, in the home region of the key.
	Envelope bool
}

// Seeds encrypts the seeds from which a Kubernetes cluster derives the keys of its
// objects. What is made for one provider is opened for no other and at no other
// door: it is bound to an encryption context of the broker's own.
type Seeds struct {
	broker   *Broker
	provider Provider
	health   *health.Check
}

// Seeds makes the seeds of a provider.
func (b *Broker) Seeds(p Provider) *Seeds {
	s := &Seeds{broker: b, provider: p}
	s.health = health.New(s.roundTrip)
	return s
}

// Seed is an encrypted seed, as the cluster keeps it.
type Seed struct {
	Ciphertext []byte // less than 1 kB
	// KeyID names the CMKs: their IDs, joined by commas.
	KeyID  string
	Header []byte // of the envelope; nil when KMS encrypted the seed
}

// context binds seeds to the provider.
func (s *Seeds) context() map[string]string {
	return map[string]string{
		authz.ReservedContext + "purpose": "kubernetes", authz.ReservedContext + "key": s.provider.Key, authz.ReservedContext + "provider": s.provider.Name,
	}
}

// ours is what is added to a request that the cluster calls uid, which may be
// anything.
func (s *Seeds) ours(uid string) own {
	o := own{context: s.context(), details: map[string]string{audit.DetailProvider: s.provider.Name}}
	if validUID(uid) {
		o.details[audit.DetailRequest] = uid
	}
	return o
}

func validUID(uid string) bool {
	const most = 64
	return uid != "" && len(uid) <= most && strings.Trim(uid, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-") == ""
}

// Encrypt encrypts a seed.
func (s *Seeds) Encrypt(ctx context.Context, call Call, uid string, plaintext []byte) (seed *Seed, err error) {
	defer s.doubt(&err)
	b, p, ours := s.broker, s.provider, s.ours(uid)
	ours.most = maxSeed
	if !p.Envelope {
		made, err := b.encrypt(ctx, call, p.Key, "", plaintext, nil, ours)
		if err != nil {
			return nil, err
		}
		return &Seed{Ciphertext: []byte(made.CiphertextBlob), KeyID: made.KeyID}, nil
	}
	// Why there may be none is said below, to those who may know.
	keyID, keyErr := s.keyID()
	ours.keyID = keyID
	message, err := b.Seal(ctx, call, Sealing{Key: p.Key, ours: ours}, plaintext)
	if err = cmp.Or(err, keyErr); err != nil {
		return nil, err
	}
	header, segments, err := envelope.Split(message)
	if err != nil {
		return nil, err
	}
	return &Seed{Ciphertext: segments, KeyID: keyID, Header: header}, nil
}

// Decrypt opens a seed under a CMK of any generation.
func (s *Seeds) Decrypt(ctx context.Context, call Call, uid string, seed Seed) (plaintext []byte, err error) {
	defer s.doubt(&err)
	b, p, ours := s.broker, s.provider, s.ours(uid)
	ours.keyID = seed.KeyID
	if seed.Header != nil {
		plaintext, _, err = b.Open(ctx, call, Opening{Key: p.Key, ours: ours}, slices.Concat(seed.Header, seed.Ciphertext))
		return plaintext, err
	}
	region := ""
	if key, err := b.Keyring.Key(p.Key); err == nil {
		if cmk, ok := key.CMK(seed.KeyID); ok {
			region = cmk.Region
		}
	}
	opened, err := b.decrypt(ctx, call, p.Key, region, string(seed.Ciphertext), nil, ours)
	if err != nil {
		return nil, err
	}
	return opened.Plaintext, nil
}

// doubt has the next status found out anew after a failure that is not the caller's.
func (s *Seeds) doubt(err *error) {
	if *err == nil {
		return
	}
	switch failure.From(*err).Kind {
	case failure.Invalid, failure.Denied, failure.Throttled:
	default:
		s.health.Doubt()
	}
}

// Status returns the KeyID of new seeds, and what is wrong. Both come together when
// the cluster cannot be served for the moment.
//
// It is not in the audit trail unless it is denied: nothing is encrypted for the
// caller, and it asks every minute.
func (s *Seeds) Status(ctx context.Context, call Call) (keyID string, err error) {
	b, key := s.broker, s.provider.Key
	for _, op := range []authz.Operation{authz.Encrypt, authz.Decrypt} {
		if _, err := b.allowed(authz.Request{Caller: call.Caller, Operation: op, Key: key}); err != nil {
			event := audit.Event{Action: audit.KeyDescribe, Key: key, Application: true, Details: s.ours("").details}
			return "", b.finish(withApplication(ctx, call), event, err)
		}
	}
	if keyID, err = s.keyID(); err != nil {
		return "", err
	}
	return keyID, s.health.Ask(ctx)
}

// keyID stays the same until the key is rotated or gets another region, whatever of
// it can be reached.
func (s *Seeds) keyID() (string, error) {
	places, err := s.places()
	if err != nil {
		return "", err
	}
	return join(places, func(p place) string { return p.cmk.KeyID }, keyIDSeparator), nil
}

const keyIDSeparator = ","

// places are where the CMKs of new seeds are.
func (s *Seeds) places() ([]place, error) {
	if s.provider.Envelope {
		return s.broker.sealingPlaces(Sealing{Key: s.provider.Key})
	}
	key, err := s.broker.Keyring.Key(s.provider.Key)
	if err != nil {
		return nil, err
	}
	cmk, endpoint, err := s.broker.currentIn(key, "")
	return []place{{cmk: cmk, endpoint: endpoint}}, err
}

// roundTrip does for random bytes what is done for seeds.
func (s *Seeds) roundTrip(ctx context.Context) error {
	seed := make([]byte, envelope.KeySize)
	rand.Read(seed)
	try := s.tryKMS
	if s.provider.Envelope {
		try = s.tryEnvelope
	}
	opened, err := try(ctx, seed)
	if err == nil && subtle.ConstantTimeCompare(opened, seed) != 1 {
		err = failure.New(failure.Corrupt, "ROUND_TRIP", "what was encrypted was decrypted to something else")
	}
	return err
}

func (s *Seeds) tryKMS(ctx context.Context, seed []byte) ([]byte, error) {
	places, err := s.places()
	if err != nil {
		return nil, err
	}
	kms := places[0].endpoint.KMS
	made, err := kms.Encrypt(ctx, kmsapi.EncryptRequest{KeyID: places[0].cmk.KeyID, Plaintext: seed, Context: s.context()})
	if err != nil {
		return nil, err
	}
	opened, err := kms.Decrypt(ctx, kmsapi.DecryptRequest{CiphertextBlob: made.CiphertextBlob, Context: s.context()})
	if err != nil {
		return nil, err
	}
	return opened.Plaintext, nil
}

func (s *Seeds) tryEnvelope(ctx context.Context, seed []byte) ([]byte, error) {
	sealing, err := s.broker.sealingDataKey(ctx, Sealing{Key: s.provider.Key, Size: uint64(len(seed))})
	if err != nil {
		return nil, err
	}
	defer clear(sealing.Plaintext)
	made, err := envelope.New(s.provider.Key, sealing.Wrapped, sealing.Plaintext, s.context())
	if err != nil {
		return nil, err
	}
	defer made.Wipe()
	message, err := made.Seal(seed)
	if err != nil {
		return nil, err
	}
	header, segments, err := envelope.Split(message)
	if err != nil {
		return nil, err
	}
	parsed, err := envelope.Parse(header)
	if err != nil {
		return nil, err
	}
	opening, err := s.broker.openingDataKey(ctx, authz.Request{Key: s.provider.Key}, parsed, "")
	if err != nil {
		return nil, err
	}
	defer clear(opening.Plaintext)
	opened, err := envelope.WithDataKey(header, opening.Plaintext, s.context())
	if err != nil {
		return nil, err
	}
	defer opened.Wipe()
	return opened.Open(segments)
}
