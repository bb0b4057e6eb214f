package ram

import (
	"maps"
	"slices"
)

// userInfo is User of the API.
type userInfo struct {
	UserID      string `json:"UserId"`
	UserName    string
	DisplayName string
	MobilePhone string
	Email       string
	Comments    string
	CreateDate  string
	UpdateDate  string `json:",omitempty"`
	// LastLoginDate is of the console, to which nobody logs in here.
	LastLoginDate *string `json:",omitempty"`
}

func (u *user) info() userInfo {
	return userInfo{
		UserID: u.UserID, UserName: u.UserName, DisplayName: u.DisplayName, MobilePhone: u.MobilePhone,
		Email: u.Email, Comments: u.Comments, CreateDate: timeText(u.CreatedAt),
	}
}

// detailed is what GetUser shows beyond what others do.
func (u *user) detailed() userInfo {
	info := u.info()
	info.UpdateDate, info.LastLoginDate = timeText(u.UpdatedAt), new(string)
	return info
}

type oneUser struct{ User userInfo }

func (c *call) user() (*user, error) {
	u, ok := c.state.Users[c.params["UserName"]]
	if !ok {
		return nil, errNoUser
	}
	return u, nil
}

func createUser(c *call) (any, error) {
	name := c.params["UserName"]
	if err := userNames.check(name); err != nil {
		return nil, err
	}
	u := &user{
		UserID: newNumber(), UserName: name, CreatedAt: c.now, UpdatedAt: c.now,
		MobilePhone: c.params["MobilePhone"], Email: c.params["Email"],
	}
	var err error
	if u.DisplayName, err = c.text("DisplayName", maxComment); err != nil {
		return nil, err
	}
	if u.Comments, err = c.text("Comments", maxComment); err != nil {
		return nil, err
	}
	if _, ok := c.state.Users[name]; ok {
		return nil, errUserExists
	}
	if len(c.state.Users) >= maxUsers {
		return nil, errUserLimit
	}
	c.state.Users[name] = u
	return oneUser{u.info()}, nil
}

func getUser(c *call) (any, error) {
	u, err := c.user()
	if err != nil {
		return nil, err
	}
	return oneUser{u.detailed()}, nil
}

func updateUser(c *call) (any, error) {
	u, err := c.user()
	if err != nil {
		return nil, err
	}
	for param, field := range map[string]*string{
		"NewDisplayName": &u.DisplayName, "NewComments": &u.Comments, "NewMobilePhone": &u.MobilePhone, "NewEmail": &u.Email,
	} {
		text, err := c.text(param, maxComment)
		if err != nil {
			return nil, err
		}
		if text != "" {
			*field = text
		}
	}
	if name := c.params["NewUserName"]; name != "" && name != u.UserName {
		if err := userNames.check(name); err != nil {
			return nil, err
		}
		if _, ok := c.state.Users[name]; ok {
			return nil, errUserExists
		}
		delete(c.state.Users, u.UserName)
		u.UserName, c.state.Users[name] = name, u
	}
	u.UpdatedAt = c.now
	return oneUser{u.detailed()}, nil
}

func deleteUser(c *call) (any, error) {
	u, err := c.user()
	switch {
	case err != nil:
		return nil, err
	case len(u.Keys) > 0:
		return nil, errUserHasKeys
	case len(u.Attached) > 0:
		return nil, errUserHasPolicies
	}
	delete(c.state.Users, u.UserName)
	return nil, nil
}

func listUsers(c *call) (any, error) {
	names, p, err := c.listPage(slices.Collect(maps.Keys(c.state.Users)))
	if err != nil {
		return nil, err
	}
	answer := struct {
		paging
		Users struct{ User []userInfo }
	}{paging: p}
	answer.Users.User = []userInfo{}
	for _, name := range names {
		answer.Users.User = append(answer.Users.User, c.state.Users[name].info())
	}
	return answer, nil
}
