package conformance

import (
	"context"
	"strings"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func generationChecks() []check {
	return []check{
		{Check{"G-01", "a generated key is AES-256", "The device makes the kind of key that is imported.",
			"hsm.KeySpec; PKCS#11 2.40, CKM_AES_KEY_GEN; Alibaba Cloud KMS, key spec Aliyun_AES_256"}, generated(isAES256), withToken},
		{Check{"G-02", "ID and label are those that were asked for", "The key is found again under the ID and known to people by the label.",
			"PKCS#11 2.40, CKA_ID and CKA_LABEL"}, generated(isNamed), withToken},
		{Check{"G-03", "a generated key is private and sensitive, and always was",
			"Nobody can read the value, and nobody without a login sees the key.", basisAES}, generated(isSensitive), withToken},
		{Check{"G-04", "a generated key is extractable under a wrapping key", "The key can be wrapped for the cloud, and says so.",
			basisAES}, generated(isExtractable), withToken},
		{Check{"G-05", "a generated key is local", "The key was born in the device and not brought there.",
			"PKCS#11 2.40, CKA_LOCAL"}, generated(isLocal), withToken},
		{Check{"G-06", "a generated key can neither decrypt nor wrap",
			"The key cannot be used to carry other keys out of the device: never CKA_WRAP with CKA_DECRYPT.",
			"hsm.KeySpec; Clulow, On the Security of PKCS #11 (CHES 2003)"}, generated(neverExports), withToken},
		{Check{"G-07", "a generated key can encrypt and nothing else", "The attributes allow what the check value needs, and no more.",
			basisAES}, generated(onlyEncrypts), withToken},
		{Check{"G-08", "a repeated generation returns the first key", "A call whose answer was lost can be repeated.",
			basisToken}, generatedAgain, withToken},
		{Check{"G-09", "concurrent generations under one ID make one key", "Two repeats that meet do not make twins.",
			basisToken}, generatedTogether, withToken},
		{Check{"G-10", "a bad label is refused as INVALID", "Labels are 1 to 64 bytes of printable ASCII, and nothing is cut or replaced.",
			"hsm.KeySpec"}, badLabels, withToken},
		{Check{"G-11", "a bad ID is refused as INVALID", "No key is made under an ID that cannot name it.",
			"hsm.ParseKeyID"}, badIDs, withToken},
		{Check{"G-12", "an ID that is taken is refused as ALREADY_EXISTS", "A key that somebody else made is not mistaken for ours.",
			basisToken}, takenID, withToken},
	}
}

// generated makes a check of what GenerateKey says of its key, and of what Key
// says of it afterwards.
func generated(judge func(key *hsm.Key, spec hsm.KeySpec) error) func(ctx context.Context, t *trial) error {
	return func(ctx context.Context, t *trial) error {
		spec := t.spec("")
		key, err := t.token.GenerateKey(ctx, spec)
		switch {
		case err != nil && t.id == "G-01" && !t.readOnly(ctx, err):
			return failedBy(err, "generate a key")
		case err != nil:
			return t.notGenerated(ctx, err)
		}
		if err := judge(key, spec); err != nil {
			return err
		}
		if key, err = t.token.Key(ctx, spec.ID); err != nil {
			return blocked(err, "the generated key cannot be read")
		}
		return judge(key, spec)
	}
}

func isAES256(key *hsm.Key, _ hsm.KeySpec) error {
	if key.Type != "AES" || key.Bits != 256 {
		return failed("the key is %.20s with %d bits", key.Type, key.Bits)
	}
	return nil
}

func isNamed(key *hsm.Key, spec hsm.KeySpec) error {
	if key.ID != spec.ID || key.Label != spec.Label {
		return failed("asked was id %s with label %q, the key has id %s with label %.80q", spec.ID, spec.Label, key.ID, key.Label)
	}
	return nil
}

// attribute is a flag of a key and what it has to be.
type attribute struct {
	name      string
	got, want bool
}

func demand(attributes ...attribute) error {
	var wrong []string
	for _, a := range attributes {
		switch {
		case a.got && !a.want:
			wrong = append(wrong, a.name+" is true")
		case !a.got && a.want:
			wrong = append(wrong, a.name+" is false")
		}
	}
	if len(wrong) > 0 {
		return failed("%s", strings.Join(wrong, ", "))
	}
	return nil
}

func isSensitive(key *hsm.Key, _ hsm.KeySpec) error {
	return demand(
		attribute{"CKA_PRIVATE", key.Private, true},
		attribute{"CKA_SENSITIVE", key.Sensitive, true},
		attribute{"CKA_ALWAYS_SENSITIVE", key.AlwaysSensitive, true},
	)
}

func isExtractable(key *hsm.Key, _ hsm.KeySpec) error {
	return demand(
		attribute{"CKA_EXTRACTABLE", key.Extractable, true},
		attribute{"CKA_NEVER_EXTRACTABLE", key.NeverExtractable, false},
	)
}

func isLocal(key *hsm.Key, _ hsm.KeySpec) error {
	return demand(attribute{"CKA_LOCAL", key.Local, true})
}

func neverExports(key *hsm.Key, _ hsm.KeySpec) error {
	return demand(
		attribute{"CKA_DECRYPT", key.Decrypt, false},
		attribute{"CKA_WRAP", key.Wrap, false},
	)
}

func onlyEncrypts(key *hsm.Key, _ hsm.KeySpec) error {
	return demand(
		attribute{"CKA_ENCRYPT", key.Encrypt, true},
		attribute{"CKA_UNWRAP", key.Unwrap, false},
		attribute{"CKA_SIGN", key.Sign, false},
		attribute{"CKA_VERIFY", key.Verify, false},
		attribute{"CKA_DERIVE", key.Derive, false},
	)
}

func generatedAgain(ctx context.Context, t *trial) error {
	key, err := t.prepare(ctx, "")
	if err != nil {
		return err
	}
	before, err := t.token.CheckValue(ctx, key.ID)
	if err != nil {
		return blocked(err, "no check value can be computed")
	}
	again, err := t.token.GenerateKey(ctx, hsm.KeySpec{ID: key.ID, Label: key.Label})
	if err != nil {
		return failedBy(err, "generate under the same ID again")
	}
	if again.ID != key.ID {
		return failed("the repeat answered with key %s instead of %s", again.ID, key.ID)
	}
	after, err := t.token.CheckValue(ctx, key.ID)
	if err != nil {
		return failedBy(err, "compute the check value after the repeat")
	}
	if before != after {
		return failed("the repeat replaced the key: its check value was %s and is %s", before, after)
	}
	return t.notTwice(ctx, key.ID)
}

func generatedTogether(ctx context.Context, t *trial) error {
	spec := t.spec("")
	const callers = 8
	err := parallel(callers, func(int) error {
		_, err := t.token.GenerateKey(ctx, spec)
		return err
	})
	if err != nil && t.readOnly(ctx, err) {
		return t.notGenerated(ctx, err)
	}
	if err != nil {
		return failedBy(err, "%d callers generate under one ID", callers)
	}
	return t.notTwice(ctx, spec.ID)
}

// notTwice fails when more than one key is listed under an ID.
func (t *trial) notTwice(ctx context.Context, id hsm.KeyID) error {
	keys, err := t.token.Keys(ctx)
	if err != nil {
		return blocked(err, "the keys cannot be listed")
	}
	n := 0
	for _, k := range keys {
		if k.ID == id {
			n++
		}
	}
	if n > 1 {
		return failed("%d keys are listed under id %s", n, id)
	}
	return nil
}

func badLabels(ctx context.Context, t *trial) error {
	for _, bad := range []struct{ what, label string }{
		{"an empty label", ""},
		{"a label of 65 bytes", strings.Repeat("x", 65)},
		{"a label with a line feed", t.config.Prefix + "\n"},
		{"a label with a zero byte", t.config.Prefix + "\x00"},
		{"a label in UTF-8", t.config.Prefix + "é"},
	} {
		spec := t.spec("")
		spec.Label = bad.label
		_, err := t.token.GenerateKey(ctx, spec)
		if t.readOnly(ctx, err) {
			return t.notGenerated(ctx, err)
		}
		if err := wantReason(err, bad.what, hsm.Invalid); err != nil {
			return err
		}
		if _, err := t.token.Key(ctx, spec.ID); err == nil {
			return failed("%s was refused, and yet a key is there", bad.what)
		}
	}
	return nil
}

// malformed are IDs that ParseKeyID refuses. They are random, so that a backend
// which takes them for something does not take them for a key of others.
func malformed() []hsm.KeyID {
	id := func() string { return string(hsm.NewKeyID()) }
	return []hsm.KeyID{
		hsm.KeyID(strings.ToUpper("ab" + id())),
		hsm.KeyID(id()[1:]),
		hsm.KeyID("0x" + id()),
		hsm.KeyID(id() + "zz"),
		hsm.KeyID(id() + id() + id() + id() + "00"), // 65 bytes
	}
}

func badIDs(ctx context.Context, t *trial) error {
	for _, id := range malformed() {
		_, err := t.token.GenerateKey(ctx, hsm.KeySpec{ID: id, Label: t.config.Prefix + t.id})
		if err == nil {
			t.track(id)
			t.track(hsm.KeyID(strings.ToLower(string(id)))) // what it may have been taken for
		}
		if t.readOnly(ctx, err) {
			return t.notGenerated(ctx, err)
		}
		if err := wantReason(err, "the ID "+quoted(id), hsm.Invalid); err != nil {
			return err
		}
	}
	return nil
}

func takenID(ctx context.Context, t *trial) error {
	id, err := t.plant(ctx)
	if err != nil {
		return err
	}
	_, err = t.token.GenerateKey(ctx, hsm.KeySpec{ID: id, Label: t.config.Prefix + t.id})
	if t.readOnly(ctx, err) {
		return t.notGenerated(ctx, err)
	}
	return wantReason(err, "generating under the ID of another key", hsm.AlreadyExists)
}

// plant puts a key on the token that may not leave it.
func (t *trial) plant(ctx context.Context) (hsm.KeyID, error) {
	if t.config.Plant == nil {
		return "", notRun("it takes a key that another program puts on the token, which the wrap interface cannot (Config.Plant)")
	}
	id := hsm.NewKeyID()
	t.track(id)
	if err := t.config.Plant(ctx, id); err != nil {
		return "", blocked(err, "plant a key")
	}
	return id, nil
}
