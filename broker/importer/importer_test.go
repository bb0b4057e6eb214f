package importer

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/hsmtest"
	"github.com/kmsbroker/kmsbroker/kmsapi"
)

func TestChooseAlgorithm(t *testing.T) {
	all := hsm.WrappingAlgorithms()
	softhsm := []hsm.WrappingAlgorithm{hsm.OAEPSHA1, hsm.PKCS1v15}
	instance := []hsm.WrappingAlgorithm{hsm.OAEPSHA256, hsm.PKCS1v15}
	tests := []struct {
		name, wanted   string
		token, service []hsm.WrappingAlgorithm
		want           hsm.WrappingAlgorithm
	}{
		{"strongest", "auto", all, all, hsm.OAEPSHA256},
		{"what SoftHSM can", "auto", softhsm, all, hsm.OAEPSHA1},
		{"never PKCS#1 v1.5 by itself", "auto", softhsm, instance, ""},
		{"PKCS#1 v1.5 by name", "RSAES_PKCS1_V1_5", softhsm, instance, hsm.PKCS1v15},
		{"weaker by name", "RSAES_OAEP_SHA_1", all, all, hsm.OAEPSHA1},
		{"what the token cannot", "RSAES_OAEP_SHA_256", softhsm, all, ""},
		{"what the service refuses", "RSAES_OAEP_SHA_1", all, instance, ""},
		{"no such thing", "OAEP", all, all, ""},
		{"a token that can nothing", "auto", nil, all, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ChooseAlgorithm(tt.wanted, tt.token, tt.service)
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Fatalf("ChooseAlgorithm = %q, %v", got, err)
			}
			if err != nil && tt.wanted != "OAEP" && (!strings.Contains(err.Error(), list(tt.token)) || !strings.Contains(err.Error(), list(tt.service))) {
				t.Errorf("the error does not name both sides: %v", err)
			}
		})
	}
}

func TestCheckAlias(t *testing.T) {
	for alias, want := range map[string]bool{
		"": true, "alias/a": true, "alias/": false, "a": false, "alias/acs/oss": false, "alias/" + strings.Repeat("x", 250): false,
	} {
		if got := checkAlias(alias) == nil; got != want {
			t.Errorf("checkAlias(%.20q) ok = %v, want %v", alias, got, want)
		}
	}
}

// cloud is a KMS that keeps no keys but counts, fails and lies on demand.
type cloud struct {
	kmsapi.KMS // what a test does not use panics
	mu         sync.Mutex
	cmks       map[string]string
	create     func() error
	params     func() (*kmsapi.ImportParameters, error)
	created    int
}

func (c *cloud) ListKeys(context.Context, kmsapi.Page) (*kmsapi.KeyList, error) {
	return &kmsapi.KeyList{}, nil
}

func (c *cloud) ListAliases(context.Context, kmsapi.Page) (*kmsapi.AliasList, error) {
	return &kmsapi.AliasList{}, nil
}

func (c *cloud) CreateKey(_ context.Context, req kmsapi.CreateKeyRequest) (*kmsapi.KeyMetadata, error) {
	c.created++
	for _, tag := range req.Tags {
		if tag.Key == TagImport {
			c.cmks["cmk-"+tag.Value] = tag.Value
		}
	}
	if err := c.create(); err != nil {
		return nil, err
	}
	return c.DescribeKey(context.Background(), "cmk-"+req.Tags[1].Value)
}

func (c *cloud) DescribeKey(_ context.Context, id string) (*kmsapi.KeyMetadata, error) {
	return &kmsapi.KeyMetadata{KeyID: id, Origin: kmsapi.OriginExternal, Spec: kmsapi.KeySpecAES256, State: kmsapi.PendingImport}, nil
}

// appear makes a CMK visible.
func (c *cloud) appear(id, importID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cmks[id] = importID
}

func (c *cloud) ListTagResources(_ context.Context, req kmsapi.ListTagResourcesRequest) (*kmsapi.TaggedKeys, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := &kmsapi.TaggedKeys{}
	for id, importID := range c.cmks {
		if slices.ContainsFunc(req.Tags, func(t kmsapi.Tag) bool { return t.Key == TagImport && t.Value == importID }) {
			found.KeyIDs = append(found.KeyIDs, id)
		}
	}
	return found, nil
}

func (c *cloud) GetParametersForImport(context.Context, kmsapi.ImportParametersRequest) (*kmsapi.ImportParameters, error) {
	return c.params()
}

