package ram

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/policy"
)

const (
	headerToken    = "X-Aliyun-Ecs-Metadata-Token"             //nolint:gosec // the name of a header
	headerTTL      = "X-Aliyun-Ecs-Metadata-Token-Ttl-Seconds" //nolint:gosec // the name of a header
	maxMetadataTTL = 21600                                     // seconds
	// instanceSession is how long the credentials of an instance are good.
	instanceSession = 6 * time.Hour
	instanceName    = "instance-metadata"
)

// ecsPrincipal is the service that an instance's role has to trust.
const ecsPrincipal = "ecs.aliyuncs.com"

// metadata is the metadata service of an ECS instance, as far as credentials go.
type metadata struct {
	account *Account
	role    string

	mu     sync.Mutex
	tokens map[string]time.Time // when each token ends
}

// Metadata is the service that an ECS instance finds at
// http://100.100.100.200, with the credentials of the one role that the instance
// has; the role must trust ecs.aliyuncs.com. Only the hardened mode is served:
// without a token from PUT /latest/api/token there is nothing to read.
func (a *Account) Metadata(role string) http.Handler {
	m := &metadata{account: a, role: role, tokens: map[string]time.Time{}}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /latest/api/token", m.newToken)
	mux.HandleFunc("GET /latest/meta-data/ram/security-credentials/{$}", m.guard(func(w http.ResponseWriter) error {
		_, err := w.Write([]byte(m.role))
		return err
	}))
	mux.HandleFunc("GET /latest/meta-data/ram/security-credentials/"+role, m.guard(m.credentials))
	return mux
}

func (m *metadata) newToken(w http.ResponseWriter, r *http.Request) {
	ttl, err := strconv.Atoi(r.Header.Get(headerTTL))
	if err != nil || ttl < 1 || ttl > maxMetadataTTL {
		http.Error(w, "400 - Bad Request", http.StatusBadRequest)
		return
	}
	token := rand.Text()
	now := m.account.cfg.Now()
	m.mu.Lock()
	for t, ends := range m.tokens {
		if !now.Before(ends) {
			delete(m.tokens, t)
		}
	}
	m.tokens[token] = now.Add(time.Duration(ttl) * time.Second)
	m.mu.Unlock()
	if _, err := w.Write([]byte(token)); err != nil {
		return // the instance went away
	}
}

func (m *metadata) guard(serve func(http.ResponseWriter) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		ends, ok := m.tokens[r.Header.Get(headerToken)]
		m.mu.Unlock()
		if !ok || !m.account.cfg.Now().Before(ends) {
			http.Error(w, "403 - Forbidden", http.StatusForbidden)
			return
		}
		if err := serve(w); err != nil {
			http.Error(w, "404 - Not Found", http.StatusNotFound)
		}
	}
}

func (m *metadata) credentials(w http.ResponseWriter) error {
	s := m.account.state.Load()
	r, ok := s.Roles[m.role]
	if !ok {
		return errNoRole
	}
	q := policy.Request{Action: assumeRoleAction, Principals: map[string][]string{"Service": {ecsPrincipal}}}
	if s.trusts[m.role].Evaluate(q) != policy.Allowed {
		return errNoPermission
	}
	now := m.account.cfg.Now().UTC().Truncate(time.Second)
	session, err := m.account.newSession(r, instanceName, "", now.Add(instanceSession))
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(struct {
		Session
		LastUpdated string
		Code        string
	}{session, timeText(now), "Success"})
}
