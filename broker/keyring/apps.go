package keyring

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kmsbroker/kmsbroker/broker/failure"
)

// maxAppKeys of one application are enough to change from one to the next.
const maxAppKeys = 2

// accessKeyPrefix begins the IDs of access keys, so that nobody takes one for
// Alibaba Cloud's, which begin "LTAI".
const accessKeyPrefix = "KMSB"

// AppKey is an access key that was issued to an application, without its secret.
type AppKey struct {
	App      string    `json:"app"`
	ID       string    `json:"access_key_id"`
	IssuedAt time.Time `json:"issued_at"`
}

// appSecret is what is stored of an access key. An HMAC is verified with the secret
// itself, so nothing less will do.
type appSecret struct {
	AppKey
	Secret string `json:"access_key_secret"`
}

// IssueAppKey makes a new access key for an application, whose name the caller has
// checked. WrongState: it has as many as one can have.
func (k *Keyring) IssueAppKey(app string, now time.Time) (key AppKey, secret string, err error) {
	issued := appSecret{
		AppKey: AppKey{App: app, ID: accessKeyPrefix + rand.Text()[:20], IssuedAt: now.UTC().Round(0)},
		Secret: rand.Text(),
	}
	err = k.write(func(tx *bbolt.Tx, next *snapshot) error {
		has := 0
		for _, other := range next.apps {
			if other.App == app {
				has++
			}
		}
		if has >= maxAppKeys {
			return failure.New(failure.WrongState, "APP_KEYS", "application %s has %d access keys already", app, has).
				WithHint("`kmsbrokerctl app list` shows them; revoke the one that is no longer used")
		}
		next.apps[issued.ID] = &issued
		return put(tx, appsBucket, issued.ID, issued)
	})
	if err != nil {
		return AppKey{}, "", err
	}
	return issued.AppKey, issued.Secret, nil
}

// RevokeAppKeys ends the access key of that ID, or all of the application of that
// name, and returns them.
func (k *Keyring) RevokeAppKeys(idOrApp string) ([]AppKey, error) {
	var revoked []AppKey
	err := k.write(func(tx *bbolt.Tx, next *snapshot) error {
		if key, ok := next.apps[idOrApp]; ok {
			revoked = []AppKey{key.AppKey}
		} else if idOrApp != "" {
			revoked = next.appKeys(idOrApp)
		}
		if len(revoked) == 0 {
			return failure.New(failure.NotFound, "APP_NOT_FOUND", "there is no access key %.80q, and none of an application of that name", idOrApp).
				WithHint("`kmsbrokerctl app list` shows them")
		}
		for _, key := range revoked {
			delete(next.apps, key.ID)
			if err := tx.Bucket(appsBucket).Delete([]byte(key.ID)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return revoked, nil
}

// AppKeys returns the access keys of an application, or of all when app is empty,
// by application and age.
func (k *Keyring) AppKeys(app string) []AppKey { return k.snapshot.Load().appKeys(app) }

// AppSecret returns an access key with its secret, false when there is none of that
// ID any more.
func (k *Keyring) AppSecret(id string) (key AppKey, secret string, ok bool) {
	found, ok := k.snapshot.Load().apps[id]
	if !ok {
		return AppKey{}, "", false
	}
	return found.AppKey, found.Secret, true
}

func (s *snapshot) appKeys(app string) []AppKey {
	var keys []AppKey
	for _, key := range s.apps {
		if app == "" || key.App == app {
			keys = append(keys, key.AppKey)
		}
	}
	slices.SortFunc(keys, func(a, b AppKey) int {
		return cmp.Or(cmp.Compare(a.App, b.App), a.IssuedAt.Compare(b.IssuedAt), cmp.Compare(a.ID, b.ID))
	})
	return keys
}

func readApps(tx *bbolt.Tx) (map[string]*appSecret, error) {
	apps := map[string]*appSecret{}
	err := tx.Bucket(appsBucket).ForEach(func(id, raw []byte) error {
		var key appSecret
		// What encoding/json says of it could hold a part of the secret.
		if json.Unmarshal(raw, &key) != nil || key.ID != string(id) || key.App == "" || key.Secret == "" {
			return damaged("apps", string(id), nil)
		}
		apps[key.ID] = &key
		return nil
	})
	return apps, err
}
