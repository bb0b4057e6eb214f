package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func TestStartRefusals(t *testing.T) {
	good := newCommand(t, "good")
	content, err := os.ReadFile(good.Path)
	if err != nil {
		t.Fatal(err)
	}
	// copied puts the plugin where its modes can be spoilt.
	copied := func(t *testing.T) Command {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		command := good
		command.Path = filepath.Join(dir, "plugin")
		if err := os.WriteFile(command.Path, content, 0o755); err != nil {
			t.Fatal(err)
		}
		return command
	}
	chmod := func(t *testing.T, path string, mode os.FileMode) {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T) Command
		says  []string
	}{
		{"absent", func(*testing.T) Command { c := good; c.Path = "/nowhere/plugin"; return c }, []string{"/nowhere/plugin does not exist"}},
		{"relative", func(*testing.T) Command { c := good; c.Path = "plugin"; return c }, []string{"must be absolute"}},
		{"directory", func(t *testing.T) Command { c := good; c.Path = t.TempDir(); return c }, []string{"not a regular file"}},
		{"no checksum", func(*testing.T) Command { c := good; c.SHA256 = nil; return c }, []string{"SHA-256 is not configured"}},
		{"wrong checksum", func(*testing.T) Command { c := good; c.SHA256 = bytes.Repeat([]byte{7}, 32); return c },
			[]string{fmt.Sprintf("%x", good.SHA256), strings.Repeat("07", 32)}},
		{"not executable", func(t *testing.T) Command { c := copied(t); chmod(t, c.Path, 0o644); return c }, []string{"not executable"}},
		{"writable file", func(t *testing.T) Command { c := copied(t); chmod(t, c.Path, 0o775); return c }, []string{"writable by group or others"}},
		{"writable directory", func(t *testing.T) Command { c := copied(t); chmod(t, filepath.Dir(c.Path), 0o777); return c },
			[]string{"directory", "writable by group or others"}},
		{"not a program", func(t *testing.T) Command {
			c := copied(t)
			if err := os.WriteFile(c.Path, []byte("text"), 0o755); err != nil {
				t.Fatal(err)
			}
			c.SHA256 = checksum(t, c.Path)
			return c
		}, []string{"exec format error"}},
		{"socket directory absent", func(*testing.T) Command { c := good; c.SocketDir = "/nowhere"; return c }, []string{"socket directory"}},
		{"socket directory open", func(t *testing.T) Command {
			c := good
			c.SocketDir = socketDir(t)
			chmod(t, c.SocketDir, 0o755)
			return c
		}, []string{"mode 0700"}},
		{"socket directory deep", func(t *testing.T) Command {
			c := good
			c.SocketDir = filepath.Join(socketDir(t), strings.Repeat("d", 60))
			if err := os.Mkdir(c.SocketDir, 0o700); err != nil {
				t.Fatal(err)
			}
			return c
		}, []string{"bytes long"}},
		{"garbage", mode(good, "garbage"), []string{"Welcome to the vendor library", "handshake"}},
		{"endless garbage", mode(good, "endless"), []string{"handshake"}},
		{"version", mode(good, "version"), []string{`version "7" of the wrap interface`, "version 1"}},
		{"socket elsewhere", mode(good, "elsewhere"), []string{"/tmp/elsewhere.sock"}},
		{"exit", mode(good, "exit"), []string{"exit status 3", "libvendor.so: cannot open"}},
		{"silent", func(*testing.T) Command {
			c := mode(good, "silent")(nil)
			c.StartTimeout = 200 * time.Millisecond
			return c
		}, []string{"did not answer in time"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			command := test.spoil(t)
			process, err := Start(t.Context(), command)
			if process != nil {
				process.Kill()
			}
			wantReason(t, err, hsm.Misconfigured)
			for _, says := range test.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("error %q does not say %q", err, says)
				}
			}
			if left, err := os.ReadDir(good.SocketDir); err != nil || len(left) > 0 {
				t.Errorf("left in the socket directory: %v, %v", left, err)
			}
		})
	}
}

func mode(command Command, mode string) func(*testing.T) Command {
	return func(*testing.T) Command {
		command.Env = []string{modeVariable + "=" + mode}
		return command
	}
}

func TestForeignOwner(t *testing.T) {
	var st unix.Stat_t
	st.Uid = uint32(os.Geteuid()) + 1
	wantReason(t, checkTrusted("plugin", &st), hsm.Misconfigured)
	st.Uid = 0
	if err := checkTrusted("plugin", &st); err != nil {
		t.Error(err)
	}
}

