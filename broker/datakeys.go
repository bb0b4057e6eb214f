package broker

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/datakey"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/envelope"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// dataKeyContext is the encryption context of an envelope's data key at KMS. No
// door lets a caller name such entries, so nobody opens a data key with Decrypt.
func dataKeyContext(key string) map[string]string {
	return map[string]string{authz.ReservedContext + "purpose": "envelope", authz.ReservedContext + "key": key}
}

// KeepDataKeys wipes data keys as they expire, until ctx ends.
func (b *Broker) KeepDataKeys(ctx context.Context) { b.dataKeys.Keep(ctx) }

// unreachable is whether KMS said nothing about a data key because it could not be
// asked. That the broker's own identity was refused is an answer.
func unreachable(err error) bool {
	if f, ok := errors.AsType[*failure.Error](err); ok && f.Err != nil {
		if several, ok := f.Err.(interface{ Unwrap() []error }); ok {
			return !slices.ContainsFunc(several.Unwrap(), func(err error) bool { return !unreachable(err) })
		}
	}
	if e, ok := errors.AsType[*kmsapi.Error](err); ok {
		return e.Status == 0 || e.Throttled() || e.Status >= http.StatusInternalServerError
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// place is a CMK and the region that it is in.
type place struct {
	cmk      *keyring.CMK
	endpoint importer.Endpoint
	blob     string // to open there
}

// sealingDataKey returns a data key for a new message, from the cache if it may.
func (b *Broker) sealingDataKey(ctx context.Context, req Sealing) (*datakey.DataKey, error) {
	places, err := b.sealingPlaces(req)
	if err != nil {
		return nil, err
	}
	size := req.Size
	if size == 0 {
		size = unknownSize
	}
	// A rotation changes the ID, and so takes effect at once.
	id := datakey.ID{Key: req.Key, Sealing: true, What: join(places, func(p place) string { return p.cmk.KeyID }, " ")}
	if len(req.Regions) > 0 {
		id.What += " all" // one that lacks a region is not for those who name it
	}
	return b.dataKeys.Get(ctx, id, size, func(ctx context.Context) (*datakey.DataKey, error) {
		return makeDataKey(ctx, req.Key, places, len(req.Regions) > 0)
	})
}

func join(places []place, text func(place) string, separator string) string {
	texts := make([]string, len(places))
	for i, p := range places {
		texts[i] = text(p)
	}
	return strings.Join(texts, separator)
}

// sealingPlaces are the regions that a message shall open in.
func (b *Broker) sealingPlaces(req Sealing) ([]place, error) {
	if len(req.Regions) > envelope.MaxWrappedKeys {
		return nil, failure.New(failure.Invalid, "REGION", "%d regions, an envelope has at most %d", len(req.Regions), envelope.MaxWrappedKeys)
	}
	key, err := b.Keyring.Key(req.Key)
	if err != nil {
		return nil, err
	}
	regions, named := req.Regions, len(req.Regions) > 0
	if !named {
		regions = key.Regions()
	}
	places := make([]place, 0, len(regions))
	var failed []error
	for i, region := range regions {
		if slices.Contains(regions[:i], region) {
			continue
		}
		cmk, endpoint, err := b.currentIn(key, region)
		if err == nil {
			places = append(places, place{cmk: cmk, endpoint: endpoint})
			continue
		}
		if failed = append(failed, err); named {
			return nil, err
		}
	}
	if len(places) == 0 {
		return nil, failure.Several("no region", failed)
	}
	return places[:min(len(places), envelope.MaxWrappedKeys)], nil
}

// makeDataKey has one region make a data key and the others encrypt it. A region
// that fails is left out, unless it takes all.
func makeDataKey(ctx context.Context, key string, places []place, all bool) (*datakey.DataKey, error) {
	var failed []error
	for i, p := range places {
		made, err := p.generate(ctx, key)
		if err != nil {
			if failed = append(failed, err); all {
				break
			}
			continue
		}
		others := slices.Delete(slices.Clone(places), 0, i+1)
		wrapped, errs := wrapElsewhere(ctx, key, made.Plaintext, others)
		failed = append(failed, errs...)
		if all && len(failed) > 0 {
			clear(made.Plaintext)
			break
		}
		made.Wrapped = append(made.Wrapped, wrapped...)
		made.Partial = len(failed) > 0
		return made, nil
	}
	return nil, severally(failed)
}

// severally makes one error of those of several regions, that of a refusal first:
// then KMS was reached.
func severally(failed []error) error {
	slices.SortStableFunc(failed, func(a, b error) int {
		switch refusedA, refusedB := !unreachable(a), !unreachable(b); {
		case refusedA == refusedB:
			return 0
		case refusedA:
			return -1
		default:
			return 1
		}
	})
	if len(failed) == 1 {
		return failed[0]
	}
	return failure.Several("no region gave a data key", failed)
}

func (p place) generate(ctx context.Context, key string) (*datakey.DataKey, error) {
	resp, err := p.endpoint.KMS.GenerateDataKey(ctx, kmsapi.DataKeyRequest{KeyID: p.cmk.KeyID, Bytes: envelope.KeySize, Context: dataKeyContext(key)})
	if err != nil {
		return nil, err
	}
	made := &datakey.DataKey{Plaintext: resp.Plaintext, KeyID: resp.KeyID, RequestID: resp.RequestID}
	if err := p.check(made); err != nil {
		return nil, err
	}
	wrapped, err := p.wrapped(resp.CiphertextBlob)
	if err != nil {
		clear(made.Plaintext)
		return nil, err
	}
	made.Wrapped = []envelope.WrappedKey{wrapped}
	return made, nil
}

// check refuses what is no data key of this place.
func (p place) check(k *datakey.DataKey) error {
	err := sameCMK(k.KeyID, p.cmk)
	if err == nil && len(k.Plaintext) != envelope.KeySize {
		err = failure.New(failure.Corrupt, "KMS", "KMS answered with a data key of %d bytes instead of %d", len(k.Plaintext), envelope.KeySize)
	}
	if err != nil {
		clear(k.Plaintext)
	}
	return err
}

// wrapped refuses a blob that has no place in an envelope.
func (p place) wrapped(blob string) (envelope.WrappedKey, error) {
	w := envelope.WrappedKey{Region: p.cmk.Region, KeyID: p.cmk.KeyID, CiphertextBlob: blob}
	if err := w.Check(); err != nil {
		return w, failure.New(failure.Corrupt, "KMS", "KMS of %s answered with something that is no ciphertext blob: %v", p.cmk.Region, err)
	}
	return w, nil
}

// wrapElsewhere encrypts a data key in other regions, in all at once.
func wrapElsewhere(ctx context.Context, key string, plaintext []byte, places []place) ([]envelope.WrappedKey, []error) {
	results := make([]envelope.WrappedKey, len(places))
	failures := make([]error, len(places))
	var asking sync.WaitGroup
	for i, p := range places {
		asking.Go(func() {
			resp, err := p.endpoint.KMS.Encrypt(ctx, kmsapi.EncryptRequest{KeyID: p.cmk.KeyID, Plaintext: plaintext, Context: dataKeyContext(key)})
			if err == nil {
				err = sameCMK(resp.KeyID, p.cmk)
			}
			if err == nil {
				results[i], err = p.wrapped(resp.CiphertextBlob)
			}
			failures[i] = err
		})
	}
	asking.Wait()
	var wrapped []envelope.WrappedKey
	for i, w := range results {
		if failures[i] == nil {
			wrapped = append(wrapped, w)
		}
	}
	return wrapped, slices.DeleteFunc(failures, func(err error) bool { return err == nil })
}

// openingDataKey returns the data key that a header has wrapped.
func (b *Broker) openingDataKey(ctx context.Context, r authz.Request, h *envelope.Header, region string) (*datakey.DataKey, error) {
	places, err := b.openingPlaces(r, h, region)
	if err != nil {
		return nil, err
	}
	id := datakey.ID{Key: h.Key, What: join(places, func(p place) string { return p.cmk.KeyID + " " + p.blob }, " ")}
	dataKey, err := b.dataKeys.Get(ctx, id, 0, func(ctx context.Context) (*datakey.DataKey, error) {
		var failed []error
		for _, p := range places {
			opened, err := p.open(ctx, r.Key)
			if err == nil {
				return opened, nil
			}
			failed = append(failed, err)
		}
		return nil, severally(failed)
	})
	if errors.Is(err, errForeign) {
		err = foreign(r)
	}
	return dataKey, err
}

// errForeign is what becomes of a data key that no CMK of the key has opened. Several
// may wait for it, and each is told with its own name.
var errForeign = failure.New(failure.Denied, "FOREIGN_CIPHERTEXT", "the data key was not made with this key")

// openingPlaces are those that a header names and that are the key's, of any
// generation. KMS is asked about nothing else.
func (b *Broker) openingPlaces(r authz.Request, h *envelope.Header, region string) ([]place, error) {
	key, err := b.Keyring.Key(h.Key)
	if err != nil {
		return nil, err
	}
	var places []place
	for _, w := range h.WrappedKeys {
		cmk, ours := key.CMK(w.KeyID)
		endpoint, err := b.Regions.In(w.Region)
		if ours && err == nil && cmk.Region == w.Region && (region == "" || region == w.Region) {
			places = append(places, place{cmk, endpoint, w.CiphertextBlob})
		}
	}
	if len(places) == 0 {
		return nil, foreign(r)
	}
	return places, nil
}

func (p place) open(ctx context.Context, key string) (*datakey.DataKey, error) {
	resp, err := p.endpoint.KMS.Decrypt(ctx, kmsapi.DecryptRequest{CiphertextBlob: p.blob, Context: dataKeyContext(key)})
	if err != nil {
		return nil, discreet(err)
	}
	opened := &datakey.DataKey{Plaintext: resp.Plaintext, KeyID: resp.KeyID, RequestID: resp.RequestID}
	if p.check(opened) != nil {
		return nil, errForeign
	}
	return opened, nil
}
