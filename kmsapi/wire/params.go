package wire

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Params are the parameters of an operation, all of them text. What a method does
// not accept is answered with [InvalidParameter].
type Params map[string]string

// OneOf returns a parameter that has to be one of values; without it, the first of
// them.
func (p Params) OneOf(name string, values ...string) (string, error) {
	got := p[name]
	if got == "" {
		return values[0], nil
	}
	if !slices.Contains(values, got) {
		return "", InvalidParameter(name)
	}
	return got, nil
}

// Integer returns a decimal parameter between least and most; without it, absent.
func (p Params) Integer(name string, absent, least, most int) (int, error) {
	text := p[name]
	if text == "" {
		return absent, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, InvalidParameter(name)
	}
	return n, nil
}

// Boolean returns a parameter that is true or false; without it, false.
func (p Params) Boolean(name string) (bool, error) {
	text := p[name]
	if text == "" {
		return false, nil
	}
	value, err := strconv.ParseBool(strings.ToLower(text))
	if err != nil {
		return false, InvalidParameter(name)
	}
	return value, nil
}

// Binary returns a base64 parameter.
func (p Params) Binary(name string) ([]byte, error) {
	raw, err := DecodeBase64(p[name])
	if err != nil {
		return nil, InvalidParameter(name)
	}
	return raw, nil
}

// DecodeBase64 takes one spelling only: padded, without line breaks, and with zeros
// in the bits that carry nothing.
func DecodeBase64(text string) ([]byte, error) {
	if i := strings.IndexAny(text, "\r\n"); i >= 0 {
		return nil, base64.CorruptInputError(i)
	}
	return base64.StdEncoding.Strict().DecodeString(text)
}

// MaxDataKey is the largest data key, in bytes.
const MaxDataKey = 1024

// DataKeySize returns the bytes of a data key: NumberOfBytes, or else the size of
// KeySpec.
func (p Params) DataKeySize() (int, error) {
	spec, err := p.OneOf("KeySpec", "AES_256", "AES_128")
	if err != nil {
		return 0, err
	}
	return p.Integer("NumberOfBytes", map[string]int{"AES_256": 32, "AES_128": 16}[spec], 1, MaxDataKey)
}

// Page is the part of a list that an answer shows.
type Page struct {
	PageNumber int
	PageSize   int
	TotalCount int
}

// Page reads PageNumber and PageSize, whose limits differ from operation to
// operation.
func (p Params) Page(least, most int) (Page, error) {
	number, err := p.Integer("PageNumber", 1, 1, 1<<31-1)
	if err != nil {
		return Page{}, err
	}
	size, err := p.Integer("PageSize", 10, least, most)
	if err != nil {
		return Page{}, err
	}
	return Page{PageNumber: number, PageSize: size}, nil
}

// Cut returns the part of all that the page shows, never nil, so that it is [] in
// JSON, and sets TotalCount.
func Cut[T any](p *Page, all []T) []T {
	p.TotalCount = len(all)
	from := min((p.PageNumber-1)*p.PageSize, len(all))
	to := min(from+p.PageSize, len(all))
	return append([]T{}, all[from:to]...)
}

// Time is how answers write a time; "" for none.
func Time(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(TimeLayout)
}
