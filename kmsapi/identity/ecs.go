package identity

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// ECSConfig says which role of the instance to use.
type ECSConfig struct {
	// RoleName is asked of the metadata service when it is empty.
	RoleName string
	// Metadata is "http://host[:port]" of the metadata service; empty means
	// DefaultMetadata.
	Metadata string
	Log      *slog.Logger // of fetches that fail; nil: none
}

// DefaultMetadata is the metadata service of every ECS instance.
const DefaultMetadata = "http://100.100.100.200"

const (
	ecsSource       = "ECS RAM role"
	credentialsPath = "/latest/meta-data/ram/security-credentials/" //nolint:gosec // a path, no credential
	tokenPath       = "/latest/api/token"                           //nolint:gosec // a path, no token
	// tokenLife is as long as a token for the metadata service is needed, in
	// seconds; each fetch takes a new one.
	tokenLife      = "60"
	maxMetadata    = 64 << 10
	metadataDialer = 2 * time.Second
)

// ECSRole gives the credentials of the RAM role that is attached to this ECS
// instance. It speaks to the metadata service in security hardening mode and,
// where that is not known, in normal mode ("Access instance metadata", ECS
// documentation). It contacts nothing yet. Close the source.
func ECSRole(config ECSConfig) (*Source, error) {
	if config.RoleName != "" && !roleName.MatchString(config.RoleName) {
		return nil, fmt.Errorf("role %.100q is not the name of a RAM role", config.RoleName)
	}
	endpoint, err := kmsapi.ParseEndpoint(cmp.Or(config.Metadata, DefaultMetadata))
	if err != nil {
		return nil, fmt.Errorf("metadata service: %w", err)
	}
	m := &metadata{base: endpoint.String(), role: config.RoleName}
	return newSource(ecsSource, config.Log, m.fetch), nil
}

// metadata is the metadata service.
type metadata struct {
	base string
	role string // "" to be asked for
}

// fetch takes a connection of its own, which no proxy and no redirect leads
// elsewhere.
func (m *metadata) fetch(ctx context.Context) (session, error) {
	transport := &http.Transport{
		DialContext:       (&net.Dialer{Timeout: metadataDialer}).DialContext,
		DisableKeepAlives: true, MaxResponseHeaderBytes: maxMetadata,
	}
	v := &visit{base: m.base, http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	got, err := v.credentials(ctx, m.role)
	if err != nil {
		return session{}, &Error{Source: ecsSource, Tried: v.tried, Hint: v.hint, Err: err}
	}
	return got, nil
}

// visit is one fetch.
type visit struct {
	base  string
	http  *http.Client
	token string // "" in normal mode
	tried string
	hint  string
}

func (v *visit) credentials(ctx context.Context, role string) (session, error) {
	if err := v.authenticate(ctx); err != nil {
		return session{}, err
	}
	if role == "" {
		answer, err := v.get(ctx, credentialsPath)
		if err != nil {
			return session{}, err
		}
		if role = strings.TrimSpace(string(answer)); !roleName.MatchString(role) {
			return session{}, errors.New("the answer is not the name of a role")
		}
	}
	answer, err := v.get(ctx, credentialsPath+role)
	if err != nil {
		return session{}, err
	}
	defer clear(answer)
	return parseMetadata(answer)
}

// authenticate asks for a token. A service that does not know how is spoken to
// without one; one that demands a token will say so.
func (v *visit) authenticate(ctx context.Context) error {
	status, answer, err := v.do(ctx, http.MethodPut, tokenPath, "X-Aliyun-Ecs-Metadata-Token-Ttl-Seconds", tokenLife)
	switch {
	case err != nil:
		v.hint = "is this an ECS instance?"
		return err
	case status == http.StatusOK:
		v.token = strings.TrimSpace(string(answer))
		return nil
	case status/100 == 4:
		return nil
	}
	return fmt.Errorf("HTTP status %d", status)
}

func (v *visit) get(ctx context.Context, path string) ([]byte, error) {
	header := ""
	if v.token != "" {
		header = "X-Aliyun-Ecs-Metadata-Token"
	}
	status, answer, err := v.do(ctx, http.MethodGet, path, header, v.token)
	if err == nil && status == http.StatusOK {
		return answer, nil
	}
	if err == nil {
		err = fmt.Errorf("HTTP status %d", status)
		v.hint = "is a RAM role of that name attached to this instance?"
	}
	return nil, err
}

func (v *visit) do(ctx context.Context, method, path, header, value string) (status int, answer []byte, err error) {
	v.tried = method + " " + v.base + path
	req, err := http.NewRequestWithContext(ctx, method, v.base+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if header != "" {
		req.Header.Set(header, value)
	}
	resp, err := v.http.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxMetadata+1))
	if err == nil && len(answer) > maxMetadata {
		err = fmt.Errorf("the answer is longer than %d bytes", maxMetadata)
	}
	return resp.StatusCode, answer, err
}

// parseMetadata reads the credentials of a role. It quotes nothing.
func parseMetadata(answer []byte) (session, error) {
	var a struct {
		Code            string
		AccessKeyID     string `json:"AccessKeyId"`
		AccessKeySecret string
		SecurityToken   string
		Expiration      string
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return session{}, errors.New("the answer is not the JSON object of a role's credentials")
	}
	if a.Code != "Success" {
		return session{}, errors.New("the answer's Code is not Success")
	}
	return newSession(kmsapi.Credentials{
		AccessKeyID: a.AccessKeyID, AccessKeySecret: a.AccessKeySecret, SecurityToken: a.SecurityToken,
	}, a.Expiration)
}
