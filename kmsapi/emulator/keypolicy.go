package emulator

import (
	"fmt"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/policy"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

const maxKeyPolicy = 32768 // bytes

// defaultKeyPolicy leaves everything to RAM: its principal is the account.
const defaultKeyPolicy = `{"Version":"1","Statement":[{"Sid":"kms default key policy","Effect":"Allow",` +
	`"Principal":{"RAM":["acs:ram::` + account + `:*"]},"Action":["kms:*"],"Resource":["*"]}]}`

// setPolicy gives the key a policy; an empty text is the default one.
func (k *key) setPolicy(text string) error {
	k.Policy, k.policy = "", policy.Document{}
	if text == "" {
		return nil
	}
	document, err := policy.Parse(text, policy.Key)
	if err != nil {
		return fmt.Errorf("key %s: %w", k.ID, err)
	}
	k.Policy, k.policy = text, document
	return nil
}

// keyPolicy reads the parameter Policy.
func (c *call) keyPolicy() (string, error) {
	text := c.params["Policy"]
	if _, err := policy.Parse(text, policy.Key); text != "" && (err != nil || len(text) > maxKeyPolicy) {
		return "", wire.InvalidParameter("Policy")
	}
	return text, nil
}

func getKeyPolicy(c *call) (any, error) {
	if _, err := c.params.OneOf("PolicyName", "default"); err != nil {
		return nil, err
	}
	k, err := c.key("KeyId", idOnly)
	if err != nil {
		return nil, err
	}
	if k.Policy == "" {
		return struct{ Policy string }{defaultKeyPolicy}, nil
	}
	return struct{ Policy string }{k.Policy}, nil
}

func setKeyPolicy(c *call) (any, error) {
	if _, err := c.params.OneOf("PolicyName", "default"); err != nil {
		return nil, err
	}
	text, err := c.keyPolicy()
	if err != nil {
		return nil, err
	}
	return c.change(func(k *key) error { return k.setPolicy(text) })
}
