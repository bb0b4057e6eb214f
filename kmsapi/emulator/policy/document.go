// Package policy reads and evaluates Alibaba Cloud policy documents: those that
// RAM attaches to users and roles, those that say who may assume a role, and the
// key policies of KMS. One reading of the language serves all three, so that the
// emulated RAM and the emulated KMS cannot disagree about what a document says.
//
// The language is that of the RAM documentation's "Policy structure and syntax",
// as far as policies for KMS need it. NotAction, NotResource and NotPrincipal are
// refused rather than misread.
package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Kind is what a document is for; it decides which elements its statements must
// have.
type Kind int

// The kinds.
const (
	Identity Kind = iota // attached to a user or a role: Resource, no Principal
	Trust                // of a role, who may assume it: Principal, no Resource
	Key                  // of a KMS key: Principal, and Resource "*"
)

// Document is a policy that was read and found well formed. The zero value says
// nothing about anything.
type Document struct {
	statements []statement
}

type statement struct {
	Sid       string
	Effect    string
	Action    texts
	Resource  texts
	Principal map[string]texts
	Condition map[string]map[string]texts // operator -> key -> values
}

// texts is one string or an array of them.
type texts []string

// UnmarshalJSON accepts both forms, and booleans, which Condition may hold.
func (t *texts) UnmarshalJSON(data []byte) error {
	var many []json.RawMessage
	if err := json.Unmarshal(data, &many); err != nil {
		many = []json.RawMessage{data}
	}
	for _, raw := range many {
		var one any
		if err := json.Unmarshal(raw, &one); err != nil {
			return err
		}
		switch value := one.(type) {
		case string:
			*t = append(*t, value)
		case bool:
			*t = append(*t, fmt.Sprint(value))
		default:
			return errors.New("neither a string nor a list of strings")
		}
	}
	return nil
}

const (
	allow = "Allow"
	deny  = "Deny"
)

// Parse reads a document of a kind. Its errors say which statement is wrong, and
// how; they are for people, services answer a code without the reason.
func Parse(text string, kind Kind) (Document, error) {
	var raw struct {
		Version   string
		Statement []statement
	}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&raw); err != nil {
		return Document{}, fmt.Errorf("policy document: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Document{}, errors.New("policy document: something follows its end")
	}
	if raw.Version != "1" || len(raw.Statement) == 0 {
		return Document{}, errors.New(`policy document: Version must be "1" and Statement must not be empty`)
	}
	for i, s := range raw.Statement {
		if err := s.check(kind); err != nil {
			return Document{}, fmt.Errorf("policy document: statement %d: %w", i+1, err)
		}
	}
	return Document{raw.Statement}, nil
}

func (s statement) check(kind Kind) error {
	switch {
	case s.Effect != allow && s.Effect != deny:
		return errors.New("the Effect is neither Allow nor Deny")
	case len(s.Action) == 0:
		return errors.New("no Action")
	case kind == Trust && len(s.Resource) > 0, kind != Trust && len(s.Resource) == 0:
		return errors.New("a Resource where none belongs, or none where one does")
	case (kind == Identity) != (len(s.Principal) == 0):
		return errors.New("a Principal where none belongs, or none where one does")
	case kind == Key && !slices.Equal(s.Resource, texts{"*"}):
		return errors.New(`the Resource of a key policy must be "*"`)
	}
	for _, action := range s.Action {
		if kind == Key && !strings.HasPrefix(action, "kms:") {
			return errors.New("an Action of a key policy is not of kms")
		}
		if action != "*" && !strings.Contains(action, ":") {
			return errors.New("an Action is not SERVICE:NAME")
		}
	}
	for operator := range s.Condition {
		if _, ok := operators[operator]; !ok {
			return fmt.Errorf("unknown condition operator %q", operator)
		}
	}
	return nil
}
