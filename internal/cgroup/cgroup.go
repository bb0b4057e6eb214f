// Package cgroup finds the systemd system unit of a process in what the kernel
// says of its control group. It exists apart because a grant to a unit is only
// as good as this parsing: a name that an ordinary user can choose must never
// look like the name of a system unit.
package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrNoUnit says that a process is certainly in no system unit. Any other error
// of [SystemUnit] says that this is not known.
var ErrNoUnit = errors.New("in no system unit")

// root is where systemd puts system units unless they say otherwise. Below
// user.slice users make units of their own, with names that they choose, and
// below machine.slice and other places containers have theirs.
const root = "/system.slice/"

// SystemUnit returns the name of the system unit in the content of
// /proc/PID/cgroup: the first unit below system.slice. Whatever stands deeper
// was delegated to that unit, which can call it what it likes.
//
// It is parsed as sd_pid_get_unit(3) does (systemd, src/basic/cgroup-util.c),
// which finds units in any slice.
func SystemUnit(content []byte) (string, error) {
	path, err := unifiedPath(content)
	if err != nil {
		return "", err
	}
	below, ok := strings.CutPrefix(path, root)
	if !ok {
		return "", fmt.Errorf("%w: the control group is %.200q, not one below %s", ErrNoUnit, path, root)
	}
	for component := range strings.SplitSeq(below, "/") {
		name := unescape(component)
		slice := strings.HasSuffix(name, ".slice")
		switch {
		case !ValidUnit(name), slice && strings.Contains(name, "@"): // slices are never instances
			return "", fmt.Errorf("%w: %.200q in the control group %.200q is no unit", ErrNoUnit, component, path)
		case !slice:
			return name, nil
		}
	}
	return "", fmt.Errorf("%w: the control group %.200q is a slice", ErrNoUnit, path)
}

// unifiedPath returns the path in the unified hierarchy, which has the number 0
// and names no controllers (cgroups(7)). The kernel lets no control group have a
// newline in its name, so a line begins where it seems to.
func unifiedPath(content []byte) (string, error) {
	var path string
	for line := range bytes.Lines(content) {
		found, ok := bytes.CutPrefix(bytes.TrimSuffix(line, []byte("\n")), []byte("0::"))
		switch {
		case !ok:
			continue
		case path != "":
			return "", errors.New("the kernel names two unified control groups")
		case !bytes.HasPrefix(found, []byte("/")):
			return "", fmt.Errorf("%.200q is not the path of a control group", found)
		}
		path = string(found)
	}
	switch {
	case path == "":
		return "", errors.New("the process has no unified control group: units need cgroup v2")
	case strings.HasSuffix(path, " (deleted)"):
		return "", fmt.Errorf("the control group %.200q is gone", path)
	}
	return path, nil
}

// unescape undoes what systemd does to names that the kernel's own files in a
// control group might have.
func unescape(component string) string { return strings.TrimPrefix(component, "_") }

const (
	maxUnitName = 255 // bytes, UNIT_NAME_MAX less the final NUL
	unitChars   = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:-_.\\@"
)

var unitTypes = []string{
	"service", "socket", "target", "device", "mount", "automount", "swap", "timer", "path", "slice", "scope",
}

// ValidUnit reports whether name can be that of a unit in which processes run:
// plain, or an instance of a template, but no template (systemd.unit(5)).
func ValidUnit(name string) bool {
	dot := strings.LastIndexByte(name, '.')
	if len(name) > maxUnitName || dot < 1 || strings.Trim(name[:dot], unitChars) != "" {
		return false
	}
	prefix, instance, templated := strings.Cut(name[:dot], "@")
	return prefix != "" && (!templated || instance != "") && slices.Contains(unitTypes, name[dot+1:])
}
