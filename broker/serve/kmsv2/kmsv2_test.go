package kmsv2

import (
	"reflect"
	"testing"

	v2 "k8s.io/kms/apis/v2"

	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/failure"
)

// TestSeedOf: what Encrypt answers comes back as the same seed, and nothing else is
// one.
func TestSeedOf(t *testing.T) {
	direct := &broker.Seed{Ciphertext: []byte("blob"), KeyID: "cmk"}
	sealed := &broker.Seed{Ciphertext: []byte("segments"), KeyID: "cmk-1,cmk-2", Header: []byte("KMSE")}
	for _, seed := range []*broker.Seed{direct, sealed} {
		got, err := seedOf(&v2.DecryptRequest{Ciphertext: seed.Ciphertext, KeyId: seed.KeyID, Annotations: annotations(seed)})
		if err != nil || !reflect.DeepEqual(got, seed) {
			t.Errorf("%+v came back as %+v, %v", seed, got, err)
		}
	}
	type notes = map[string][]byte
	for name, req := range map[string]*v2.DecryptRequest{
		"nothing":               {},
		"no annotations":        {Ciphertext: []byte("x"), KeyId: "k"},
		"no KeyID":              {Ciphertext: []byte("x"), Annotations: annotations(direct)},
		"no ciphertext":         {KeyId: "k", Annotations: annotations(direct)},
		"a later format":        {Ciphertext: []byte("x"), KeyId: "k", Annotations: notes{annotationFormat: []byte("kms/2")}},
		"no format":             {Ciphertext: []byte("x"), KeyId: "k", Annotations: notes{annotationHeader: []byte("h")}},
		"an envelope without":   {Ciphertext: []byte("x"), KeyId: "k", Annotations: notes{annotationFormat: []byte(formatEnvelope)}},
		"an empty header":       {Ciphertext: []byte("x"), KeyId: "k", Annotations: notes{annotationFormat: []byte(formatEnvelope), annotationHeader: {}}},
		"a header of too much":  {Ciphertext: []byte("x"), KeyId: "k", Annotations: notes{annotationFormat: []byte(formatKMS), annotationHeader: []byte("h")}},
		"somebody's annotation": {Ciphertext: []byte("x"), KeyId: "k", Annotations: notes{annotationFormat: []byte(formatKMS), "a.b": nil}},
	} {
		if seed, err := seedOf(req); failure.From(err) == nil || failure.From(err).Reason != "SEED_FORMAT" {
			t.Errorf("%s: %+v, %v", name, seed, err)
		}
	}
}

func TestHealthz(t *testing.T) {
	if got := healthz(nil); got != "ok" {
		t.Errorf("in order: %q", got)
	}
	err := failure.New(failure.Unavailable, "KMS", "no answer").WithHint("wait")
	if got, want := healthz(err), "unavailable: no answer (wait)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
