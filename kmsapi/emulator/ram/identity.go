package ram

import (
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/policy"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// Identity is who signed a request, with the policies that held at that moment.
// The zero Identity is nobody and may do nothing.
type Identity struct {
	ARN         string // "acs:ram::ACCOUNT:user/alice"
	root        bool
	id          string // UserId, or RoleId:SESSION
	user        string // name, empty for others
	role        string // name, empty for others
	names       []string
	documents   []policy.Document
	session     *policy.Document // narrows a role's session
	accessKeyID string
}

// Root reports whether the account itself signed.
func (id Identity) Root() bool { return id.root }

// Names are the names by which a key policy or a trust policy may mean the
// caller.
func (id Identity) Names() []string { return id.names }

// Evaluate says what the policies of the caller say of a request. What a session
// policy does not allow is denied, because no other policy can give it back.
func (id Identity) Evaluate(r policy.Request) policy.Verdict {
	if id.root {
		return policy.Allowed
	}
	if id.session != nil && id.session.Evaluate(r) != policy.Allowed {
		return policy.Denied
	}
	verdicts := make([]policy.Verdict, 0, len(id.documents))
	for _, d := range id.documents {
		verdicts = append(verdicts, d.Evaluate(r))
	}
	return policy.Combine(verdicts...)
}

// Secret implements [wire.Secrets].
func (a *Account) Secret(accessKeyID, securityToken string) (string, error) {
	if securityToken != "" {
		t, err := a.openToken(accessKeyID, securityToken)
		return t.Secret, err
	}
	if accessKeyID == a.cfg.RootID {
		return a.cfg.RootSecret, nil
	}
	k, _, err := a.state.Load().accessKey(accessKeyID)
	return k.Secret, err
}

// Identify says whom an AccessKey belongs to.
func (a *Account) Identify(accessKeyID, securityToken string) (Identity, error) {
	s := a.state.Load()
	if securityToken != "" {
		t, err := a.openToken(accessKeyID, securityToken)
		if err != nil {
			return Identity{}, err
		}
		return a.sessionIdentity(s, t)
	}
	if accessKeyID == a.cfg.RootID {
		return Identity{ARN: a.arn("root"), root: true, id: a.cfg.ID, accessKeyID: accessKeyID, names: []string{a.arn("root"), a.arn("*")}}, nil
	}
	_, u, err := s.accessKey(accessKeyID)
	if err != nil {
		return Identity{}, err
	}
	a.used(accessKeyID)
	arn := a.arn("user/" + u.UserName)
	return Identity{
		ARN: arn, id: u.UserID, user: u.UserName, names: []string{arn}, documents: s.attached(u.Attached), accessKeyID: accessKeyID,
	}, nil
}

func (a *Account) used(accessKeyID string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lastUsed[accessKeyID] = a.cfg.Now()
}

func (a *Account) lastUse(accessKeyID string) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lastUsed[accessKeyID]
}

// accessKey finds a permanent AccessKey that is active.
func (s *state) accessKey(id string) (accessKey, *user, error) {
	if isTemporary(id) {
		return accessKey{}, nil, wire.ErrMissingSecurityToken
	}
	u, ok := s.owners[id]
	if !ok {
		return accessKey{}, nil, wire.ErrUnknownAccessKey
	}
	i, _ := u.key(id)
	if !u.Keys[i].Active {
		return accessKey{}, nil, wire.ErrInactiveAccessKey
	}
	return u.Keys[i], u, nil
}
