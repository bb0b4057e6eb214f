package broker

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/envelope"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// hooked is a KMS whose answers a test changes.
type hooked struct {
	kmsapi.KMS
	dataKey func(*kmsapi.DataKeyResponse)
	opened  func(*kmsapi.DecryptResponse)
	calls   int
}

func (h *hooked) GenerateDataKey(ctx context.Context, req kmsapi.DataKeyRequest) (*kmsapi.DataKeyResponse, error) {
	h.calls++
	answer, err := h.KMS.GenerateDataKey(ctx, req)
	if err == nil && h.dataKey != nil {
		h.dataKey(answer)
	}
	return answer, err
}

func (h *hooked) Decrypt(ctx context.Context, req kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
	h.calls++
	answer, err := h.KMS.Decrypt(ctx, req)
	if err == nil && h.opened != nil {
		h.opened(answer)
	}
	return answer, err
}

// hook has a test come between the broker and the KMS of the default region.
func (h *house) hook() *hooked {
	const region = "cn-hangzhou"
	e := h.Regions.ByRegion[region]
	k := &hooked{KMS: e.KMS}
	e.KMS = k
	h.Regions.ByRegion[region] = e
	return k
}

// TestWrongDataKeys: what KMS answers wrongly is KMS's fault, is handed to nobody and
// is not kept.
func TestWrongDataKeys(t *testing.T) {
	for name, spoil := range map[string]func(*kmsapi.DataKeyResponse){
		"a long blob":        func(k *kmsapi.DataKeyResponse) { k.CiphertextBlob = strings.Repeat("A", 5000) },
		"no blob":            func(k *kmsapi.DataKeyResponse) { k.CiphertextBlob = "" },
		"a short key":        func(k *kmsapi.DataKeyResponse) { k.Plaintext = k.Plaintext[:16] },
		"another CMK's":      func(k *kmsapi.DataKeyResponse) { k.KeyID = "00000000-0000-0000-0000-000000000000" },
		"a blob of no ASCII": func(k *kmsapi.DataKeyResponse) { k.CiphertextBlob = "é" },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, grant(1000, "k", authz.Encrypt, authz.Decrypt))
			h.importKey(t, "k")
			kms := h.hook()
			var seen []byte
			kms.dataKey = func(k *kmsapi.DataKeyResponse) { seen = k.Plaintext; spoil(k) }
			_, err := h.Seal(t.Context(), alice, Sealing{Key: "k"}, []byte("x"))
			if failure.From(err).Kind != failure.Corrupt || !bytes.Equal(seen, make([]byte, len(seen))) && name != "a short key" {
				t.Errorf("%v, %x", err, seen)
			}
			kms.dataKey = nil
			h.opens(t, alice, Opening{}, h.seal(t, alice, "k", nil), "")
		})
	}
}

// TestOpenedByAnotherCMK: a data key counts only if the CMK opened it that the header
// names, in its region.
func TestOpenedByAnotherCMK(t *testing.T) {
	h := newHouse(t, grant(1000, "k", authz.Encrypt, authz.Decrypt))
	h.importKey(t, "k", "cn-hangzhou", "cn-shanghai")
	sealed := h.seal(t, alice, "k", nil)
	h.dataKeys.Drop("k")
	kms := h.hook()
	kms.opened = func(d *kmsapi.DecryptResponse) { d.KeyID = "00000000-0000-0000-0000-000000000000" }
	h.opens(t, alice, Opening{Region: "cn-hangzhou"}, sealed, "FOREIGN_CIPHERTEXT")
	kms.opened = nil
	h.opens(t, alice, Opening{Region: "cn-hangzhou"}, sealed, "")

	raw, header := headerOf(t, sealed)
	header.WrappedKeys[0].Region, header.WrappedKeys[1].Region = header.WrappedKeys[1].Region, header.WrappedKeys[0].Region
	dataKey := bytes.Repeat([]byte{1}, envelope.KeySize)
	forged, err := envelope.New("k", header.WrappedKeys, dataKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	kms.calls = 0
	_, _, err = h.Open(t.Context(), alice, Opening{}, append(forged.Header(), sealed[len(raw):]...))
	refused(t, err, "FOREIGN_CIPHERTEXT")
	if kms.calls != 0 {
		t.Errorf("KMS was asked %d times for CMKs in the wrong regions", kms.calls)
	}
}

// TestForeignTellsNobodyElse: two who wait for one answer are each told of themselves.
func TestForeignTellsNobodyElse(t *testing.T) {
	h := newHouse(t, grant(1000, "k", authz.Encrypt, authz.Decrypt), grant(1001, "k", authz.Decrypt))
	h.importKey(t, "k")
	sealed := h.seal(t, alice, "k", nil)
	h.dataKeys.Drop("k")
	kms := h.hook()
	both, begun, release := make(chan error, 1), make(chan struct{}, 2), make(chan struct{})
	kms.opened = func(d *kmsapi.DecryptResponse) {
		begun <- struct{}{}
		<-release
		d.KeyID = "00000000-0000-0000-0000-000000000000"
	}
	go func() {
		_, _, err := h.Open(context.Background(), alice, Opening{}, sealed)
		both <- err
	}()
	<-begun
	// Most times bob waits for the same answer by then; when not, he has his own.
	time.AfterFunc(50*time.Millisecond, func() { close(release) })
	_, _, err := h.Open(t.Context(), bob, Opening{}, sealed)
	for _, told := range []struct {
		err  error
		whom string
	}{{err, bob.Caller.String()}, {<-both, alice.Caller.String()}} {
		refused(t, told.err, "FOREIGN_CIPHERTEXT")
		if !strings.Contains(told.err.Error(), told.whom) {
			t.Errorf("%s is told %v", told.whom, told.err)
		}
	}
}

// TestSeveralUnreachable: of several regions, one that refused has been reached.
func TestSeveralUnreachable(t *testing.T) {
	away := &kmsapi.Error{Operation: "Decrypt", Cause: errors.New("no route")}
	for _, tt := range []struct {
		failed []error
		want   bool
	}{
		{[]error{away}, true}, {[]error{away, away}, true}, {[]error{away, errForeign}, false}, {[]error{errForeign}, false},
		{[]error{away, &kmsapi.Error{Status: 409, Code: kmsapi.CodeDisabled}}, false},
	} {
		if got := unreachable(severally(tt.failed)); got != tt.want {
			t.Errorf("%v: %t", tt.failed, got)
		}
	}
}

// TestRotatedMeanwhile: a seed that was wrapped by another CMK than its KeyID names is
// not handed out, and not on record as if it were.
func TestRotatedMeanwhile(t *testing.T) {
	h := newHouse(t, grant(1000, "k", authz.Encrypt, authz.Decrypt))
	h.importKey(t, "k")
	_, err := h.Seal(t.Context(), alice, Sealing{Key: "k", ours: own{keyID: "the CMK before"}}, bytes.Clone(aSeed))
	refused(t, err, "ROTATED")
	if record := h.lastRecord(t); record.Action != "encrypt" || record.Outcome != audit.Failed {
		t.Errorf("the record is %+v", record)
	}
	ours := own{keyID: "a,b"}
	if !ours.mayBeAll([]envelope.WrappedKey{{KeyID: "b"}}) || ours.mayBeAll([]envelope.WrappedKey{{KeyID: "a"}, {KeyID: "c"}}) {
		t.Error("CMKs that the KeyID does not name")
	}
}