type bench struct {
	*Importer
	token   *hsmtest.Token
	cloud   *cloud
	records []audit.Event
	now     time.Time // zero: the real time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	keys, err := keyring.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keys.Close() })
	b := &bench{token: hsmtest.New(), cloud: &cloud{cmks: map[string]string{}, create: func() error { return nil }}}
	b.Importer = New(Config{
		Keyring: keys,
		Endpoints: Endpoints{Default: "cn-hangzhou", ByRegion: map[string]Endpoint{
			"cn-hangzhou": {KMS: b.cloud, URL: "https://kms.cn-hangzhou.aliyuncs.com", Region: "cn-hangzhou", Genuine: true, WrappingAlgorithms: hsm.WrappingAlgorithms()},
		}},
		Backend: func(string) (Backend, error) { return Backend{Token: b.token}, nil },
		Record:  func(_ context.Context, e audit.Event) error { b.records = append(b.records, e); return nil },
		Now: func() time.Time {
			if b.now.IsZero() {
				return time.Now()
			}
			return b.now
		},
	})
	return b
}

func (b *bench) importKey(req Request) error {
	req.Kind = keyring.NewKey
	_, err := b.Import(context.Background(), req, func(Progress) {})
	return err
}

func TestForeignParametersAreNotWrappedUnder(t *testing.T) {
	b := newBench(t)
	b.cloud.params = func() (*kmsapi.ImportParameters, error) {
		return &kmsapi.ImportParameters{KeyID: "another", PublicKey: []byte("x")}, nil
	}
	if err := b.importKey(Request{Name: "k", Backend: "hsm"}); failure.KindOf(err) != failure.Corrupt {
		t.Errorf("import: %v", err)
	}
	if b.token.Calls("Wrap") != 0 {
		t.Error("the HSM was asked to wrap under parameters of another CMK")
	}
}

func TestExportIsOnRecordBeforeItHappens(t *testing.T) {
	b := newBench(t)
	b.cloud.params = func() (*kmsapi.ImportParameters, error) {
		imp, _ := b.Keyring.Import("k")
		return &kmsapi.ImportParameters{KeyID: imp.Regions[0].KeyID, PublicKey: []byte("not a key")}, nil
	}
	recorded := false
	b.token.FailWith(func(call string) error {
		if call == "Wrap" {
			recorded = slices.ContainsFunc(b.records, func(e audit.Event) bool {
				return e.Action == audit.KeyExport && e.Outcome == audit.Allowed && e.Details[audit.DetailWrappingKey] != ""
			})
		}
		return nil
	})
	if err := b.importKey(Request{Name: "k", Backend: "hsm"}); err == nil {
		t.Fatal("wrapped under something that is not a key")
	}
	if !recorded {
		t.Errorf("the export was not on record: %+v", b.records)
	}
}

// TestResumeWithoutFlags is what the hint of `key list` suggests.
func TestResumeWithoutFlags(t *testing.T) {
	b := newBench(t)
	b.now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	stop := errors.New("stop")
	b.cloud.params = func() (*kmsapi.ImportParameters, error) { return nil, stop }
	alias, expires := "alias/k", "90d"
	if err := b.importKey(Request{Name: "k", Backend: "hsm", Alias: &alias, Expires: &expires}); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	before, _ := b.Keyring.Import("k")
	b.now = b.now.Add(time.Hour)
	for _, req := range []Request{{Name: "k", Backend: "hsm"}, {Name: "k", Backend: "hsm", Expires: &expires}} {
		if err := b.importKey(req); !errors.Is(err, stop) {
			t.Fatal(err)
		}
		after, _ := b.Keyring.Import("k")
		if after.Plan != before.Plan || after.Plan.Alias != alias || after.Plan.MaterialExpiresAt.IsZero() {
			t.Errorf("the plan %+v became %+v", before.Plan, after.Plan)
		}
	}
}

// TestLapsedExpiry: an import whose expiry passed before it ended takes a later
// one, and imports the material again with it.
func TestLapsedExpiry(t *testing.T) {
	b := newBench(t)
	b.now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	stop := errors.New("stop")
	b.cloud.params = func() (*kmsapi.ImportParameters, error) { return nil, stop }
	expires := "1d"
	if err := b.importKey(Request{Name: "k", Backend: "hsm", Expires: &expires}); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if _, err := b.Keyring.BeginStep("k", "cn-hangzhou", stepImport, b.now); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Keyring.EndStep("k", "cn-hangzhou", stepImport, b.now, func(*keyring.Import) {}); err != nil {
		t.Fatal(err)
	}
	b.now = b.now.AddDate(0, 0, 2)
	if err := b.importKey(Request{Name: "k", Backend: "hsm"}); failure.From(err).Reason != "EXPIRY" {
		t.Errorf("without a new expiry: %v", err)
	}
	expires = "never"
	if err := b.importKey(Request{Name: "k", Backend: "hsm", Expires: &expires}); !errors.Is(err, stop) {
		t.Errorf("with a new expiry the material is not imported again: %v", err)
	}
}

