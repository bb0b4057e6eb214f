package conformance

import (
	"context"
	"slices"
)

// Check is one expectation of the suite.
type Check struct {
	// ID is a letter for the group and a number, such as "W-03". It keeps its
	// meaning for ever.
	ID string `json:"id"`
	// Title is what is expected, in a line.
	Title string `json:"title"`
	// Proves says what one knows after the check has passed.
	Proves string `json:"proves"`
	// Basis names the standard, document or contract that the expectation rests
	// on.
	Basis string `json:"basis"`
}

// check is a Check and how it is done.
type check struct {
	Check
	// run returns nil when the expectation holds, and an *outcome otherwise; any
	// other error is a failure too.
	run func(ctx context.Context, t *trial) error
	when
}

// when says what a check needs around it.
type when int

const (
	// withToken: an open token.
	withToken when = iota
	// withoutToken: the check opens the token itself.
	withoutToken
	// atEnd: the check judges what the others have left, also when the run was
	// interrupted.
	atEnd
)

// checks lists everything in the order in which it runs. The wrong PIN comes
// late, because a device may lock for it; the judgement of all answers comes
// last.
func checks() []check {
	return slices.Concat(
		identityChecks(), generationChecks(), listingChecks(), checkValueChecks(), wrappingChecks(),
		sealingChecks(), destroyChecks(), parallelChecks(), contextChecks(), healthChecks(), closeChecks(), recoveryChecks(),
		remainsChecks(), loginChecks(), errorChecks(),
	)
}

// Checks lists what the suite checks, in the order of the report.
func Checks() []Check {
	var list []Check
	for _, c := range checks() {
		list = append(list, c.Check)
	}
	return list
}

// Documents that checks rest on, as often as they do.
const (
	basisToken  = "hsm.Token"
	basisAES    = "hsm.KeySpec; PKCS#11 2.40, common key and secret key attributes"
	basisOAEP   = "RFC 8017, section 7.1; Alibaba Cloud KMS, GetParametersForImport"
	basisErrors = "hsm.Token and hsm.Error"
)
