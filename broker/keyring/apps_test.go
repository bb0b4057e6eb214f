package keyring

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kmsbroker/kmsbroker/broker/failure"
)

func TestAppKeys(t *testing.T) {
	dir := t.TempDir()
	k, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_000_000, 5)
	issue := func(app string) (AppKey, string) {
		t.Helper()
		now = now.Add(time.Second)
		key, secret, err := k.IssueAppKey(app, now)
		if err != nil || key.App != app || len(secret) < 20 {
			t.Fatalf("%+v, %v", key, err)
		}
		return key, secret
	}
	first, firstSecret := issue("web")
	second, _ := issue("web")
	batch, _ := issue("batch")
	if _, _, err := k.IssueAppKey("web", now); failure.From(err).Reason != "APP_KEYS" {
		t.Errorf("a third access key: %v", err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if k, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if got := k.AppKeys(""); !slices.Equal(got, []AppKey{batch, first, second}) {
		t.Errorf("after another start: %+v", got)
	}
	if key, secret, ok := k.AppSecret(first.ID); !ok || key != first || secret != firstSecret {
		t.Errorf("%+v, %t", key, ok)
	}
	if got, err := k.RevokeAppKeys(first.ID); err != nil || !slices.Equal(got, []AppKey{first}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, _, ok := k.AppSecret(first.ID); ok {
		t.Error("a revoked access key is there")
	}
	if _, err := k.RevokeAppKeys(first.ID); failure.KindOf(err) != failure.NotFound {
		t.Errorf("revoked twice: %v", err)
	}
	third, _ := issue("web")
	if got, err := k.RevokeAppKeys("web"); err != nil || !slices.Equal(got, []AppKey{second, third}) {
		t.Errorf("all of an application: %+v, %v", got, err)
	}
	if got := k.AppKeys("web"); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	if got := k.AppKeys("batch"); !slices.Equal(got, []AppKey{batch}) {
		t.Errorf("another's: %+v", got)
	}
	// "" is no application whose keys could all be revoked.
	if got, err := k.RevokeAppKeys(""); err == nil {
		t.Errorf("%+v", got)
	}
}

// TestDamagedAppKey: the error holds nothing of the record.
func TestDamagedAppKey(t *testing.T) {
	dir := t.TempDir()
	k, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(appSecret{AppKey: AppKey{App: "web", ID: "other"}, Secret: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(appsBucket).Put([]byte("id"), raw) }); err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); failure.KindOf(err) != failure.Corrupt {
		t.Errorf("%v", err)
	}
}
