// Package chrystoki reads Chrystoki.conf, the configuration file of the Thales
// Luna client and of the DPoD service client.
//
// The vendor's library reads the file by itself and says little about what is
// wrong with it: a mistake shows as a missing slot. The plugins read it first,
// to find the library, to know the high-availability groups and to be able to
// say what is wrong.
package chrystoki

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Config is the content of a Chrystoki.conf.
type Config struct {
	sections map[string]map[string]string
}

// Parse reads the text of a Chrystoki.conf:
//
//	Chrystoki2 = {
//	   LibUNIX64 = /usr/safenet/lunaclient/lib/libCryptoki2_64.so;
//	}
//
// The names of sections and keys are case-sensitive and may contain blanks; a
// value may be empty. Lines that begin with # are skipped. Thales documents that
// TABs must not be used (Luna 7, appliance administration, "Timeouts"). The
// error names the line.
func Parse(text string) (*Config, error) {
	p := parser{config: &Config{sections: make(map[string]map[string]string)}}
	for line := range strings.Lines(text) {
		p.line++
		if err := p.read(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", p.line, err)
		}
	}
	if p.keys != nil {
		return nil, fmt.Errorf("line %d: section %s, begun in line %d, has no closing }", p.line, p.section, p.begun)
	}
	return p.config, nil
}

// parser is in a section when keys is not nil.
type parser struct {
	config  *Config
	line    int
	section string
	begun   int
	keys    map[string]string
}

func (p *parser) read(line string) error {
	if err := checkCharacters(strings.TrimRight(line, "\r\n")); err != nil {
		return err
	}
	line = strings.TrimSpace(line)
	switch {
	case line == "" || strings.HasPrefix(line, "#"):
		return nil
	case line == "}" && p.keys != nil:
		p.keys = nil
		return nil
	case line == "}":
		return errors.New("} closes no section")
	}
	name, value, ok := strings.Cut(line, "=")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if !ok || name == "" {
		return errors.New("it is neither \"Name = {\" nor \"Key = value;\"")
	}
	if p.keys == nil {
		return p.begin(name, value)
	}
	return p.set(name, value)
}

func (p *parser) begin(name, value string) error {
	if value != "{" {
		return fmt.Errorf("%s stands outside of a section", quoted(name))
	}
	if _, again := p.config.sections[name]; again {
		return fmt.Errorf("section %s is there twice", quoted(name))
	}
	p.section, p.begun, p.keys = quoted(name), p.line, make(map[string]string)
	p.config.sections[name] = p.keys
	return nil
}

func (p *parser) set(name, value string) error {
	if value == "{" {
		return fmt.Errorf("section %s begins before section %s, of line %d, is closed with }", quoted(name), p.section, p.begun)
	}
	value, ok := strings.CutSuffix(value, ";")
	if !ok {
		return fmt.Errorf("the value of %s does not end with a semicolon", quoted(name))
	}
	if _, again := p.keys[name]; again {
		return fmt.Errorf("%s is there twice in section %s", quoted(name), p.section)
	}
	p.keys[name] = strings.TrimSpace(value)
	return nil
}

func checkCharacters(line string) error {
	if strings.ContainsRune(line, '\t') {
		return errors.New("it contains a TAB, which the Luna client does not understand: use blanks")
	}
	if !utf8.ValidString(line) || strings.ContainsFunc(line, unicode.IsControl) {
		return errors.New("it is not printable text")
	}
	return nil
}

// quoted shows a name. Values are never shown: one of them is a secret.
func quoted(name string) string {
	const longest = 40
	return fmt.Sprintf("%.*q", longest, name)
}

// Has reports whether there is a section of that name.
func (c *Config) Has(section string) bool { return c.sections[section] != nil }

// Value returns the value of a key, empty when it is absent or has none.
func (c *Config) Value(section, key string) string { return c.sections[section][key] }
