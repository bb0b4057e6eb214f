package config

import (
	"fmt"
	"os/user"
	"strconv"
)

// accounts resolves the names of local users and groups. Without cgo the
// system's are those of /etc/passwd and /etc/group; accounts of a directory
// service are granted by number.
type accounts struct {
	user  func(name string) (uint32, error)
	group func(name string) (uint32, error)
}

var systemAccounts = accounts{
	user: func(name string) (uint32, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return 0, fmt.Errorf("there is no user %q in /etc/passwd: check the name, or give the uid as a number", name)
		}
		return parseID(u.Uid)
	},
	group: func(name string) (uint32, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return 0, fmt.Errorf("there is no group %q in /etc/group: check the name, or give the gid as a number", name)
		}
		return parseID(g.Gid)
	},
}

func parseID(text string) (uint32, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	return uint32(id), err
}
