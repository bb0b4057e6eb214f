package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// operator is one word of Condition. test compares the value that the request
// has with one that the policy lists; known is false when it cannot tell. A
// negative operator holds when test is false for all that is listed, and when the
// request has no value.
type operator struct {
	negative bool
	test     func(have, want string) (holds, known bool)
}

// operators are those of the RAM documentation. The numeric ones are known and
// never judged: no condition key of KMS is a number.
var operators = map[string]operator{
	"StringEquals":              {false, surely(func(a, b string) bool { return a == b })},
	"StringNotEquals":           {true, surely(func(a, b string) bool { return a == b })},
	"StringEqualsIgnoreCase":    {false, surely(strings.EqualFold)},
	"StringNotEqualsIgnoreCase": {true, surely(strings.EqualFold)},
	"StringLike":                {false, surely(like)},
	"StringNotLike":             {true, surely(like)},

	"Bool":         {false, sameBool},
	"IpAddress":    {false, inNetwork},
	"NotIpAddress": {true, inNetwork},

	"DateEquals":            {false, date(func(c int) bool { return c == 0 })},
	"DateNotEquals":         {true, date(func(c int) bool { return c == 0 })},
	"DateLessThan":          {false, date(func(c int) bool { return c < 0 })},
	"DateLessThanEquals":    {false, date(func(c int) bool { return c <= 0 })},
	"DateGreaterThan":       {false, date(func(c int) bool { return c > 0 })},
	"DateGreaterThanEquals": {false, date(func(c int) bool { return c >= 0 })},

	"NumericEquals":            {false, never},
	"NumericNotEquals":         {true, never},
	"NumericLessThan":          {false, never},
	"NumericLessThanEquals":    {false, never},
	"NumericGreaterThan":       {false, never},
	"NumericGreaterThanEquals": {false, never},
}

// judged are the condition keys whose value a request may have; keys that begin
// kms:tag/ are judged as well.
var judged = []string{
	"acs:SourceIp", "acs:CurrentTime", "acs:SecureTransport", "acs:SourceVpc",
	"oidc:iss", "oidc:aud", "oidc:sub",
	"sts:ExternalId",
}

// evaluate judges one line of Condition. known is false for a key or a value
// that cannot be judged.
func evaluate(name, key string, values texts, context map[string]string) (holds, known bool) {
	if !slices.Contains(judged, key) && !strings.HasPrefix(key, "kms:tag/") {
		return false, false
	}
	op := operators[name]
	have, ok := context[key]
	if !ok {
		return op.negative, true
	}
	matched := false
	for _, want := range values {
		m, known := op.test(have, want)
		if !known {
			return false, false
		}
		matched = matched || m
	}
	return matched != op.negative, true
}

// surely is a test that can always tell.
func surely(test func(have, want string) bool) func(have, want string) (bool, bool) {
	return func(have, want string) (bool, bool) { return test(have, want), true }
}

func like(have, want string) bool { return Match(want, have) }

func never(string, string) (holds, known bool) { return false, false }

func sameBool(have, want string) (holds, known bool) {
	a, err := strconv.ParseBool(have)
	b, wantErr := strconv.ParseBool(want)
	return a == b, err == nil && wantErr == nil
}

// inNetwork tests an address against an address or a CIDR block.
func inNetwork(have, want string) (holds, known bool) {
	address, err := netip.ParseAddr(have)
	if err != nil {
		return false, false
	}
	if !strings.Contains(want, "/") {
		other, err := netip.ParseAddr(want)
		return address.Unmap() == other.Unmap(), err == nil
	}
	network, err := netip.ParsePrefix(want)
	return err == nil && network.Contains(address.Unmap()), err == nil
}

// date tests by the order of two times, RFC 3339 with or without seconds.
func date(accept func(order int) bool) func(have, want string) (bool, bool) {
	parse := func(text string) (time.Time, bool) {
		for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00"} {
			if t, err := time.Parse(layout, text); err == nil {
				return t, true
			}
		}
		return time.Time{}, false
	}
	return func(have, want string) (bool, bool) {
		a, ok := parse(have)
		b, wantOK := parse(want)
		return accept(a.Compare(b)), ok && wantOK
	}
}
