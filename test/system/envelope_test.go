package system

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/envelope"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// pattern has no two segments that are alike.
func pattern(size int) []byte {
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(i*7 + i>>8 + i>>16)
	}
	return p
}

func newClient(t *testing.T, s *stage.Stage) *client.Client {
	t.Helper()
	c, err := client.New(s.Application())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestEnvelopeFiles: files of any length, through the CLI. What is damaged leaves
// what was there before.
func TestEnvelopeFiles(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	s.Import("app-1")
	for _, size := range []int{0, 1, envelope.SegmentSize, 3<<20 + 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			plain := pattern(size)
			s.Write("in", string(plain), 0o600)
			seal := []string{"encrypt", "--envelope", "--key", "app-1", "--context", "tenant=a", "--in", s.Path("in")}
			s.Must(s.Ctl(s.Application(), append(seal, "--out", s.Path("sealed"))...), nil)
			open := []string{"decrypt", "--envelope", "--context", "tenant=a", "--in", s.Path("sealed")}
			s.Must(s.Ctl(s.Application(), append(open, "--key", "app-1", "--out", s.Path("back"))...), nil)
			if s.Read("back") != string(plain) {
				t.Error("another file came back")
			}
			piped := s.Ctl(s.Application(), seal...)
			if opened := s.CtlInput([]byte(piped.Stdout), s.Application(), "decrypt", "--envelope", "--context", "tenant=a"); opened.Stdout != string(plain) || piped.Stderr+opened.Stderr != "" {
				t.Errorf("through pipes: %d bytes, %s%s", len(opened.Stdout), piped.Stderr, opened.Stderr)
			}
			sealed := s.Read("sealed")
			s.Write("back", "what was there", 0o600)
			for name, message := range map[string]string{
				"cut off": sealed[:len(sealed)-1], "changed": sealed[:len(sealed)-1] + string(sealed[len(sealed)-1]^1), "longer": sealed + "x",
			} {
				s.Write("sealed", message, 0o600)
				s.Refused(s.Ctl(s.Application(), append(open, "--out", s.Path("back"))...), 1, "damaged or cut off")
				if s.Read("back") != "what was there" {
					t.Errorf("%s: the output was touched", name)
				}
			}
			s.Write("sealed", sealed, 0o600)
			s.Refused(s.Ctl(s.Application(), "decrypt", "--envelope", "--in", s.Path("sealed"), "--out", s.Path("back")), 1, "encryption context", "hint")
			s.Refused(s.Ctl(s.Application(), append(open, "--key", "app-2", "--out", s.Path("back"))...), 4)
		})
	}
	s.Refused(s.Ctl(s.Application(), "encrypt", "--envelope", "--key", "other", "--in", s.Path("in"), "--out", s.Path("new")), 4, "no grant")
	if left, err := filepath.Glob(s.Path(".kmsbrokerctl-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := os.Stat(s.Path("new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused output is there: %v", err)
	}
}

// TestIndependentDecoder: what the daemon and the client seal opens in another
// language, with the message key that the daemon hands out.
func TestIndependentDecoder(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	s.Import("app-1")
	c, raw := newClient(t, s), dial(t, s)
	for _, size := range []int{5, 200_000} {
		sealed, err := c.Seal(t.Context(), "app-1", pattern(size), map[string]string{"tenant": "a"})
		if err != nil {
			t.Fatal(err)
		}
		header, _, err := envelope.Split(sealed)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := raw.GetMessageKey(t.Context(), &v1.GetMessageKeyRequest{Header: header, EncryptionContext: map[string]string{"tenant": "a"}})
		if err != nil {
			t.Fatal(err)
		}
		s.Write("key", hex.EncodeToString(answer.GetMessageKey()), 0o600)
		node := exec.CommandContext(t.Context(), "node", "../../examples/envelope/decode.mjs", "--message-key", s.Path("key"), "--context", "tenant=a")
		node.Stdin = bytes.NewReader(sealed)
		if opened, err := node.Output(); err != nil || !bytes.Equal(opened, pattern(size)) {
			t.Errorf("%d bytes: %d came back, %v", size, len(opened), err)
		}
	}
}

// dial speaks to the application socket without the client.
func dial(t *testing.T, s *stage.Stage) v1.CryptoClient {
	t.Helper()
	conn, err := client.Dial(s.Application())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return v1.NewCryptoClient(conn)
}

