package broker

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/envelope"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

func (h *house) seal(t *testing.T, call Call, key string, encryptionContext map[string]string) []byte {
	t.Helper()
	sealed, err := h.Seal(t.Context(), call, Sealing{Key: key, Context: encryptionContext}, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func headerOf(t *testing.T, message []byte) (raw []byte, parsed *envelope.Header) {
	t.Helper()
	raw, _, err := envelope.Split(message)
	if err != nil {
		t.Fatal(err)
	}
	if parsed, err = envelope.Parse(raw); err != nil {
		t.Fatal(err)
	}
	return raw, parsed
}

// opens tries both ways to open a message, which must end alike and be recorded
// alike: with a reason, or "" for success.
func (h *house) opens(t *testing.T, call Call, req Opening, message []byte, reason string) {
	t.Helper()
	plaintext, _, err := h.Open(t.Context(), call, req, message)
	refused(t, err, reason)
	if (string(plaintext) == "secret") != (reason == "") {
		t.Errorf("the plaintext is %q", plaintext)
	}
	if record := h.lastRecord(t); record.Action != "decrypt" || record.Reason != reason || record.Details[audit.DetailEnvelope] != audit.EnvelopeMessage {
		t.Errorf("the record is %+v", record)
	}
	raw, _ := headerOf(t, message)
	m, _, err := h.OpeningKey(t.Context(), call, req, raw)
	refused(t, err, reason)
	if (m == nil) != (err != nil) {
		t.Errorf("a message key together with %v", err)
	}
	record := h.lastRecord(t)
	if record.Action != "decrypt" || record.Reason != reason || record.Details[audit.DetailEnvelope] != audit.EnvelopeKey || record.Details[audit.DetailMessage] != messageID(raw) {
		t.Errorf("the record is %+v", record)
	}
}

func TestEnvelope(t *testing.T) {
	h := newHouse(t, grant(1000, "k", authz.Encrypt, authz.Decrypt))
	cmk := h.importKey(t, "k").Current().KeyID
	purpose := map[string]string{"purpose": "mail"}
	sealed := h.seal(t, alice, "k", purpose)
	record := h.lastRecord(t)
	raw, header := headerOf(t, sealed)
	if record.Action != "encrypt" || record.Outcome != audit.Done || record.Key != "k" || record.KeyID != cmk || record.RequestID == "" ||
		record.Details[audit.DetailMessage] != messageID(raw) || record.Details[audit.DetailEnvelope] != audit.EnvelopeMessage {
		t.Errorf("the record is %+v", record)
	}
	if header.Key != "k" || len(header.WrappedKeys) != 1 || header.WrappedKeys[0].KeyID != cmk {
		t.Errorf("the header is %+v", header)
	}
	h.opens(t, alice, Opening{Context: purpose}, sealed, "")
	h.opens(t, alice, Opening{Context: purpose, Key: "k", Region: "cn-hangzhou"}, sealed, "")
	h.opens(t, alice, Opening{}, sealed, "ENVELOPE_MISMATCH")
	h.opens(t, alice, Opening{Context: purpose, Key: "l"}, sealed, "FOREIGN_CIPHERTEXT")
	h.opens(t, alice, Opening{Context: purpose, Region: "cn-shanghai"}, sealed, "FOREIGN_CIPHERTEXT")

	m, err := h.SealingKey(t.Context(), alice, Sealing{Key: "k", Context: purpose})
	if err != nil {
		t.Fatal(err)
	}
	if record := h.lastRecord(t); record.Action != "encrypt" || record.RequestID != "" || record.Details[audit.DetailEnvelope] != audit.EnvelopeKey {
		t.Errorf("the record of a message whose data key was cached: %+v", record)
	}
	streamed, err := m.Seal([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	h.opens(t, alice, Opening{Context: purpose}, streamed, "")
	if m.Wipe(); !bytes.Equal(m.Key(), make([]byte, envelope.KeySize)) {
		t.Error("the message key is not wiped")
	}
}

// TestEnvelopeLimits: what is too long for one call, and what is no message.
func TestEnvelopeLimits(t *testing.T) {
	h := newHouse(t, grant(1000, "k", authz.Encrypt, authz.Decrypt))
	h.importKey(t, "k")
	longest := bytes.Repeat([]byte("x"), MaxSealed)
	sealed, err := h.Seal(t.Context(), alice, Sealing{Key: "k"}, longest)
	if err != nil {
		t.Fatal(err)
	}
	if opened, key, err := h.Open(t.Context(), alice, Opening{}, sealed); err != nil || key != "k" || !bytes.Equal(opened, longest) {
		t.Errorf("%d bytes, %v", len(opened), err)
	}
	_, err = h.Seal(t.Context(), alice, Sealing{Key: "k"}, append(longest, 'x'))
	refused(t, err, "PLAINTEXT_SIZE")
	m, err := h.SealingKey(t.Context(), alice, Sealing{Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	if sealed, err = m.Seal(append(longest, 'x')); err != nil {
		t.Fatal(err)
	}
	_, _, err = h.Open(t.Context(), alice, Opening{}, sealed)
	refused(t, err, "CIPHERTEXT_SIZE")
	for _, garbage := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("KMSE"), 100), m.Header()[:50]} {
		_, _, err = h.Open(t.Context(), alice, Opening{}, garbage)
		refused(t, err, "ENVELOPE_FORMAT")
		_, _, err = h.OpeningKey(t.Context(), alice, Opening{}, garbage)
		refused(t, err, "ENVELOPE_FORMAT")
	}
	small := h.seal(t, alice, "k", nil)
	small[len(small)-1] ^= 1
	_, _, err = h.Open(t.Context(), alice, Opening{}, small)
	refused(t, err, "ENVELOPE_DAMAGED")
	if kind := failure.KindOf(err); kind != failure.Corrupt {
		t.Errorf("a damaged message is %v", kind)
	}
}

// TestEnvelopeRule: who may seal and who may open, by key, operation and context.
func TestEnvelopeRule(t *testing.T) {
	own := grant(1000, "tenants", authz.Encrypt, authz.Decrypt)
	own.Context = map[string]authz.Template{"uid": template(t, "{uid}")}
	his := own
	his.UIDs = []uint32{1001}
	h := newHouse(t, own, his, grant(1000, "drop", authz.Encrypt), grant(1001, "drop", authz.Decrypt), grant(1000, "mine", authz.Encrypt, authz.Decrypt))
	for _, key := range []string{"tenants", "drop", "mine"} {
		h.importKey(t, key)
	}
	hers, theirs := map[string]string{"uid": "1000"}, map[string]string{"uid": "1001"}

	dropped := h.seal(t, alice, "drop", nil)
	h.opens(t, bob, Opening{}, dropped, "")
	h.opens(t, alice, Opening{}, dropped, "NO_GRANT")
	_, err := h.SealingKey(t.Context(), bob, Sealing{Key: "drop"})
	refused(t, err, "NO_GRANT")

	sealed := h.seal(t, alice, "tenants", hers)
	h.opens(t, alice, Opening{Context: hers}, sealed, "")
	h.opens(t, bob, Opening{Context: hers}, sealed, "NO_GRANT")
	// He may say this, and gets neither the plaintext nor a key that would open it.
	h.opens(t, bob, Opening{Context: theirs}, sealed, "ENVELOPE_MISMATCH")
	_, err = h.Seal(t.Context(), bob, Sealing{Key: "tenants", Context: hers}, nil)
	refused(t, err, "NO_GRANT")

	reserved := map[string]string{"kmsbroker.key": "mine"}
	_, err = h.Seal(t.Context(), alice, Sealing{Key: "mine", Context: reserved}, nil)
	refused(t, err, "RESERVED_CONTEXT")
	h.opens(t, alice, Opening{Context: reserved}, h.seal(t, alice, "mine", nil), "RESERVED_CONTEXT")

	// Another key's data key under the name of an own one.
	_, header := headerOf(t, dropped)
	_, mine := headerOf(t, h.seal(t, alice, "mine", nil))
	for name, wrapped := range map[string]envelope.WrappedKey{
		"FOREIGN_CIPHERTEXT": header.WrappedKeys[0],
		"KMS_InvalidParameter": {
			Region: "cn-hangzhou", KeyID: mine.WrappedKeys[0].KeyID, CiphertextBlob: header.WrappedKeys[0].CiphertextBlob,
		},
	} {
		forged, err := envelope.New("mine", []envelope.WrappedKey{wrapped}, make([]byte, envelope.KeySize), nil)
		if err != nil {
			t.Fatal(err)
		}
		message, err := forged.Seal([]byte("secret"))
		if err != nil {
			t.Fatal(err)
		}
		h.opens(t, alice, Opening{}, message, name)
	}
}

// TestEnvelopeRate: every message is a call, whether its data key is cached or not.
func TestEnvelopeRate(t *testing.T) {
	limited := grant(1000, "k", authz.Encrypt, authz.Decrypt)
	limited.Rate = authz.Rate{Calls: 3, Per: time.Hour}
	h := newHouse(t, limited)
	h.importKey(t, "k")
	sealed := h.seal(t, alice, "k", nil)
	h.opens(t, alice, Opening{}, sealed, "")
	h.opens(t, alice, Opening{}, sealed, authz.ReasonRate)
	_, err := h.Seal(t.Context(), alice, Sealing{Key: "k"}, nil)
	refused(t, err, authz.ReasonRate)
}

// TestDataKeysAreReserved: no call but those of envelopes opens a data key.
func TestDataKeysAreReserved(t *testing.T) {
	h := newHouse(t, grant(1000, "*", authz.Operations()...))
	h.importKey(t, "k")
	_, header := headerOf(t, h.seal(t, alice, "k", nil))
	blob := header.WrappedKeys[0].CiphertextBlob
	for _, tt := range []struct {
		context map[string]string
		reason  string
	}{
		{nil, "KMS_InvalidParameter"}, {map[string]string{"purpose": "envelope", "key": "k"}, "KMS_InvalidParameter"},
		{dataKeyContext("k"), "RESERVED_CONTEXT"},
	} {
		for _, key := range []string{"", "k"} {
			_, err := h.Decrypt(t.Context(), alice, key, "", blob, tt.context)
			refused(t, err, tt.reason)
		}
		_, err := h.ReEncrypt(t.Context(), alice, ReEncryption{CiphertextBlob: blob, SourceContext: tt.context, Key: "k"})
		refused(t, err, tt.reason)
	}
	for _, withPlaintext := range []bool{true, false} {
		_, err := h.GenerateDataKey(t.Context(), alice, "k", "", 32, dataKeyContext("k"), withPlaintext)
		refused(t, err, "RESERVED_CONTEXT")
	}
	_, err := h.Encrypt(t.Context(), alice, "k", "", make([]byte, 32), dataKeyContext("k"))
	refused(t, err, "RESERVED_CONTEXT")
	// The context is the right one: KMS itself would open it.
	if _, err := h.kms.Decrypt(t.Context(), kmsapi.DecryptRequest{CiphertextBlob: blob, Context: dataKeyContext("k")}); err != nil {
		t.Error(err)
	}
}

// TestRevocation: a grant ends at once, a CMK that is disabled through the broker
// too, and one that is disabled elsewhere when the data key has its age. KMS's no is
// no outage, though offline use is allowed.
func TestRevocation(t *testing.T) {
	h := newHouse(t, grant(1000, "k", authz.Encrypt, authz.Decrypt))
	cmk := h.importKey(t, "k").Current().KeyID
	sealed := h.seal(t, alice, "k", nil)
	h.opens(t, alice, Opening{}, sealed, "")

	all := h.policy.Load()
	h.policy.Store(authz.NewPolicy(nil))
	h.opens(t, alice, Opening{}, sealed, "NO_GRANT")
	_, err := h.Seal(t.Context(), alice, Sealing{Key: "k"}, nil)
	refused(t, err, "NO_GRANT")
	h.policy.Store(all)

	if _, err := h.ChangeKey(t.Context(), admin, DisableKey(), Target{Key: "k"}); err != nil {
		t.Fatal(err)
	}
	h.opens(t, alice, Opening{}, sealed, "KMS_Rejected.Disabled")
	_, err = h.Seal(t.Context(), alice, Sealing{Key: "k"}, nil)
	refused(t, err, "KMS_Rejected.Disabled")
	if _, err := h.ChangeKey(t.Context(), admin, EnableKey(), Target{Key: "k"}); err != nil {
		t.Fatal(err)
	}
	h.opens(t, alice, Opening{}, sealed, "")

	if _, err := h.kms.DisableKey(t.Context(), cmk); err != nil {
		t.Fatal(err)
	}
	h.opens(t, alice, Opening{}, sealed, "") // the lag
	h.ahead += h.Status().DataKeys.Age
	h.opens(t, alice, Opening{}, sealed, "KMS_Rejected.Disabled")
	_, err = h.Seal(t.Context(), alice, Sealing{Key: "k"}, nil)
	refused(t, err, "KMS_Rejected.Disabled")
}

// TestEnvelopeOutage: while KMS is away, what is cached goes on for as long as is
// allowed.
func TestEnvelopeOutage(t *testing.T) {
	h := newHouse(t, grant(1000, "*", authz.Encrypt, authz.Decrypt))
	h.importKey(t, "k")
	h.importKey(t, "cold")
	sealed := h.seal(t, alice, "k", nil)
	h.opens(t, alice, Opening{}, sealed, "")
	h.cloud.down["cn-hangzhou"].Store(true)
	_, err := h.Seal(t.Context(), alice, Sealing{Key: "cold"}, nil)
	refused(t, err, "KMS")
	if kind := failure.From(err).Kind; kind != failure.Unavailable {
		t.Errorf("an outage is %v", kind)
	}
	h.ahead += 5 * time.Minute
	h.opens(t, alice, Opening{}, sealed, "")
	h.opens(t, alice, Opening{}, h.seal(t, alice, "k", nil), "") // under the same data key
	h.ahead += offline
	h.opens(t, alice, Opening{}, sealed, "KMS")
	h.cloud.down["cn-hangzhou"].Store(false)
	h.opens(t, alice, Opening{}, sealed, "")
}

// TestEnvelopeRegions: a message opens through every region that its data key is
// wrapped in, and sealing goes on while one of them is away.
func TestEnvelopeRegions(t *testing.T) {
	h := newHouse(t, grant(1000, "k", authz.Encrypt, authz.Decrypt))
	h.importKey(t, "k", "cn-hangzhou", "cn-shanghai")
	both := h.seal(t, alice, "k", nil)
	if _, header := headerOf(t, both); len(header.WrappedKeys) != 2 || header.WrappedKeys[0].Region != "cn-hangzhou" {
		t.Errorf("the header is %+v", header)
	}
	one, err := h.Seal(t.Context(), alice, Sealing{Key: "k", Regions: []string{"cn-shanghai", "cn-shanghai"}}, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if _, header := headerOf(t, one); len(header.WrappedKeys) != 1 || header.WrappedKeys[0].Region != "cn-shanghai" {
		t.Errorf("the header is %+v", header)
	}
	h.cloud.down["cn-hangzhou"].Store(true)
	h.opens(t, alice, Opening{}, both, "")
	h.opens(t, alice, Opening{}, one, "")
	h.opens(t, alice, Opening{Region: "cn-hangzhou"}, both, "KMS")

	h.ahead += time.Hour + 10*time.Minute // past all that is cached
	degraded := h.seal(t, alice, "k", nil)
	if _, header := headerOf(t, degraded); len(header.WrappedKeys) != 1 || header.WrappedKeys[0].Region != "cn-shanghai" {
		t.Errorf("the header is %+v", header)
	}
	_, err = h.Seal(t.Context(), alice, Sealing{Key: "k", Regions: []string{"cn-shanghai", "cn-hangzhou"}}, nil)
	refused(t, err, "KMS")
	h.cloud.down["cn-hangzhou"].Store(false)
	h.ahead += time.Minute
	if _, header := headerOf(t, h.seal(t, alice, "k", nil)); len(header.WrappedKeys) != 2 {
		t.Errorf("the region is still left out: %+v", header)
	}
	h.opens(t, alice, Opening{}, degraded, "")
	_, err = h.Seal(t.Context(), alice, Sealing{Key: "k", Regions: []string{"eu-central-1"}}, nil)
	refused(t, err, "REGION")
}

// TestEnvelopeRotation takes effect at once, and what was sealed before opens.
func TestEnvelopeRotation(t *testing.T) {
	h := newHouse(t, grant(1000, "k", authz.Encrypt, authz.Decrypt))
	h.importKey(t, "k")
	before := h.seal(t, alice, "k", nil)
	rotation := newKey("k")
	rotation.Kind = keyring.Rotation
	after, err := h.ImportKey(t.Context(), admin, rotation, func(importer.Progress) {})
	if err != nil {
		t.Fatal(err)
	}
	sealed := h.seal(t, alice, "k", nil)
	if _, header := headerOf(t, sealed); header.WrappedKeys[0].KeyID != after.Current().KeyID {
		t.Errorf("the header is %+v", header)
	}
	h.opens(t, alice, Opening{}, before, "")
	h.opens(t, alice, Opening{}, sealed, "")
}

// TestNoEnvelopeUnrecorded: without its trail the broker hands out no key.
func TestNoEnvelopeUnrecorded(t *testing.T) {
	h := newHouse(t, grant(1000, "k", authz.Encrypt, authz.Decrypt))
	h.importKey(t, "k")
	sealed := h.seal(t, alice, "k", nil)
	raw, _ := headerOf(t, sealed)
	if err := os.RemoveAll(h.trail); err != nil {
		t.Fatal(err)
	}
	m, sealErr := h.SealingKey(t.Context(), alice, Sealing{Key: "k"})
	message, _, openErr := h.OpeningKey(t.Context(), alice, Opening{}, raw)
	plaintext, _, wholeErr := h.Open(t.Context(), alice, Opening{}, sealed)
	for _, err := range []error{sealErr, openErr, wholeErr} {
		refused(t, err, "AUDIT")
	}
	if m != nil || message != nil || plaintext != nil {
		t.Error("something was handed out unrecorded")
	}
}
