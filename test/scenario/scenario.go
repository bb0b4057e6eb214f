// Package scenario holds one conversation with the emulated Alibaba Cloud and the
// clients that hold it: the Go SDKs v1 and v2 and npm's pop-core. They share the
// file scenario.json and nothing else that could make them agree, so that a step
// which one of them gets answered differently is seen.
package scenario

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // RSAES_OAEP_SHA_1 is part of the API
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

//go:embed scenario.json
var file []byte

// Scenario is the file, with the matrix written out as steps.
type Scenario struct {
	Region     string                       `json:"region"`
	Materials  map[string]string            `json:"materials"`
	Identities map[string]map[string]string `json:"identities"`
	Steps      []Step                       `json:"steps"`
	Matrix     *matrix                      `json:"matrix,omitempty"`
	About      string                       `json:"about"`
}

// Step is one request and what must come of it.
type Step struct {
	Name    string            `json:"name"`
	As      string            `json:"as,omitempty"`      // root when empty
	Product string            `json:"product,omitempty"` // Kms when empty
	Region  string            `json:"region,omitempty"`
	Action  string            `json:"action,omitempty"`
	Params  map[string]any    `json:"params,omitempty"`
	Status  int               `json:"status,omitempty"` // 200 when 0
	Code    string            `json:"code,omitempty"`
	Expect  map[string]any    `json:"expect,omitempty"`
	Capture map[string]string `json:"capture,omitempty"`
	Faults  []map[string]any  `json:"faults,omitempty"` // set these instead of calling
}

// Versions are the versions of the APIs by product.
var Versions = map[string]string{"Kms": "2016-01-20", "Ram": "2015-05-01", "Sts": "2015-04-01"}

// Load reads the file.
func Load() (*Scenario, error) {
	var s Scenario
	if err := json.Unmarshal(file, &s); err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	steps, err := s.Matrix.steps()
	if err != nil {
		return nil, fmt.Errorf("scenario: matrix: %w", err)
	}
	s.Steps, s.Matrix = append(s.Steps, steps...), nil
	s.complete()
	return &s, nil
}

// complete sets what a step leaves out.
func (s *Scenario) complete() {
	for i, step := range s.Steps {
		if step.Product == "" {
			s.Steps[i].Product = "Kms"
		}
		if step.Status == 0 {
			s.Steps[i].Status = http.StatusOK
		}
		if step.As == "" {
			s.Steps[i].As = "root"
		}
		if step.Region == "" {
			s.Steps[i].Region = s.Region
		}
	}
}

// matrix is every operation on a key in every state.
type matrix struct {
	About   string            `json:"about"`
	States  []string          `json:"states"`
	Subject []Step            `json:"subject"`
	Enter   map[string][]Step `json:"enter"`
	Rows    []row             `json:"rows"`
}

type row struct {
	Action string            `json:"action"`
	Params map[string]any    `json:"params"`
	Want   []string          `json:"want"`
	Undo   map[string][]Step `json:"undo"`
}

// steps writes the matrix out: for each state a key, and for each row the call,
// what undoes it, and a look at the state.
func (m *matrix) steps() ([]Step, error) {
	var all []Step
	for column, state := range m.States {
		part := slices.Concat(m.Subject, m.Enter[state])
		look := Step{Name: "still " + state, Action: "DescribeKey", Params: map[string]any{"KeyId": "${key}"}, Expect: map[string]any{"KeyMetadata.KeyState": state}}
		part = append(part, look)
		for _, r := range m.Rows {
			if len(r.Want) != len(m.States) {
				return nil, fmt.Errorf("%s has %d cells", r.Action, len(r.Want))
			}
			cell := Step{Name: r.Action + " in " + state, Action: r.Action, Params: r.Params, Code: r.Want[column]}
			switch {
			case cell.Code == "UnsupportedOperation":
				cell.Status = http.StatusBadRequest
			case cell.Code != "":
				cell.Status = http.StatusConflict
			}
			part = append(append(append(part, cell), r.Undo[state]...), look)
		}
		for _, step := range part {
			step.Params = expand(step.Params, func(name string) string {
				if name == "state" {
					return state
				}
				return "${" + name + "}"
			}).(map[string]any)
			all = append(all, step)
		}
	}
	return all, nil
}

var variable = regexp.MustCompile(`\$\{([^}]+)\}`)

