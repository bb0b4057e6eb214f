package emulator

import (
	"strings"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

const aliasPrefix = "alias/"

// naming is how an operation lets its key be named.
type naming bool

const (
	idOnly    naming = false // by ID or ARN
	idOrAlias naming = true  // by an alias or its ARN as well
)

// key finds the key that a parameter names, if the operation works in its state.
func (c *call) key(param string, by naming) (*key, error) {
	k, err := c.find(param, by)
	if err != nil {
		return nil, err
	}
	return k, c.op.states.check(k.State)
}

// find finds the key that a parameter names, if the caller may do with it what
// the call does. An alias needs no permission of its own.
func (c *call) find(param string, by naming) (*key, error) {
	id := c.params[param]
	if id == "" {
		return nil, wire.MissingParameter(param)
	}
	if resource, ok := strings.CutPrefix(id, c.region.arn("")); ok {
		id = strings.TrimPrefix(resource, "key/")
	}
	if strings.HasPrefix(id, aliasPrefix) {
		if by == idOnly {
			return nil, errAliasUnsupported
		}
		keyID, ok := c.region.alias(id)
		if !ok {
			return nil, errAliasNotFound
		}
		id = keyID
	}
	k, ok := c.region.key(id)
	if !ok || !c.sees(k) {
		return nil, errKeyNotFound
	}
	if err := c.permitKey(k); err != nil {
		return nil, err
	}
	return k, c.reach(k)
}
