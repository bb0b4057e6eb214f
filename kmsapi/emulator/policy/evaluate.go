package policy

import "slices"

// Request is what somebody wants to do.
type Request struct {
	Action   string // "kms:Decrypt"
	Resource string // ARN; empty with a Trust document
	// Principals are the names by which Trust and Key documents may mean the
	// caller, by their kind: RAM, Service or Federated.
	Principals map[string][]string
	// Context holds the condition keys that have a value: acs:SourceIp,
	// acs:CurrentTime (RFC 3339), acs:SecureTransport, kms:tag/NAME, oidc:sub.
	Context map[string]string
}

// Verdict is what a document says of a request.
type Verdict int

// The verdicts. Denied beats Allowed, and no word is no permission.
const (
	Silent Verdict = iota
	Allowed
	Denied
)

// Evaluate says what the document says of a request.
func (d Document) Evaluate(r Request) Verdict {
	verdict := Silent
	for _, s := range d.statements {
		switch {
		case !s.applies(r):
		case s.Effect == deny:
			return Denied
		default:
			verdict = Allowed
		}
	}
	return verdict
}

// Combine is the verdict of documents that count together, as all those of one
// user do.
func Combine(verdicts ...Verdict) Verdict {
	if len(verdicts) == 0 {
		return Silent
	}
	return slices.Max(verdicts) // Denied is the largest
}

func (s statement) applies(r Request) bool {
	match := func(patterns texts, value string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return Match(p, value) })
	}
	if !match(s.Action, r.Action) || len(s.Resource) > 0 && !match(s.Resource, r.Resource) {
		return false
	}
	if len(s.Principal) > 0 && !s.names(r.Principals) {
		return false
	}
	for operator, keys := range s.Condition {
		for key, values := range keys {
			holds, known := evaluate(operator, key, values, r.Context)
			if !known {
				// What cannot be judged never allows, and never takes a
				// refusal back.
				holds = s.Effect == deny
			}
			if !holds {
				return false
			}
		}
	}
	return true
}

// names reports whether the statement means one of the principals. There are no
// patterns in a Principal: "acs:ram::ACCOUNT:*" is a name of its own.
func (s statement) names(principals map[string][]string) bool {
	for kind, names := range s.Principal {
		for _, name := range principals[kind] {
			if slices.Contains(names, name) {
				return true
			}
		}
	}
	return false
}

// Match reports whether a text has the form of a pattern, in which * is any text,
// also none, and ? one byte.
func Match(pattern, text string) bool {
	p, t := 0, 0
	star, resume := -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, resume = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			resume++
			p, t = star+1, resume
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
