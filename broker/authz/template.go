package authz

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Template is the value that an entry of the encryption context must have. In it
// {user}, {uid}, {unit} and {app} stand for what the caller is.
type Template struct {
	text  string
	parts []string // texts, and what stands for something else as in variables
}

// What can stand in a template.
const (
	userVariable = "{user}" // the name of the caller's uid in /etc/passwd
	uidVariable  = "{uid}"  // in decimal
	unitVariable = "{unit}" // with its suffix: payments.service
	appVariable  = "{app}"  // the application's name
)

var variables = []string{userVariable, uidVariable, unitVariable, appVariable}

// ParseTemplate reads a template. A brace has no other use in it.
func ParseTemplate(text string) (Template, error) {
	t := Template{text: text}
	for rest := text; rest != ""; {
		open := strings.IndexByte(rest, '{')
		if open < 0 {
			open = len(rest)
		}
		if strings.Contains(rest[:open], "}") {
			return Template{}, fmt.Errorf("%q has a brace that is not opened; there are %s", text, strings.Join(variables, ", "))
		}
		if open > 0 {
			t.parts = append(t.parts, rest[:open])
			rest = rest[open:]
			continue
		}
		i := slices.IndexFunc(variables, func(v string) bool { return strings.HasPrefix(rest, v) })
		if i < 0 {
			return Template{}, fmt.Errorf("%q has a brace that means nothing; there are %s", text, strings.Join(variables, ", "))
		}
		t.parts = append(t.parts, variables[i])
		rest = rest[len(variables[i]):]
	}
	return t, nil
}

// String returns the template as it was written.
func (t Template) String() string { return t.text }

// expand returns the value for a caller, false if the caller is not known well
// enough. An application has a name and nothing else, and nobody else has that.
func (t Template) expand(c *Caller) (value string, known bool) {
	var b strings.Builder
	for _, part := range t.parts {
		switch part {
		case appVariable:
			part = c.App
		case userVariable:
			part = ofProcess(c, c.User)
		case uidVariable:
			part = ofProcess(c, strconv.FormatUint(uint64(c.UID), 10))
		case unitVariable:
			part = ofProcess(c, c.Unit.Name)
		}
		if part == "" {
			return "", false
		}
		b.WriteString(part)
	}
	return b.String(), true
}

// ofProcess is what the kernel says of a caller; of an application it says nothing.
func ofProcess(c *Caller, value string) string {
	if c.App != "" {
		return ""
	}
	return value
}
