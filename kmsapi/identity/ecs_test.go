package identity

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	metadataToken = "metadata-token-secret"
	roleSecret    = "role-secret"
	roleToken     = "role-token-secret"
)

// imds is the metadata service of an instance with the role kms.
type imds struct {
	mu       sync.Mutex
	hardened bool // hardened mode is known
	demands  bool // and nothing else is allowed
	requests []string
}

func (m *imds) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests = append(m.requests, r.Method+" "+r.URL.Path)
	if r.Method == http.MethodPut {
		ttl := r.Header.Get("X-aliyun-ecs-metadata-token-ttl-seconds")
		if !m.hardened || r.URL.Path != "/latest/api/token" || ttl == "" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintln(w, metadataToken)
		return
	}
	token := r.Header.Get("X-aliyun-ecs-metadata-token")
	if token != "" && token != metadataToken || token == "" && m.demands {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	switch r.URL.Path {
	case "/latest/meta-data/ram/security-credentials/":
		fmt.Fprint(w, "kms")
	case "/latest/meta-data/ram/security-credentials/kms":
		fmt.Fprint(w, credentialsJSON(time.Now().Add(time.Hour)))
	default:
		http.NotFound(w, r)
	}
}

func credentialsJSON(expires time.Time) string {
	return fmt.Sprintf(`{"Code":"Success","AccessKeyId":"STS.role","AccessKeySecret":%q,"SecurityToken":%q,"Expiration":%q,"LastUpdated":"2026-01-01T00:00:00Z"}`,
		roleSecret, roleToken, expires.UTC().Format(kmsapi.TimeLayout))
}

// ecs makes a source of a metadata service.
func ecs(t *testing.T, role string, handler http.Handler) *Source {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	s, err := ECSRole(ECSConfig{RoleName: role, Metadata: server.URL, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestECSRole(t *testing.T) {
	const base = "/latest/meta-data/ram/security-credentials/"
	tests := []struct {
		name, role string
		service    *imds
		requests   []string
	}{
		{"hardened", "kms", &imds{hardened: true, demands: true}, []string{"PUT /latest/api/token", "GET " + base + "kms"}},
		{"role discovered", "", &imds{hardened: true, demands: true}, []string{"PUT /latest/api/token", "GET " + base, "GET " + base + "kms"}},
		{"normal mode", "kms", &imds{}, []string{"PUT /latest/api/token", "GET " + base + "kms"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ecs(t, tt.role, tt.service).Credentials(t.Context())
			if want := (kmsapi.Credentials{AccessKeyID: "STS.role", AccessKeySecret: roleSecret, SecurityToken: roleToken}); err != nil || got != want {
				t.Errorf("got %v, %v", got, err)
			}
			if fmt.Sprint(tt.service.requests) != fmt.Sprint(tt.requests) {
				t.Errorf("requests %q, want %q", tt.service.requests, tt.requests)
			}
		})
	}
}

func TestECSRoleFailures(t *testing.T) {
	good := credentialsJSON(time.Now().Add(time.Hour))
	answer := func(text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				fmt.Fprint(w, metadataToken)
				return
			}
			fmt.Fprint(w, text)
		})
	}
	elsewhere := httptest.NewServer(answer(good))
	defer elsewhere.Close()
	tests := []struct {
		name, role string
		service    http.Handler
		says       string
	}{
		{"no role", "", http.NotFoundHandler(), "is a RAM role of that name attached"},
		{"another role", "backup", &imds{hardened: true}, "HTTP status 404"},
		{"token demanded and not given", "kms", &imds{demands: true}, "HTTP status 403"},
		{"broken", "kms", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }), "PUT http://127.0.0.1"},
		{"redirect", "kms", http.RedirectHandler(elsewhere.URL, http.StatusFound), "HTTP status 302"},
		{"odd role", "", answer("a\nb " + roleSecret), "not the name of a role"},
		{"not JSON", "kms", answer("<html>" + roleSecret), "not the JSON object"},
		{"no code", "kms", answer(strings.Replace(good, "Success", "Failed", 1)), "Code is not Success"},
		{"null", "kms", answer("null"), "Code is not Success"},
		{"no expiry", "kms", answer(strings.Replace(good, "Expiration", "X", 1)), "the answer lacks"},
		{"no token", "kms", answer(strings.Replace(good, "SecurityToken", "X", 1)), "the answer lacks"},
		{"expired", "kms", answer(credentialsJSON(time.Now().Add(-time.Hour))), "clock"},
		{"endless", "kms", answer(strings.Repeat(roleSecret, maxMetadata)), "longer than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ecs(t, tt.role, tt.service).Credentials(t.Context())
			e, ok := errors.AsType[*Error](err)
			if !ok || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("got %v, want %q", err, tt.says)
			}
			if e.Source != ecsSource {
				t.Errorf("source %q", e.Source)
			}
			for _, secret := range []string{roleSecret, roleToken, metadataToken} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%q leaks in %v", secret, err)
				}
			}
		})
	}
}

func TestECSConfiguration(t *testing.T) {
	for _, config := range []ECSConfig{
		{RoleName: "../token"}, {RoleName: "a b"}, {Metadata: "http://host/path"}, {Metadata: "ftp://host"},
	} {
		if _, err := ECSRole(config); err == nil {
			t.Errorf("%+v was taken", config)
		}
	}
}

func FuzzParseMetadata(f *testing.F) {
	f.Add([]byte(credentialsJSON(time.Now())))
	f.Add([]byte(`{"Code":null}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parseMetadata(data)
		if err != nil {
			return
		}
		if c := got.credentials(); c.AccessKeyID == "" || c.AccessKeySecret == "" || c.SecurityToken == "" || got.expires.IsZero() {
			t.Errorf("incomplete: %v until %v", c, got.expires)
		}
	})
}
