package authz

import (
	"fmt"
	"math"
	"os/user"
	"strconv"
)

// noGroup is (gid_t)-1, which no process has.
const noGroup = math.MaxUint32

// LocalCaller returns the caller that a process of a user would be, and with what
// supplementary groups. A user is a name of /etc/passwd, or a uid, which need not
// be there; a group is a name of /etc/group or a gid. Groups are added to those
// that the user has there. The unit is none.
func LocalCaller(userName string, groups []string) (Caller, error) {
	c, err := localUser(userName)
	if err != nil {
		return Caller{}, err
	}
	for _, name := range groups {
		text := name
		if group, err := user.LookupGroup(name); err == nil {
			text = group.Gid
		}
		gid, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return Caller{}, fmt.Errorf("there is no group %.100q in /etc/group: check the name, or give the gid", name)
		}
		c.Groups = append(c.Groups, uint32(gid))
	}
	return c, nil
}

func localUser(name string) (Caller, error) {
	account, err := user.Lookup(name)
	if err == nil {
		return callerOf(account)
	}
	uid, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return Caller{}, fmt.Errorf("there is no user %.100q in /etc/passwd: check the name, or give the uid", name)
	}
	if account, err = user.LookupId(name); err == nil {
		return callerOf(account)
	}
	return Caller{UID: uint32(uid), GID: noGroup}, nil
}

func callerOf(account *user.User) (Caller, error) {
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return Caller{}, fmt.Errorf("user %s in /etc/passwd: %w", account.Username, err)
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return Caller{}, fmt.Errorf("user %s in /etc/passwd: %w", account.Username, err)
	}
	c := Caller{UID: uint32(uid), GID: uint32(gid), User: account.Username}
	groups, err := account.GroupIds()
	if err != nil {
		return Caller{}, fmt.Errorf("groups of %s: %w", account.Username, err)
	}
	for _, text := range groups {
		group, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return Caller{}, fmt.Errorf("groups of %s in /etc/group: %w", account.Username, err)
		}
		c.Groups = append(c.Groups, uint32(group))
	}
	return c, nil
}

// UserName returns the name of a uid in /etc/passwd, "" if it has none there.
func UserName(uid uint32) string {
	account, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return ""
	}
	return account.Username
}