// expand replaces variables in every text of a JSON value.
func expand(value any, lookup func(name string) string) any {
	switch v := value.(type) {
	case string:
		return variable.ReplaceAllStringFunc(v, func(m string) string { return lookup(m[2 : len(m)-1]) })
	case map[string]any:
		result := map[string]any{}
		for name, element := range v {
			result[name] = expand(element, lookup)
		}
		return result
	case []any:
		result := make([]any, len(v))
		for i, element := range v {
			result[i] = expand(element, lookup)
		}
		return result
	}
	return value
}

// Answer is what a client makes of an answer.
type Answer struct {
	Status int
	Code   string
	Body   map[string]any // of a success, as the client decoded it
}

// Identity is an AccessKey, with the token of temporary credentials.
type Identity struct{ ID, Secret, Token string }

// Client is one of the clients under test.
type Client interface {
	// Call makes one call. params are JSON: texts, numbers, truths, objects
	// and lists. An error says that the client itself could not do it.
	Call(who Identity, step Step, params map[string]any) (Answer, error)
}

// Run is a scenario on its way through a client.
type Run struct {
	scenario  *Scenario
	client    Client
	variables map[string]string
	setFaults func(rules []map[string]any) error
}

// NewRun starts at the first step, as the root given.
func NewRun(s *Scenario, client Client, root Identity, setFaults func([]map[string]any) error) *Run {
	return &Run{s, client, map[string]string{"rootID": root.ID, "rootSecret": root.Secret}, setFaults}
}

// Do does one step and compares.
func (r *Run) Do(step Step) error {
	if step.Faults != nil {
		return r.setFaults(step.Faults)
	}
	identity := r.scenario.Identities[step.As]
	var unknown error
	lookup := func(name string) string {
		value, err := r.value(name)
		if err != nil {
			unknown = err
		}
		return value
	}
	who := Identity{}
	for name, field := range map[string]*string{"id": &who.ID, "secret": &who.Secret, "token": &who.Token} {
		*field = expand(identity[name], lookup).(string)
	}
	params := expand(step.Params, lookup).(map[string]any)
	expected := expand(step.Expect, lookup).(map[string]any)
	if unknown != nil {
		return unknown
	}
	answer, err := r.client.Call(who, step, params)
	if err != nil {
		return err
	}
	if answer.Status != step.Status || answer.Code != step.Code {
		return fmt.Errorf("answered %d %q, want %d %q", answer.Status, answer.Code, step.Status, step.Code)
	}
	for _, path := range slices.Sorted(maps.Keys(expected)) {
		got := at(answer.Body, path)
		want := expected[path]
		if text, isText := got.(string); want == "*" && isText && text != "" {
			continue
		}
		if got == nil && (want == "" || want == 0.0) {
			continue // SDK v2 leaves out what is empty
		}
		if fmt.Sprintf("%T %v", got, got) != fmt.Sprintf("%T %v", want, want) {
			return fmt.Errorf("%s is %T %v, want %T %v", path, got, got, want, want)
		}
	}
	for name, path := range step.Capture {
		text, ok := at(answer.Body, path).(string)
		if !ok || text == "" {
			return fmt.Errorf("there is no %s to capture", path)
		}
		r.variables[name] = text
	}
	return nil
}

// value is what a variable stands for.
func (r *Run) value(name string) (string, error) {
	if parts := strings.Split(name, ":"); parts[0] == "wrap" && len(parts) == 4 {
		return wrap(parts[1], r.variables[parts[2]], r.scenario.Materials[parts[3]])
	}
	value, ok := r.variables[name]
	if !ok {
		return "", fmt.Errorf("no step captured %q", name)
	}
	return value, nil
}

// at follows a path of names, indexes and # through decoded JSON.
func at(value any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		switch v := value.(type) {
		case map[string]any:
			value = v[name]
		case []any:
			i, err := strconv.Atoi(name)
			switch {
			case name == "#":
				value = float64(len(v))
			case err != nil || i >= len(v):
				return nil
			default:
				value = v[i]
			}
		default:
			return nil
		}
	}
	return value
}

// wrap encrypts material in hex under a public key as KMS gives it out.
func wrap(algorithm, public, material string) (string, error) {
	der, err := base64.StdEncoding.DecodeString(public)
	if err != nil {
		return "", err
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return "", err
	}
	data, err := hex.DecodeString(material)
	if err != nil {
		return "", err
	}
	hashes := map[string]func() hash.Hash{"RSAES_OAEP_SHA_256": sha256.New, "RSAES_OAEP_SHA_1": sha1.New}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok || hashes[algorithm] == nil {
		return "", fmt.Errorf("cannot wrap with %s", algorithm)
	}
	wrapped, err := rsa.EncryptOAEP(hashes[algorithm](), rand.Reader, key, data, nil)
	return base64.StdEncoding.EncodeToString(wrapped), err
}
