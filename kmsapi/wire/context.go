package wire

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"
)

const maxContext = 8192 // characters of JSON

// Context reads an encryption context parameter, nil without it: a JSON object
// whose values are strings and whose keys are all different.
func (p Params) Context(name string) (map[string]string, error) {
	text := p[name]
	if text == "" {
		return nil, nil
	}
	context, err := parseContext(text)
	if err != nil {
		return nil, InvalidParameter(name)
	}
	return context, nil
}

var errContext = errors.New("not a JSON object of strings")

func parseContext(text string) (map[string]string, error) {
	if utf8.RuneCountInString(text) > maxContext {
		return nil, errContext
	}
	d := json.NewDecoder(strings.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errContext
	}
	context := map[string]string{}
	for d.More() {
		name, err := stringToken(d)
		if err != nil {
			return nil, err
		}
		if _, twice := context[name]; twice {
			return nil, errContext
		}
		if context[name], err = stringToken(d); err != nil {
			return nil, err
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, errContext
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errContext
	}
	return context, nil
}

func stringToken(d *json.Decoder) (string, error) {
	t, err := d.Token()
	if err != nil {
		return "", errContext
	}
	s, ok := t.(string)
	if !ok {
		return "", errContext
	}
	return s, nil
}
