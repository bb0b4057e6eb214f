package ram

import (
	"crypto/rand"
	"slices"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// accessKeyInfo is AccessKey of the API; the secret is shown once, when it is
// made.
type accessKeyInfo struct {
	AccessKeyID     string `json:"AccessKeyId"`
	AccessKeySecret string `json:",omitempty"`
	Status          string
	CreateDate      string
}

func (k accessKey) info() accessKeyInfo {
	status := statusInactive
	if k.Active {
		status = statusActive
	}
	return accessKeyInfo{AccessKeyID: k.ID, Status: status, CreateDate: timeText(k.CreatedAt)}
}

const (
	statusActive   = "Active"
	statusInactive = "Inactive"
)

func createAccessKey(c *call) (any, error) {
	u, err := c.user()
	if err != nil {
		return nil, err
	}
	if len(u.Keys) >= maxAccessKeys {
		return nil, errAccessKeyLimit
	}
	k := accessKey{ID: "LTAI" + rand.Text()[:20], Secret: newSecret(), Active: true, CreatedAt: c.now}
	u.Keys = append(u.Keys, k)
	info := k.info()
	info.AccessKeySecret = k.Secret
	return struct{ AccessKey accessKeyInfo }{info}, nil
}

func listAccessKeys(c *call) (any, error) {
	u, err := c.user()
	if err != nil {
		return nil, err
	}
	var answer struct {
		AccessKeys struct{ AccessKey []accessKeyInfo }
	}
	answer.AccessKeys.AccessKey = []accessKeyInfo{}
	for _, k := range u.Keys {
		answer.AccessKeys.AccessKey = append(answer.AccessKeys.AccessKey, k.info())
	}
	return answer, nil
}

// ownedKey finds the AccessKey that UserAccessKeyId names; AccessKeyId is the one
// that signs.
func (c *call) ownedKey() (*user, int, error) {
	u, err := c.user()
	if err != nil {
		return nil, 0, err
	}
	i, ok := u.key(c.params["UserAccessKeyId"])
	if !ok {
		return nil, 0, errNoAccessKey
	}
	return u, i, nil
}

func updateAccessKey(c *call) (any, error) {
	u, i, err := c.ownedKey()
	if err != nil {
		return nil, err
	}
	status := c.params["Status"]
	if status != statusActive && status != statusInactive {
		return nil, wire.InvalidParameter("Status")
	}
	u.Keys[i].Active = status == statusActive
	return nil, nil
}

func deleteAccessKey(c *call) (any, error) {
	u, i, err := c.ownedKey()
	if err != nil {
		return nil, err
	}
	u.Keys = slices.Delete(u.Keys, i, i+1)
	return nil, nil
}

func getAccessKeyLastUsed(c *call) (any, error) {
	u, i, err := c.ownedKey()
	if err != nil {
		return nil, err
	}
	var answer struct {
		AccessKeyLastUsed struct{ LastUsedDate string }
	}
	answer.AccessKeyLastUsed.LastUsedDate = timeText(c.account.lastUse(u.Keys[i].ID))
	return answer, nil
}