// TestDataKeyBlobs gives the wrapped data key of an envelope to everything that
// opens or makes ciphertext blobs, at every door.
func TestDataKeyBlobs(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Start()
	s.Import("app-1")
	sealed, err := newClient(t, s).Seal(t.Context(), "app-1", []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, _, err := envelope.Split(sealed)
	if err != nil {
		t.Fatal(err)
	}
	header, err := envelope.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	blob := header.WrappedKeys[0].CiphertextBlob
	crypto, ctx := dial(t, s), t.Context()
	reserved := map[string]string{"kmsbroker.purpose": "envelope", "kmsbroker.key": "app-1"}
	for name, encryptionContext := range map[string]map[string]string{"without": nil, "with the reserved context": reserved} {
		want := codes.InvalidArgument // KMS's own no
		if encryptionContext != nil {
			want = codes.PermissionDenied
		}
		for _, key := range []string{"", "app-1"} {
			opened, err := crypto.Decrypt(ctx, &v1.DecryptRequest{CiphertextBlob: blob, Key: key, EncryptionContext: encryptionContext})
			refused(t, name+": Decrypt "+key, opened, err, want)
			args := []string{"decrypt", "--in", s.Path("blob")}
			for n, v := range encryptionContext {
				args = append(args, "--context", n+"="+v)
			}
			s.Write("blob", blob, 0o600)
			if r := s.Ctl(s.Application(), args...); r.Status == 0 || r.Stdout != "" {
				t.Errorf("%s: kmsbrokerctl decrypt: status %d, %q", name, r.Status, r.Stdout)
			}
		}
		moved, err := crypto.ReEncrypt(ctx, &v1.ReEncryptRequest{CiphertextBlob: blob, Key: "app-1", SourceContext: encryptionContext})
		refused(t, name+": ReEncrypt", moved, err, want)
		batch, err := crypto.DecryptBatch(ctx, &v1.DecryptBatchRequest{Items: []*v1.DecryptRequest{{CiphertextBlob: blob, EncryptionContext: encryptionContext}}})
		if err != nil || batch.GetItems()[0].GetFailed().GetCode() != int32(want) {
			t.Errorf("%s: DecryptBatch: %v, %v", name, batch, err)
		}
		again, err := crypto.ReEncryptBatch(ctx, &v1.ReEncryptBatchRequest{Items: []*v1.ReEncryptRequest{{CiphertextBlob: blob, Key: "app-1", SourceContext: encryptionContext}}})
		if err != nil || again.GetItems()[0].GetFailed().GetCode() != int32(want) {
			t.Errorf("%s: ReEncryptBatch: %v, %v", name, again, err)
		}
	}
	encrypted, err := crypto.Encrypt(ctx, &v1.EncryptRequest{Key: "app-1", Plaintext: []byte("x"), EncryptionContext: reserved})
	refused(t, "Encrypt", encrypted, err, codes.PermissionDenied)
	generated, err := crypto.GenerateDataKey(ctx, &v1.GenerateDataKeyRequest{Key: "app-1", EncryptionContext: reserved})
	refused(t, "GenerateDataKey", generated, err, codes.PermissionDenied)
	hidden, err := crypto.GenerateDataKeyWithoutPlaintext(ctx, &v1.GenerateDataKeyRequest{Key: "app-1", EncryptionContext: reserved})
	refused(t, "GenerateDataKeyWithoutPlaintext", hidden, err, codes.PermissionDenied)
	resealed, err := crypto.Seal(ctx, &v1.SealRequest{Key: "app-1", EncryptionContext: reserved})
	refused(t, "Seal", resealed, err, codes.PermissionDenied)

	// Alibaba Cloud's protocol has a name for each of them too.
	for _, named := range []string{"", `{"kmsbroker.purpose":"envelope","kmsbroker.key":"app-1"}`} {
		for action, parameters := range map[string][]string{
			"Decrypt":                         {"CiphertextBlob=" + blob, "EncryptionContext=" + named},
			"ReEncrypt":                       {"CiphertextBlob=" + blob, "SourceEncryptionContext=" + named, "DestinationKeyId=app-1"},
			"Encrypt":                         {"KeyId=app-1", "Plaintext=eA==", "EncryptionContext=" + named},
			"GenerateDataKey":                 {"KeyId=app-1", "EncryptionContext=" + named},
			"GenerateDataKeyWithoutPlaintext": {"KeyId=app-1", "EncryptionContext=" + named},
		} {
			opens := action == "Decrypt" || action == "ReEncrypt"
			args := []string{"--data-urlencode", "Action=" + action, "--data-urlencode", "Version=2016-01-20"}
			for _, p := range parameters {
				if !strings.HasSuffix(p, "Context=") {
					args = append(args, "--data-urlencode", p)
				}
			}
			a := curl(t, s, args...)
			if refused := opens || named != ""; refused != (a.Code != "") || refused && a.Plaintext+a.CiphertextBlob != "" {
				t.Errorf("%s at alibaba.sock with %q: %+v", action, named, a)
			}
		}
	}

	// The control socket opens nothing at all.
	admin, err := client.Dial(s.Control())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	opened, err := v1.NewCryptoClient(admin).Decrypt(ctx, &v1.DecryptRequest{CiphertextBlob: blob, EncryptionContext: reserved})
	refused(t, "Decrypt at the control socket", opened, err, codes.Unimplemented)
}

func refused[T any](t *testing.T, what string, answer *T, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); answer != nil || got != want {
		t.Errorf("%s: %v, %v, want %v", what, answer, err, want)
	}
}

