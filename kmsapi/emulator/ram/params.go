package ram

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/policy"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

var (
	userNames   = nameRule{"UserName", 64, regexp.MustCompile(`^[A-Za-z0-9._-]+$`)}
	roleNames   = nameRule{"RoleName", 64, regexp.MustCompile(`^[A-Za-z0-9._-]+$`)}
	policyNames = nameRule{"PolicyName", 128, regexp.MustCompile(`^[A-Za-z0-9-]+$`)}
)

// nameRule is what a name must look like.
type nameRule struct {
	param string
	most  int // characters
	chars *regexp.Regexp
}

func (n nameRule) check(name string) error {
	switch {
	case name == "" || utf8.RuneCountInString(name) > n.most:
		return refusal(http.StatusBadRequest, "InvalidParameter."+n.param+".Length", "The length of the name is not valid.")
	case !n.chars.MatchString(name):
		return refusal(http.StatusBadRequest, "InvalidParameter."+n.param+".InvalidChars", "The name has characters that are not valid.")
	}
	return nil
}

// text returns a parameter of no more than most characters.
func (c *call) text(name string, most int) (string, error) {
	text := c.params[name]
	if utf8.RuneCountInString(text) > most {
		return "", refusal(http.StatusBadRequest, "InvalidParameter."+name+".Length", "The parameter is too long.")
	}
	return text, nil
}

// document returns a policy document that was found well formed.
func (c *call) document(param string, kind policy.Kind) (string, error) {
	text := c.params[param]
	if utf8.RuneCountInString(text) > maxDocument {
		return "", errDocumentLength
	}
	if _, err := policy.Parse(text, kind); err != nil {
		return "", errDocument
	}
	return text, nil
}

// flag returns a parameter that is true or false; without it, false.
func (c *call) flag(name string) (bool, error) {
	switch strings.ToLower(c.params[name]) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, wire.InvalidParameter(name)
}

// integer returns a decimal parameter between least and most; without it, absent.
func (c *call) integer(name string, absent, least, most int) (int, error) {
	text := c.params[name]
	if text == "" {
		return absent, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, wire.InvalidParameter(name)
	}
	return n, nil
}

// paging is what a list that goes on says of itself.
type paging struct {
	IsTruncated bool
	Marker      string `json:",omitempty"`
}

// listPage returns the names after Marker, at most MaxItems. A marker is the last
// name that was shown.
func (c *call) listPage(names []string) ([]string, paging, error) {
	most, err := c.integer("MaxItems", defaultListedItems, 1, maxListedItems)
	if err != nil {
		return nil, paging{}, err
	}
	slices.Sort(names)
	if marker := c.params["Marker"]; marker != "" {
		names = slices.DeleteFunc(names, func(n string) bool { return n <= marker })
	}
	if len(names) <= most {
		return names, paging{}, nil
	}
	return names[:most], paging{IsTruncated: true, Marker: names[most-1]}, nil
}

// timeText is how the API writes a time; "" for none.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(wire.TimeLayout)
}
