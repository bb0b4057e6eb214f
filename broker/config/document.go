package config

import (
	"errors"
	"fmt"

	"github.com/BurntSushi/toml"
)

// document is a TOML file under examination.
type document struct {
	file     string
	accounts accounts
	problems Problems
	lines    lines
}

func (d *document) problem(line int, format string, args ...any) {
	d.problems = append(d.problems, Problem{File: d.file, Line: max(line, 1), Message: fmt.Sprintf(format, args...)})
}

// parse returns the root table, or false after a syntax error.
func (d *document) parse(data []byte) (*table, bool) {
	var values map[string]any
	if _, err := toml.Decode(string(data), &values); err != nil {
		line, message := 1, err.Error()
		if at, ok := errors.AsType[toml.ParseError](err); ok {
			line, message = at.Position.Line, at.Message
		}
		d.problem(line, "%s", message)
		return nil, false
	}
	d.lines = locate(data)
	return &table{doc: d, line: 1, values: values}, true
}
