package conformance

import (
	"encoding/json"
	"io"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// Schema is the version of the JSON form of a Report.
const Schema = 2

// Status is how a check ended.
type Status string

// The ways in which a check ends.
const (
	Passed Status = "passed"
	Failed Status = "failed"
	// NotSupported: the device cannot do it, and says so in the right way.
	NotSupported Status = "not supported"
	// NotRun: the check was not made, and says nothing of the backend; the detail
	// says why.
	NotRun Status = "not run"
)

// Verdict is what a run says of a backend.
type Verdict string

// The verdicts. A backend that cannot do something and says so conforms.
const (
	VerdictPassed Verdict = "passed"
	VerdictFailed Verdict = "failed"
	// VerdictIncomplete: nothing failed, but checks could not be made although
	// the configuration asked for them.
	VerdictIncomplete Verdict = "incomplete"
)

// Result is what came of one check.
type Result struct {
	Check
	Status Status `json:"status"`
	// Detail says what was seen: always unless the check passed.
	Detail string `json:"detail,omitempty"`
	// Code is the device's own answer that decided the check or, failing that,
	// the last one seen during it, such as "CKR_MECHANISM_INVALID".
	Code string `json:"code,omitempty"`
	// Milliseconds that the check took.
	Milliseconds int64 `json:"duration_ms"`
}

// Report is what a run found, in a form that can be kept as evidence.
type Report struct {
	Schema      int       `json:"schema"`
	Suite       string    `json:"suite_version"`
	Verdict     Verdict   `json:"verdict"`
	RunBy       []string  `json:"run_by,omitempty"`
	Plugin      string    `json:"plugin,omitempty"`
	SHA256      string    `json:"plugin_sha256,omitempty"`
	Device      *Device   `json:"device,omitempty"` // absent when the token never described itself
	Started     time.Time `json:"started"`
	Ended       time.Time `json:"ended"`
	Destructive bool      `json:"destructive"`
	Totals      Totals    `json:"totals"`
	Results     []Result  `json:"results"`
	// LeftBehind are the suite's keys that this run may not have removed from
	// the token.
	LeftBehind []hsm.KeyID `json:"left_behind,omitempty"`
	// Earlier are keys with the suite's prefix that were on the token before the
	// run. They are not touched.
	Earlier []hsm.KeyID `json:"earlier_runs,omitempty"`
}

// Totals counts results.
type Totals struct {
	Passed       int `json:"passed"`
	Failed       int `json:"failed"`
	NotSupported int `json:"not_supported"`
	NotRun       int `json:"not_run"`
}

// Device is how the token described itself.
type Device struct {
	Manufacturer       string                  `json:"manufacturer"`
	Model              string                  `json:"model"`
	Serial             string                  `json:"serial"`
	Label              string                  `json:"label"`
	Firmware           string                  `json:"firmware"`
	Library            string                  `json:"library"`
	Role               hsm.Role                `json:"role"`
	FIPS               *bool                   `json:"fips"` // null when the device does not say
	Policies           []Policy                `json:"policies,omitempty"`
	WrappingAlgorithms []hsm.WrappingAlgorithm `json:"wrapping_algorithms"`
	MaxSessions        int                     `json:"max_sessions"`
}

// Policy is an [hsm.Policy] in the report.
type Policy struct {
	Number int    `json:"number"`
	Name   string `json:"name"`
	Value  int    `json:"value"`
}

func newDevice(info *hsm.Info) *Device {
	d := &Device{
		Manufacturer: info.Manufacturer, Model: info.Model, Serial: info.Serial, Label: info.Label,
		Firmware: info.Firmware, Library: info.Library, Role: info.Role, FIPS: info.FIPS,
		WrappingAlgorithms: append([]hsm.WrappingAlgorithm{}, info.WrappingAlgorithms...),
		MaxSessions:        info.MaxSessions,
	}
	for _, p := range info.Policies {
		d.Policies = append(d.Policies, Policy(p))
	}
	return d
}

// add counts a result.
func (r *Report) add(result Result) {
	r.Results = append(r.Results, result)
	switch result.Status {
	case Passed:
		r.Totals.Passed++
	case Failed:
		r.Totals.Failed++
	case NotSupported:
		r.Totals.NotSupported++
	default:
		r.Totals.NotRun++
	}
}

// WriteJSON writes the report for machines and archives, indented, with a final
// newline.
func (r *Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(r)
}