// The bytes that were hashed are executed, whatever the path says by then.
func TestExecutesTheDescriptor(t *testing.T) {
	command := newCommand(t, "good")
	content, err := os.ReadFile(command.Path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "plugin")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, content, 0o755)); err != nil {
		t.Fatal(err)
	}
	file, _, err := openExecutable(path, command.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	evil := filepath.Join(dir, "evil")
	if err := errors.Join(os.WriteFile(evil, []byte("#!/bin/sh\necho evil\n"), 0o755), os.Rename(evil, path)); err != nil {
		t.Fatal(err)
	}
	child := newChild(t.Context(), file, path, append(command.Env, "KMSBROKER_HSM_PLUGIN="+handshake().MagicCookieValue,
		"PLUGIN_UNIX_SOCKET_DIR="+command.SocketDir, "PLUGIN_PROTOCOL_VERSIONS=1"), command.SocketDir, command.Logger)
	err = child.Start(t.Context())
	if strings.Contains(fmt.Sprint(err), "evil") {
		t.Error("the path was executed")
	}
	// The handshake is complete but for the certificate, which the host asks for.
	if !strings.Contains(fmt.Sprint(err), "certificate") {
		t.Errorf("got %v", err)
	}
	if err := child.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-child.quiet
}

func TestEnvironment(t *testing.T) {
	t.Setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "of-the-host")
	command := newCommand(t, "good")
	command.Env = append(command.Env, "SOFTHSM2_CONF=/etc/softhsm2.conf")
	process := start(t, command)
	report := filepath.Join(t.TempDir(), "environ")
	pin := []byte("1234")
	if _, err := process.Open(t.Context(), OpenConfig{Settings: map[string]string{"report": report}, PIN: hsm.PIN(pin)}); err != nil {
		t.Fatal(err)
	}
	environ, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for entry := range strings.Lines(string(environ)) {
		// Lines without an equals sign belong to the certificate.
		if name, _, ok := strings.Cut(entry, "="); ok && strings.ToUpper(name) == name && !strings.ContainsAny(name, "+/-") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "PLUGIN_") })
	if want := []string{"KMSBROKER_HSM_PLUGIN", modeVariable, "SOFTHSM2_CONF"}; !slices.Equal(names, want) {
		t.Errorf("the plugin's environment has %v, want %v and PLUGIN_*", names, want)
	}
	if bytes.Contains(environ, []byte("of-the-host")) {
		t.Error("the host's environment was inherited")
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", process.PID()))
	if err != nil {
		t.Fatal(err)
	}
	if string(cmdline) != command.Path+"\x00" {
		t.Errorf("command line %q, want %q alone", cmdline, command.Path)
	}
	if os.Geteuid() != 0 {
		if _, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", process.PID())); !errors.Is(err, os.ErrPermission) {
			t.Errorf("the plugin is dumpable: %v", err)
		}
	}
}

func TestOpen(t *testing.T) {
	t.Run("twice", func(t *testing.T) {
		process, _ := open(t, "good")
		_, err := process.Open(t.Context(), OpenConfig{PIN: hsm.PIN([]byte("1234"))})
		wantReason(t, err, hsm.Invalid)
	})
	t.Run("after a wrong PIN", func(t *testing.T) {
		process := start(t, newCommand(t, "good"))
		_, err := process.Open(t.Context(), OpenConfig{PIN: hsm.PIN([]byte("0000"))})
		wantReason(t, err, hsm.PINIncorrect)
		_, err = process.Open(t.Context(), OpenConfig{PIN: hsm.PIN([]byte("1234"))})
		wantReason(t, err, hsm.Invalid)
	})
	t.Run("unknown setting", func(t *testing.T) {
		process := start(t, newCommand(t, "good"))
		_, err := process.Open(t.Context(), OpenConfig{Settings: map[string]string{"lable": "x"}, PIN: hsm.PIN([]byte("1234"))})
		wantReason(t, err, hsm.Misconfigured)
		if !strings.Contains(err.Error(), `"lable"`) {
			t.Errorf("error %q does not name the setting", err)
		}
	})
	t.Run("names its token", func(t *testing.T) {
		process := start(t, newCommand(t, "good"))
		var asked []hsm.TokenID
		_, err := process.Open(t.Context(), OpenConfig{PIN: func(_ context.Context, token hsm.TokenID) ([]byte, error) {
			asked = append(asked, token)
			return []byte("1234"), nil
		}})
		if want := []hsm.TokenID{fakeToken("good")}; err != nil || !slices.Equal(asked, want) {
			t.Errorf("the PIN was asked for %v, want %v; %v", asked, want, err)
		}
	})
	t.Run("gets no PIN for a token without a name", func(t *testing.T) {
		process := start(t, newCommand(t, "nameless"))
		_, err := process.Open(t.Context(), OpenConfig{PIN: func(context.Context, hsm.TokenID) ([]byte, error) {
			t.Error("the PIN was asked for")
			return []byte("1234"), nil
		}})
		wantReason(t, err, hsm.Corrupt)
		if !strings.Contains(err.Error(), "token.serial") {
			t.Errorf("error %q does not name the field", err)
		}
	})
	t.Run("calls before", func(t *testing.T) {
		process := start(t, newCommand(t, "good"))
		wantReason(t, process.client.Health(t.Context()), hsm.Invalid)
	})
}
