// Package config turns the daemon's TOML file into checked values. It exists to
// find all mistakes of a file at once and to name the line of each, before
// anything is started.
package config

import (
	"fmt"
	"io"
	"os"
)

const maxFile = 1 << 20

// Load reads the file at path. All its mistakes together come back as Problems.
// Other files that it names are not looked at.
func Load(path string) (*Config, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("configuration %s is longer than 1 MiB", path)
	}
	return parse(path, data, systemAccounts)
}

// parse checks data, which came from the file of that name.
func parse(name string, data []byte, accounts accounts) (*Config, error) {
	doc := &document{file: name, accounts: accounts}
	root, ok := doc.parse(data)
	if !ok {
		return nil, doc.problems
	}
	config := root.config()
	if len(doc.problems) > 0 {
		return nil, doc.problems.sorted()
	}
	return config, nil
}
