package emulator

import (
	"regexp"
	"strings"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// validAlias is the documentation's "Manage a key alias": after the prefix 1 to
// 255 letters, digits, "_", "-" and "/".
var validAlias = regexp.MustCompile(`^alias/[A-Za-z0-9_/-]{1,255}$`)

// reservedAlias begins the aliases that cloud services make.
const reservedAlias = "alias/acs"

func (c *call) aliasName() (string, error) {
	name := c.params["AliasName"]
	if !validAlias.MatchString(name) || strings.HasPrefix(name, reservedAlias) {
		return "", wire.InvalidParameter("AliasName")
	}
	return name, nil
}

func createAlias(c *call) (any, error) { return c.bindAlias(false) }

// updateAlias looks at the state of the key that the alias will name, not of the
// one that it named before.
func updateAlias(c *call) (any, error) { return c.bindAlias(true) }

// bindAlias makes an alias name a key; it must be there already, or must not.
func (c *call) bindAlias(exists bool) (any, error) {
	name, err := c.aliasName()
	if err != nil {
		return nil, err
	}
	k, err := c.key("KeyId", idOnly)
	if err != nil {
		return nil, err
	}
	if err := c.permit(name, nil); err != nil {
		return nil, err
	}
	switch _, ok := c.region.alias(name); {
	case exists && !ok:
		return nil, errAliasNotFound
	case !exists && ok:
		return nil, errAliasExists
	}
	return nil, c.region.commit(batch{aliases: map[string]string{name: k.ID}})
}

func deleteAlias(c *call) (any, error) {
	name, err := c.aliasName()
	if err != nil {
		return nil, err
	}
	if err := c.permit(name, nil); err != nil {
		return nil, err
	}
	id, ok := c.region.alias(name)
	if !ok {
		return nil, errAliasNotFound
	}
	if k, ok := c.region.key(id); ok {
		if err := c.permitKey(k); err != nil {
			return nil, err
		}
	}
	return nil, c.region.commit(batch{aliases: map[string]string{name: ""}})
}

func listAliases(c *call) (any, error) {
	p, err := c.params.Page(0, 100)
	if err != nil {
		return nil, err
	}
	list := wire.AliasList{Page: p}
	list.Aliases.Alias = wire.Cut(&list.Page, c.region.aliasesOf(""))
	return list, nil
}

func listAliasesByKeyID(c *call) (any, error) {
	p, err := c.params.Page(0, 101)
	if err != nil {
		return nil, err
	}
	k, err := c.key("KeyId", idOnly)
	if err != nil {
		return nil, err
	}
	list := wire.AliasList{Page: p}
	list.Aliases.Alias = wire.Cut(&list.Page, c.region.aliasesOf(k.ID))
	return list, nil
}