func TestAbandon(t *testing.T) {
	b := newBench(t)
	stop := errors.New("stop")
	b.cloud.params = func() (*kmsapi.ImportParameters, error) { return nil, stop }
	if err := b.importKey(Request{Name: "k", Backend: "hsm"}); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	left, err := b.Abandon(t.Context(), "k")
	if err != nil || len(left.KeyIDs()) != 1 || left.HSMKeyID == "" {
		t.Fatalf("Abandon = %+v, %v", left, err)
	}
	if last := b.records[len(b.records)-1]; last.Action != audit.ImportDrop || last.KeyID != left.KeyIDs()[0] {
		t.Errorf("record: %+v", last)
	}
	if _, err := b.Abandon(t.Context(), "k"); failure.KindOf(err) != failure.NotFound {
		t.Errorf("again: %v", err)
	}
	if err := b.importKey(Request{Name: "k", Backend: "hsm"}); !errors.Is(err, stop) {
		t.Errorf("the name is not free: %v", err)
	}
	if b.cloud.created != 2 {
		t.Errorf("%d CMKs were made, want a second one", b.cloud.created)
	}
}

func TestResumeKeepsWhatExists(t *testing.T) {
	b := newBench(t)
	stop := errors.New("stop")
	b.cloud.params = func() (*kmsapi.ImportParameters, error) { return nil, stop }
	one, two, sha1 := "one", "two", string(hsm.OAEPSHA1)
	first := Request{Name: "k", Backend: "hsm", Description: &one}
	if err := b.importKey(first); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	other := first
	other.Description = &two
	if err := b.importKey(other); failure.From(err).Reason != "IMPORT_DIFFERS" || !strings.Contains(err.Error(), `"one"`) {
		t.Errorf("resumed with another description: %v", err)
	}
	other = first
	other.Backend = "hsm2"
	if err := b.importKey(other); failure.From(err).Reason != "IMPORT_DIFFERS" {
		t.Errorf("resumed with another backend: %v", err)
	}
	other = first
	other.WrappingAlgorithm = &sha1
	if err := b.importKey(other); !errors.Is(err, stop) {
		t.Errorf("resumed with another algorithm: %v", err)
	}
	if imp, _ := b.Keyring.Import("k"); imp.Regions[0].WrappingAlgorithm != hsm.OAEPSHA1 || b.token.Calls("GenerateKey") != 1 {
		t.Errorf("journal %+v after %d generations", imp.Plan, b.token.Calls("GenerateKey"))
	}
}

func TestOneImportOfANameAtATime(t *testing.T) {
	b := newBench(t)
	inside, release := make(chan struct{}), make(chan struct{})
	stop := errors.New("stop")
	b.cloud.params = func() (*kmsapi.ImportParameters, error) {
		close(inside)
		<-release
		return nil, stop
	}
	first := make(chan error, 1)
	go func() { first <- b.importKey(Request{Name: "k", Backend: "hsm"}) }()
	<-inside
	if err := b.importKey(Request{Name: "k", Backend: "hsm"}); failure.From(err).Reason != "IMPORT_RUNNING" {
		t.Errorf("second import: %v", err)
	}
	close(release)
	if err := <-first; !errors.Is(err, stop) {
		t.Errorf("first import: %v", err)
	}
}

// TestReimportOfAnotherKey: a key whose check value differs is refused before
// anything is fetched or sent.
func TestReimportOfAnotherKey(t *testing.T) {
	b := newBench(t)
	id := hsm.NewKeyID()
	if _, err := b.token.GenerateKey(t.Context(), hsm.KeySpec{ID: id, Label: "k"}); err != nil {
		t.Fatal(err)
	}
	kcv := hsmtest.KCV(b.token.Value(id))
	b.token.Replace(id, make([]byte, 32))
	key := &keyring.Key{Name: "k", Backend: "hsm", Region: "cn-hangzhou", CMKs: []keyring.CMK{{
		KeyID: "cmk", Region: "cn-hangzhou", HSMKeyID: id, CheckValue: kcv.String(), WrappingAlgorithm: hsm.OAEPSHA256,
	}}}
	if err := b.Keyring.Add(key); err != nil {
		t.Fatal(err)
	}
	_, err := b.Reimport(t.Context(), Reimport{Name: "k"}, func(Progress) {})
	if f := failure.From(err); f.Reason != "CHECK_VALUE" || !strings.Contains(f.Message, kcv.String()) {
		t.Errorf("reimport: %v", err)
	}
	if b.token.Calls("Wrap") != 0 {
		t.Error("another key was wrapped for KMS")
	}
}
