// Package build is what a program knows of how it was built.
package build

import (
	"crypto/fips140"
	"fmt"
	"runtime"
)

// Set by the Makefile.
var (
	version = "dev"
	commit  = "unknown"
)

// Version of the program, such as "1.2.0".
func Version() string { return version }

// Line says in one line what a program is.
func Line(program string) string {
	fips := "off"
	if fips140.Enabled() {
		fips = "on, module " + fips140.Version()
	}
	return fmt.Sprintf("%s %s (commit %s, %s, FIPS 140-3 %s)", program, version, commit, runtime.Version(), fips)
}
