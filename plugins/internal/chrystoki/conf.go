package chrystoki

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// DirVariable names the directory with Chrystoki.conf to the vendor's library,
// which reads it when it is loaded.
const DirVariable = "ChrystokiConfigurationPath"

// FileName is the name of the file in that directory.
const FileName = "Chrystoki.conf"

// Sections that have a meaning for the plugins.
const (
	LibrarySection = "Chrystoki2"
	HASection      = "VirtualToken"
	RESTSection    = "REST"
	XTCSection     = "XTC"
	MiscSection    = "Misc"
	// ClientSection has the TLS files, and CardReaderSection the local devices.
	ClientSection     = "LunaSA Client"
	CardReaderSection = "CardReader"
)

// Dir returns the directory that the vendor's library reads its configuration
// from in this process.
func Dir() string { return cmp.Or(os.Getenv(DirVariable), "/etc") }

// Load reads the Chrystoki.conf of a directory. The error names the file and,
// when it was read, the line.
func Load(dir string) (*Config, error) {
	const maxSize = 1 << 20 // bytes; a full one has a few thousand
	path := filepath.Join(dir, FileName)
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxSize {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxSize)
	}
	config, err := Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s, %w", path, err)
	}
	return config, nil
}

// Library returns the path of the PKCS#11 library, empty when the file names
// none.
func (c *Config) Library() string {
	return cmp.Or(c.Value(LibrarySection, "LibUNIX64"), c.Value(LibrarySection, "LibUNIX"))
}

// HAGroup is a high-availability group as `lunacm hagroup` writes it: several
// partitions behind one virtual slot.
type HAGroup struct {
	Label   string
	Serial  string   // of the virtual slot
	Members []string // serials of the partitions
}

// HAGroups lists the groups of the section VirtualToken: for a two-digit number
// NN the keys VirtualTokenNNLabel, VirtualTokenNNSN and VirtualTokenNNMembers.
// No Thales page names the keys; they are those of configurations that users
// have published.
func (c *Config) HAGroups() []HAGroup {
	var groups []HAGroup
	for key, label := range c.sections[HASection] {
		prefix, ok := strings.CutSuffix(key, "Label")
		if !ok {
			continue
		}
		group := HAGroup{Label: label, Serial: c.Value(HASection, prefix+"SN")}
		for member := range strings.SplitSeq(c.Value(HASection, prefix+"Members"), ",") {
			if member = strings.TrimSpace(member); member != "" {
				group.Members = append(group.Members, member)
			}
		}
		groups = append(groups, group)
	}
	slices.SortFunc(groups, func(a, b HAGroup) int {
		return cmp.Or(cmp.Compare(a.Label, b.Label), cmp.Compare(a.Serial, b.Serial))
	})
	return groups
}