// TestManyMessages: a thousand callers on a cold cache cause one call to KMS, and
// each of them has a record.
func TestManyMessages(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	s.Import("app-1")
	asked, release := make(chan struct{}), make(chan struct{})
	s.Intercept(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Header.Get("X-Acs-Action") == "GenerateDataKey" {
			close(asked)
			<-release // KMS is slow
		}
		return true
	})
	const callers, connections = 1000, 7 // as many as are under way at once, and more
	clients := make([]*client.Client, connections)
	for i := range clients {
		clients[i] = newClient(t, s)
	}
	before := s.Actions("GenerateDataKey")
	messages := make([][]byte, callers)
	var sealing sync.WaitGroup
	for i := range callers {
		sealing.Go(func() {
			var err error
			if messages[i], err = clients[i%connections].Seal(t.Context(), "app-1", []byte{byte(i)}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	<-asked
	waiting := newClient(t, s)
	for range 100 { // others come in meanwhile
		if _, err := waiting.WhoAmI(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	sealing.Wait()
	if n := s.Actions("GenerateDataKey") - before; n != 1 {
		t.Errorf("%d calls to KMS", n)
	}
	before = s.Actions("Decrypt")
	for i, message := range messages {
		if opened, err := clients[0].Open(t.Context(), message, nil); err != nil || opened.Plaintext[0] != byte(i) {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if n := s.Actions("Decrypt") - before; n != 1 {
		t.Errorf("%d calls to KMS to open", n)
	}
	daemon.Stop()
	trail := s.AuditTrail()
	if n := strings.Count(trail, `"envelope":"message"`); n != 2*callers {
		t.Errorf("%d records of %d messages", n, 2*callers)
	}
}

// TestEnvelopeStatus: how long a CMK can be used after it was disabled elsewhere is
// there to be read.
func TestEnvelopeStatus(t *testing.T) {
	s := stage.New(t, stage.Options{})
	s.Configure("[kms.regions."+stage.OtherRegion+"]", "[envelope]\nage = \"90s\"\nidle = \"30s\"\noffline = \"2h\"\n\n[kms.regions."+stage.OtherRegion+"]")
	s.Start()
	s.Import("app-1")
	if _, err := newClient(t, s).Seal(t.Context(), "app-1", nil, nil); err != nil {
		t.Fatal(err)
	}
	r := s.Ctl(s.Control(), "status")
	if !strings.Contains(r.Stdout, "1 cached; a CMK disabled elsewhere is used for 1m30s at the most, and 2h0m0s more while KMS cannot be reached") {
		t.Errorf("status:\n%s", r.Stdout)
	}
	var shown struct {
		DataKeys struct {
			Cached        int    `json:"cached"`
			RevocationLag string `json:"revocation_lag"`
			Offline       string `json:"offline"`
		} `json:"data_keys"`
	}
	s.Must(s.Ctl(s.Control(), "-o", "json", "status"), &shown)
	if got := shown.DataKeys; got.Cached != 1 || got.RevocationLag != "90s" || got.Offline != "7200s" {
		t.Errorf("status: %+v", got)
	}
}

// TestEnvelopeRegions: a file opens through the second region while the first is
// down.
func TestEnvelopeRegions(t *testing.T) {
	s := stage.New(t, stage.Options{})
	daemon := s.Start()
	s.Import("app-1", "--region", stage.Region, "--region", stage.OtherRegion)
	plain := string(pattern(100_000))
	s.Write("in", plain, 0o600)
	seal := func(out string, args ...string) {
		t.Helper()
		s.Must(s.Ctl(s.Application(), append([]string{"encrypt", "--envelope", "--key", "app-1", "--in", s.Path("in"), "--out", s.Path(out)}, args...)...), nil)
	}
	seal("all")
	seal("both", "--region", stage.Region, "--region", stage.OtherRegion)
	seal("home", "--region", stage.Region)
	daemon.Stop() // and its cache
	s.Start()
	s.Intercept(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		body, err := io.ReadAll(r.Body)
		if err != nil || bytes.Contains(body, []byte("RegionId="+stage.Region)) {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		return true
	})
	for _, name := range []string{"all", "both"} {
		s.Must(s.Ctl(s.Application(), "decrypt", "--envelope", "--in", s.Path(name), "--out", s.Path("back")), nil)
		if s.Read("back") != plain {
			t.Errorf("%s: another file came back", name)
		}
	}
	if r := s.Ctl(s.Application(), "decrypt", "--envelope", "--in", s.Path("home"), "--out", s.Path("none")); r.Status == 0 {
		t.Error("a region that is down opened a message")
	}
}
