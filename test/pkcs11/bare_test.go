package pkcs11

import (
	"net"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki/rpc"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11/softhsmtest"
)

// bareClient speaks p11-kit's protocol and keeps nothing back, as p11-kit-client.so does
// with what it knows nothing of: it is a client that can carry everything.
type bareClient struct {
	t       *testing.T
	version rpc.Version
	client  *rpc.Client
}

// Do makes a call in the form that clients of the version have for it.
func (b *bareClient) Do(call *cryptoki.Call) *cryptoki.Answer {
	own := *call
	switch {
	case call.Function == cryptoki.InitToken && b.version >= 1:
		own.Function = cryptoki.InitToken2
	case call.Function == cryptoki.DeriveKey && b.version >= 2:
		own.Function = cryptoki.DeriveKey2
	}
	answer, err := b.client.Do(b.t.Context(), &own)
	if err != nil {
		// What has no place in the protocol; after what broke the connection nothing
		// equals anything.
		return cryptoki.Refuse(cryptoki.CKR_HOST_MEMORY)
	}
	return answer
}

// Legacy is answered as p11-kit-client.so does it.
func (b *bareClient) Legacy(uint64) (status, cancel cryptoki.RV) {
	return cryptoki.CKR_FUNCTION_NOT_PARALLEL, cryptoki.CKR_FUNCTION_NOT_PARALLEL
}

// runBare runs the table through a socket, in a version of the protocol.
func runBare(t *testing.T, socket string, version rpc.Version, f *softhsmtest.Fixture, j job) map[string]string {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := rpc.Negotiate(conn, version); err != nil || got != version {
		t.Fatalf("version %d was answered with %d: %v", version, got, err)
	}
	keys, err := parseKeys(j)
	if err != nil {
		t.Fatal(err)
	}
	results := map[string]string{}
	s := &script{
		module: &bareClient{t, version, rpc.NewClient(conn, version)}, label: f.Label, pin: []byte(f.PIN), soPIN: []byte(f.SOPIN),
		keys: keys, steps: map[string]bool{}, write: func(r record) error { results[r.Step] = r.Result; return nil },
	}
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
	return results
}
