package config

import "github.com/kmsbroker/kmsbroker/broker/keyring"

// Kubernetes is a KMS provider of a cluster, with a socket of its own.
type Kubernetes struct {
	Name   string
	Key    string // the broker's name of the key
	Socket string // absolute path
	// Envelope has seeds encrypted under the data keys of envelopes instead of by KMS.
	Envelope bool
}

// What kubernetes.NAME.seeds can be.
const (
	seedsKMS      = "kms"
	seedsEnvelope = "envelope"
)

// kubernetes reads the providers in the order of the file.
func (t *table) kubernetes(runtimeDir string) []Kubernetes {
	var providers []Kubernetes
	for name, sub := range t.named("provider") {
		providers = append(providers, sub.provider(name, runtimeDir))
	}
	return providers
}

func (t *table) provider(name, runtimeDir string) Kubernetes {
	k := Kubernetes{Name: name, Socket: t.socket("socket", "kubernetes/"+name+".sock", runtimeDir)}
	if t.present("key") {
		k.Key = t.text("key", "")
	}
	if err := keyring.CheckName(k.Key); t.isText("key") && err != nil {
		t.problem("key", "%s: %v", t.full("key"), err)
	}
	seeds := t.text("seeds", seedsKMS)
	if k.Envelope = seeds == seedsEnvelope; !k.Envelope && seeds != seedsKMS {
		t.problem("seeds", `%s must be %q or %q, not %q`, t.full("seeds"), seedsKMS, seedsEnvelope, seeds)
	}
	t.done()
	return k
}
