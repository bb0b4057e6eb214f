package conformance

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"

	"github.com/kmsbroker/kmsbroker/hsm"
)

const basisPKCS1 = "RFC 8017, section 7.2; FIPS 140-3 forbids it to wrap keys (Luna firmware 7.7.3 and later)"

func wrappingChecks() []check {
	return []check{
		{Check{"W-01", "what is wrapped with RSAES_OAEP_SHA_256 opens outside the HSM",
			"Under RSA-2048, 3072 and 4096 the receiver gets the very key whose check value the token tells.",
			basisOAEP}, knownAnswer(hsm.OAEPSHA256), withToken},
		{Check{"W-02", "what is wrapped with RSAES_OAEP_SHA_1 opens outside the HSM",
			"Under RSA-2048, 3072 and 4096 the receiver gets the very key whose check value the token tells.",
			basisOAEP}, knownAnswer(hsm.OAEPSHA1), withToken},
		{Check{"W-03", "what is wrapped with RSAES_PKCS1_V1_5 opens outside the HSM",
			"Under RSA-2048, 3072 and 4096 the receiver gets the very key whose check value the token tells.",
			basisPKCS1}, knownAnswer(hsm.PKCS1v15), withToken},
		{Check{"W-04", "RSAES_OAEP_SHA_256 uses SHA-256 in MGF1 too",
			"The service can open the blob: devices mix hashes when they are let, and the service does not.",
			"RFC 8017, section 7.1 and B.2.1; hsm.WrappingAlgorithm"}, maskedWith(hsm.OAEPSHA256, crypto.SHA256), withToken},
		{Check{"W-05", "RSAES_OAEP_SHA_1 uses SHA-1 in MGF1 too",
			"The service can open the blob: devices mix hashes when they are let, and the service does not.",
			"RFC 8017, section 7.1 and B.2.1; hsm.WrappingAlgorithm"}, maskedWith(hsm.OAEPSHA1, crypto.SHA1), withToken},
		{Check{"W-06", "two wraps of one key differ", "The padding is random, so that blobs do not tell that they hold the same key.",
			"RFC 8017, sections 7.1.1 (seed) and 7.2.1 (PS)"}, randomised, withToken},
		{Check{"W-07", "a wrapping key that is no SubjectPublicKeyInfo is refused", "Nothing is wrapped under a guess.",
			"RFC 5280, section 4.1.2.7; hsm.WrapRequest"}, refusesKeys(malformedKeys), withToken},
		{Check{"W-08", "a wrapping key that is not RSA is refused", "Nothing is wrapped under a key of the wrong kind.",
			"RFC 3279, section 2.3; hsm.WrapRequest"}, refusesKeys(foreignKeys), withToken},
		{Check{"W-09", "a weak RSA key is refused", "Nothing leaves under RSA-1024 or the exponent 3.",
			"NIST SP 800-131A rev. 2, section 6; NIST SP 800-56B rev. 2, section 6.2; Luna in FIPS mode"}, refusesKeys(weakKeys), withToken},
		{Check{"W-10", "an unknown wrapping algorithm is refused", "No other algorithm is put in the place of the one that was named.",
			"hsm.WrappingAlgorithm"}, unknownAlgorithm, withToken},
		{Check{"W-11", "wrapping an unknown key is NOT_FOUND", "No other key is put in the place of the one that was named.",
			basisToken}, wrapUnknown, withToken},
		{Check{"W-12", "a key that may not leave is NOT_EXPORTABLE", "CKA_EXTRACTABLE is enforced, by the device or before it is asked.",
			"PKCS#11 2.40, CKA_EXTRACTABLE; CKR_KEY_UNEXTRACTABLE"}, wrapPlanted, withToken},
		{Check{"W-13", "wrapping leaves no object behind", "The imported wrapping key is removed again, also after a refusal.",
			basisToken}, leavesNothing, withToken},
	}
}

// knownAnswer checks an algorithm from the receiver's side.
func knownAnswer(algorithm hsm.WrappingAlgorithm) func(ctx context.Context, t *trial) error {
	return func(ctx context.Context, t *trial) error {
		info, err := t.describe(ctx)
		if err != nil {
			return err
		}
		key, err := t.prepare(ctx, "")
		if err != nil {
			return err
		}
		if !slices.Contains(info.WrappingAlgorithms, algorithm) {
			return t.undeclared(ctx, key.ID, algorithm)
		}
		claimed, err := t.token.CheckValue(ctx, key.ID)
		if err != nil {
			return blocked(err, "no check value can be computed")
		}
		var first *exported
		for _, bits := range []int{2048, 3072, 4096} {
			opened, err := t.export(ctx, key.ID, algorithm, bits)
			if err != nil {
				return err
			}
			got, err := opened.checkValue()
			switch {
			case err != nil:
				return err
			case t.believed && got != claimed:
				return failed("under RSA-%d a value with check value %s arrives, the token tells %s", bits, got, claimed)
			case first != nil && !opened.equal(first):
				return failed("under RSA-%d another value arrives than under RSA-2048", bits)
			}
			first = opened
		}
		t.notef("opened under RSA-2048, 3072 and 4096")
		return nil
	}
}

// undeclared expects of an algorithm that the token did not declare that it
// says so.
func (t *trial) undeclared(ctx context.Context, id hsm.KeyID, algorithm hsm.WrappingAlgorithm) error {
	receiver, err := t.rsa.get(2048)
	if err != nil {
		return blocked(err, "no RSA key could be made")
	}
	_, err = t.token.Wrap(ctx, hsm.WrapRequest{Key: id, Algorithm: algorithm, PublicKey: receiver.spki})
	if errors.Is(err, hsm.AlgorithmUnsupported) {
		return notSupported(err, "not declared, and refused")
	}
	return wantReason(err, "an algorithm that is not declared", hsm.AlgorithmUnsupported)
}

