package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// timeLayout is RFC 3339 in UTC with milliseconds.
const timeLayout = "2006-01-02T15:04:05.000Z"

const (
	maxValue   = 256      // bytes of a string in an event
	maxDetails = 32       // entries of Event.Details
	maxLine    = 64 << 10 // bytes; encode stays below: each byte of a value takes at most six
)

// Record is one line of the trail.
type Record struct {
	Seq  uint64 `json:"seq"`  // from 1
	Time string `json:"time"` // when it happened: RFC 3339, UTC, milliseconds
	Prev string `json:"prev"` // hash of the line before, without its newline
	Event
	Signature string `json:"sig,omitempty"` // of a LogSeal record
}

// At is the time of the record.
func (r *Record) At() time.Time {
	at, _ := time.Parse(timeLayout, r.Time) // decode has tried
	return at
}

// isDetail reports whether a key of a detail is 1 to 64 of a-z, 0-9 and _.
func isDetail(key string) bool {
	const most = 64
	return key != "" && len(key) <= most && !strings.ContainsFunc(key, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_'
	})
}

// encode renders an event as a JSON object. Long values are cut; what a caller
// made up as a key or an outcome is refused.
func encode(e Event) ([]byte, error) {
	switch {
	case e.Action == "":
		return nil, errors.New("it has no action")
	case !slices.Contains([]Outcome{Allowed, Denied, Failed, Done}, e.Outcome):
		return nil, fmt.Errorf("%q is not an outcome", e.Outcome)
	case len(e.Details) > maxDetails:
		return nil, fmt.Errorf("it has %d details, more than %d", len(e.Details), maxDetails)
	}
	for _, s := range []*string{&e.Action, &e.Door, &e.Key, &e.KeyID, &e.Backend, &e.RequestID, &e.Reason} {
		*s = bounded(*s)
	}
	for k := range e.Details {
		if !isDetail(k) {
			return nil, fmt.Errorf("%.64q is not a detail", k)
		}
	}
	return appendEvent(make([]byte, 0, usualEvent), &e), nil
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// bounded cuts s to maxValue bytes and marks the cut. What a terminal could obey
// when somebody looks at the log is replaced.
func bounded(s string) string {
	const mark = "…"
	if len(s) <= maxValue && isPlain(s) {
		return s
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, s)
	if len(s) <= maxValue {
		return s
	}
	end := maxValue - len(mark)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + mark
}

// decode reads a line, strictly: a line that the log would have written in
// another way, with spaces or with a field twice, is no record.
func decode(line []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		return Record{}, fmt.Errorf("is not a record: %w", err)
	}
	if _, err := time.Parse(timeLayout, r.Time); err != nil || r.Seq == 0 || r.Action == "" || r.Outcome == "" {
		return Record{}, errors.New("is not a record: it lacks a number, time, action or outcome")
	}
	if again, err := marshal(r); err != nil || !bytes.Equal(again, line) {
		return Record{}, errors.New("is not a record: it is not written as records are")
	}
	return r, nil
}
