package conformance

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// outcome is how a check ends when it does not pass.
type outcome struct {
	status Status
	detail string
	code   string // the device's own, if it gave one
	// blocked marks a check that was not run against the will of whoever
	// configured the run.
	blocked bool
}

func (o *outcome) Error() string { return o.detail }

// failed says how an expectation was missed.
func failed(format string, args ...any) error {
	return &outcome{status: Failed, detail: fmt.Sprintf(format, args...)}
}

// failedBy is failed on account of an answer, which is appended.
func failedBy(err error, format string, args ...any) error {
	return &outcome{status: Failed, detail: explain(err, format, args...), code: codeOf(err)}
}

// notSupported says that the device does not have what the check is about, and
// says so as it should.
func notSupported(err error, format string, args ...any) error {
	return &outcome{status: NotSupported, detail: explain(err, format, args...), code: codeOf(err)}
}

// notRun says what the check would need.
func notRun(format string, args ...any) error {
	return &outcome{status: NotRun, detail: fmt.Sprintf(format, args...)}
}

// blocked says what kept the check from being made: something that another
// check is about.
func blocked(err error, format string, args ...any) error {
	return &outcome{status: NotRun, detail: explain(err, format, args...), code: codeOf(err), blocked: true}
}

func explain(err error, format string, args ...any) string {
	detail := fmt.Sprintf(format, args...)
	if err == nil {
		return detail
	}
	reason := "untyped error"
	if e, ok := errors.AsType[*hsm.Error](err); ok {
		reason = string(e.Reason)
	}
	return fmt.Sprintf("%s: %s: %v", detail, reason, err)
}

func codeOf(err error) string {
	if e, ok := errors.AsType[*hsm.Error](err); ok {
		return e.Code
	}
	return ""
}

// wantReason judges the answer to a call that had to be refused.
func wantReason(err error, what string, reasons ...hsm.Reason) error {
	if err == nil {
		return failed("%s was answered without an error; expected %s", what, list(reasons))
	}
	for _, reason := range reasons {
		if errors.Is(err, reason) {
			return nil
		}
	}
	return failedBy(err, "%s was refused, but not as %s", what, list(reasons))
}

func list(reasons []hsm.Reason) string {
	words := make([]string, len(reasons))
	for i, reason := range reasons {
		words[i] = string(reason)
	}
	return strings.Join(words, " or ")
}
