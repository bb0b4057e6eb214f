package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
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

// record is one line of the log.
type record struct {
	Seq  uint64 `json:"seq"`  // from 1
	Time string `json:"time"` // when it was written
	Prev string `json:"prev"` // hash of the line before, without its newline
	Event
}

// link is the end of a chain: the number and the hash of its last line.
type link struct {
	seq  uint64
	hash string // lower-case hex SHA-256
}

// origin comes before the first line.
var origin = link{hash: strings.Repeat("0", hex.EncodedLen(sha256.Size))}

// next makes the line that follows l, without its newline.
func (l link) next(at time.Time, event []byte) []byte {
	line := fmt.Appendf(nil, `{"seq":%d,"time":"%s","prev":"%s",`, l.seq+1, at.UTC().Format(timeLayout), l.hash)
	return append(line, event[1:]...)
}

// after is the end of the chain when line has been added to it.
func (l link) after(line []byte) link {
	sum := sha256.Sum256(line)
	return link{seq: l.seq + 1, hash: hex.EncodeToString(sum[:])}
}

var detailKey = regexp.MustCompile(`^[a-z0-9_]{1,64}$`)

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
	details := make(map[string]string, len(e.Details))
	for k, v := range e.Details {
		if !detailKey.MatchString(k) {
			return nil, fmt.Errorf("%.64q is not a detail", k)
		}
		details[k] = bounded(v)
	}
	e.Details = details
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(e); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// bounded cuts s to maxValue bytes and marks the cut. What a terminal could obey
// when somebody looks at the log is replaced.
func bounded(s string) string {
	const mark = "…"
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

// decode reads a line, strictly: what the log does not write is not in it.
func decode(line []byte) (record, error) {
	var r record
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		return record{}, fmt.Errorf("is not a record: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return record{}, errors.New("is not a record: something follows the JSON object")
	}
	if _, err := time.Parse(timeLayout, r.Time); err != nil || r.Seq == 0 || r.Action == "" || r.Outcome == "" {
		return record{}, errors.New("is not a record: it lacks a number, time, action or outcome")
	}
	return r, nil
}
