//go:build !man

package main

import "github.com/spf13/cobra"

// manCommands are there when the packages are built.
func (c *ctl) manCommands() []*cobra.Command { return nil }
