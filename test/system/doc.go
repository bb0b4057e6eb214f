// Package system tests the built daemon and CLI from outside, the way an
// administrator and an application meet them.
package system
