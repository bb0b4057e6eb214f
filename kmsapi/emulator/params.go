package emulator

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// oneOf returns a parameter that has to be one of values; without it, the first
// of them.
func (c *call) oneOf(name string, values ...string) (string, error) {
	got := c.params[name]
	if got == "" {
		return values[0], nil
	}
	if !slices.Contains(values, got) {
		return "", wire.InvalidParameter(name)
	}
	return got, nil
}

// integer returns a decimal parameter between least and most; without it,
// absent.
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

// boolean returns a parameter that is true or false; without it, false.
func (c *call) boolean(name string) (bool, error) {
	text := c.params[name]
	if text == "" {
		return false, nil
	}
	value, err := strconv.ParseBool(strings.ToLower(text))
	if err != nil {
		return false, wire.InvalidParameter(name)
	}
	return value, nil
}

// text returns a parameter of no more than most characters.
func (c *call) text(name string, most int) (string, error) {
	text := c.params[name]
	if utf8.RuneCountInString(text) > most {
		return "", wire.InvalidParameter(name)
	}
	return text, nil
}

// binary returns a base64 parameter.
func (c *call) binary(name string) ([]byte, error) {
	raw, err := decodeBase64(c.params[name])
	if err != nil {
		return nil, wire.InvalidParameter(name)
	}
	return raw, nil
}

// decodeBase64 takes one spelling only: padded, without line breaks, and with
// zeros in the bits that carry nothing.
func decodeBase64(text string) ([]byte, error) {
	if i := strings.IndexAny(text, "\r\n"); i >= 0 {
		return nil, base64.CorruptInputError(i)
	}
	return base64.StdEncoding.Strict().DecodeString(text)
}

// page is the part of a list that an answer shows.
type page struct {
	PageNumber int
	PageSize   int
	TotalCount int
}

// page reads PageNumber and PageSize, whose limits differ from operation to
// operation.
func (c *call) page(least, most int) (page, error) {
	number, err := c.integer("PageNumber", 1, 1, 1<<31-1)
	if err != nil {
		return page{}, err
	}
	size, err := c.integer("PageSize", 10, least, most)
	if err != nil {
		return page{}, err
	}
	return page{PageNumber: number, PageSize: size}, nil
}

// cut returns the part of all that the page shows, never nil, so that it is [] in
// JSON, and sets TotalCount.
func cut[T any](p *page, all []T) []T {
	p.TotalCount = len(all)
	from := min((p.PageNumber-1)*p.PageSize, len(all))
	to := min(from+p.PageSize, len(all))
	return append([]T{}, all[from:to]...)
}