func maskedWith(algorithm hsm.WrappingAlgorithm, want crypto.Hash) func(ctx context.Context, t *trial) error {
	return func(ctx context.Context, t *trial) error {
		info, err := t.describe(ctx)
		if err != nil {
			return err
		}
		if !slices.Contains(info.WrappingAlgorithms, algorithm) {
			return notSupported(nil, "%s is not declared", algorithm)
		}
		key, err := t.prepare(ctx, "")
		if err != nil {
			return err
		}
		opened, err := t.export(ctx, key.ID, algorithm, 2048)
		if err != nil {
			return blocked(err, "no blob could be opened")
		}
		if opened.mgf != want {
			return failed("the blob opens with MGF1 over %s only", opened.mgf)
		}
		return nil
	}
}

func randomised(ctx context.Context, t *trial) error {
	declared, err := t.algorithms(ctx)
	if err != nil {
		return err
	}
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	receiver, err := t.rsa.get(2048)
	if err != nil {
		return blocked(err, "no RSA key could be made")
	}
	for _, algorithm := range declared {
		seen := make(map[string]bool)
		for range 2 {
			blob, err := t.token.Wrap(ctx, hsm.WrapRequest{Key: key.ID, Algorithm: algorithm, PublicKey: receiver.spki})
			if err != nil {
				return blocked(err, "wrap with %s", algorithm)
			}
			if seen[string(blob)] {
				return failed("%s made the same blob twice", algorithm)
			}
			seen[string(blob)] = true
		}
	}
	return nil
}

// refusesKeys offers public keys that no token may wrap under.
func refusesKeys(offered func(keys *wrappingKeys) ([]badKey, error)) func(ctx context.Context, t *trial) error {
	return func(ctx context.Context, t *trial) error {
		algorithm, err := t.algorithm(ctx)
		if err != nil {
			return err
		}
		bad, err := offered(t.rsa)
		if err != nil {
			return blocked(err, "the keys to offer could not be made")
		}
		key, err := t.prepare(ctx, "")
		if err != nil {
			return err
		}
		for _, b := range bad {
			_, err := t.token.Wrap(ctx, hsm.WrapRequest{Key: key.ID, Algorithm: algorithm, PublicKey: b.der})
			if err := wantReason(err, "wrapping under "+b.what, hsm.Invalid, hsm.AlgorithmUnsupported); err != nil {
				return err
			}
		}
		return nil
	}
}

func unknownAlgorithm(ctx context.Context, t *trial) error {
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	receiver, err := t.rsa.get(2048)
	if err != nil {
		return blocked(err, "no RSA key could be made")
	}
	for _, algorithm := range []hsm.WrappingAlgorithm{"", "RSAES_OAEP_SHA_512", "rsaes_oaep_sha_256", "RSA_AES_KEY_WRAP"} {
		_, err := t.token.Wrap(ctx, hsm.WrapRequest{Key: key.ID, Algorithm: algorithm, PublicKey: receiver.spki})
		what := fmt.Sprintf("the algorithm %q", string(algorithm))
		if err := wantReason(err, what, hsm.AlgorithmUnsupported, hsm.Invalid); err != nil {
			return err
		}
	}
	return nil
}

func wrapUnknown(ctx context.Context, t *trial) error {
	algorithm, err := t.algorithm(ctx)
	if err != nil {
		return err
	}
	receiver, err := t.rsa.get(2048)
	if err != nil {
		return blocked(err, "no RSA key could be made")
	}
	_, err = t.token.Wrap(ctx, hsm.WrapRequest{Key: hsm.NewKeyID(), Algorithm: algorithm, PublicKey: receiver.spki})
	return wantReason(err, "wrapping a key that does not exist", hsm.NotFound)
}

func wrapPlanted(ctx context.Context, t *trial) error {
	algorithm, err := t.algorithm(ctx)
	if err != nil {
		return err
	}
	receiver, err := t.rsa.get(2048)
	if err != nil {
		return blocked(err, "no RSA key could be made")
	}
	id, err := t.plant(ctx)
	if err != nil {
		return err
	}
	_, err = t.token.Wrap(ctx, hsm.WrapRequest{Key: id, Algorithm: algorithm, PublicKey: receiver.spki})
	return wantReason(err, "wrapping a key whose CKA_EXTRACTABLE is false", hsm.NotExportable)
}

func leavesNothing(ctx context.Context, t *trial) error {
	if t.config.Objects == nil {
		return notRun("it takes another program that counts the objects of all classes; the wrap interface lists secret keys alone (Config.Objects)")
	}
	declared, err := t.algorithms(ctx)
	if err != nil {
		return err
	}
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	receiver, err := t.rsa.get(2048)
	if err != nil {
		return blocked(err, "no RSA key could be made")
	}
	before, err := t.config.Objects(ctx)
	if err != nil {
		return blocked(err, "count the objects")
	}
	for _, id := range []hsm.KeyID{key.ID, hsm.NewKeyID()} { // the second one does not exist
		for _, algorithm := range declared {
			// Whether it works is for other checks.
			_, _ = t.token.Wrap(ctx, hsm.WrapRequest{Key: id, Algorithm: algorithm, PublicKey: receiver.spki})
		}
	}
	after, err := t.config.Objects(ctx)
	if err != nil {
		return blocked(err, "count the objects")
	}
	if after != before {
		return failed("there were %d objects before and %d after", before, after)
	}
	return nil
}
