package cgroup

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

const (
	none    = "none"    // certainly in no system unit
	unknown = "unknown" // cannot be told
)

func verdict(content string) string {
	unit, err := SystemUnit([]byte(content))
	switch {
	case err == nil:
		return unit
	case unit != "":
		return "a unit with an error: " + unit
	case errors.Is(err, ErrNoUnit):
		return none
	default:
		return unknown
	}
}

func TestSystemUnit(t *testing.T) {
	long := strings.Repeat("x", maxUnitName-len(".service"))
	tests := []struct{ name, path, want string }{
		{"service", "/system.slice/payments.service", "payments.service"},
		{"instance", "/system.slice/system-payments.slice/payments@eu.service", "payments@eu.service"},
		{"scope", "/system.slice/backup.scope", "backup.scope"},
		{"nested slices", "/system.slice/system-a.slice/system-a-b.slice/c.service", "c.service"},
		{"socket's own process", "/system.slice/payments.socket", "payments.socket"},
		{"escaped name", `/system.slice/systemd\x2dpayments.service`, `systemd\x2dpayments.service`},
		{"name like a file of the kernel's", "/system.slice/_cgroup.service", "cgroup.service"},
		{"name that begins with an underscore", "/system.slice/__x.service", "_x.service"},
		{"dots and colons", "/system.slice/a.b:c-d_e.service", "a.b:c-d_e.service"},
		{"longest name", "/system.slice/" + long + ".service", long + ".service"},

		// What an ordinary user can bring about: units of their own manager and
		// control groups below what is delegated to them.
		{"user unit of that name", "/user.slice/user-1000.slice/user@1000.service/app.slice/payments.service", none},
		{"user unit straight below the manager", "/user.slice/user-1000.slice/user@1000.service/payments.service", none},
		{"a whole false tree below the manager", "/user.slice/user-1000.slice/user@1000.service/system.slice/payments.service", none},
		{"slice of that name below the manager", "/user.slice/user-1000.slice/user@1000.service/payments.service.slice", none},
		{"user manager moved to system.slice", "/system.slice/user@1000.service/system.slice/payments.service", "user@1000.service"},
		{"session", "/user.slice/user-1000.slice/session-3.scope", none},
		{"a control group made in a session", "/user.slice/user-1000.slice/session-3.scope/system.slice/payments.service", none},
		{"below another unit to which it is delegated", "/system.slice/evil.service/payments.service", "evil.service"},
		{"a slice below a unit", "/system.slice/evil.service/system.slice/payments.service", "evil.service"},

		// Containers have a systemd of their own or none.
		{"nspawn", "/machine.slice/machine-web.scope/system.slice/payments.service", none},
		{"nspawn as a service", "/machine.slice/systemd-nspawn@web.service/payload/system.slice/payments.service", none},
		{"podman", "/machine.slice/libpod-0123.scope/container/system.slice/payments.service", none},
		{"docker, driver systemd", "/system.slice/docker-0123.scope/system.slice/payments.service", "docker-0123.scope"},
		{"docker, driver cgroupfs", "/docker/0123/system.slice/payments.service", none},
		{"docker of a user", "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-0123.scope/system.slice/payments.service", none},
		{"kubernetes", "/kubepods.slice/kubepods-pod1.slice/cri-containerd-0123.scope/system.slice/payments.service", none},
		{"lxc", "/lxc.payload.web/system.slice/payments.service", none},

		// The reader is in a control group namespace, and the process outside.
		{"outside our namespace", "/../system.slice/payments.service", none},
		{"far outside our namespace", "/../../system.slice/payments.service", none},
		{"back in", "/system.slice/../system.slice/payments.service", none},

		{"other slice", "/payments.slice/payments.service", none},
		{"no slice", "/payments.service", none},
		{"PID 1", "/init.scope", none},
		{"the root", "/", none},
		{"system.slice itself", "/system.slice", none},
		{"system.slice and nothing", "/system.slice/", none},
		{"slice alone", "/system.slice/system-a.slice", none},
		{"slice that is an instance", "/system.slice/a@b.slice/payments.service", none},
		{"longer name of a slice", "/system.slicex/payments.service", none},
		{"escaped slice", "/_system.slice/payments.service", none},
		{"two slashes", "/system.slice//payments.service", none},
		{"no type", "/system.slice/payments", none},
		{"unknown type", "/system.slice/payments.servicex", none},
		{"other case", "/system.slice/payments.Service", none},
		{"only a type", "/system.slice/.service", none},
		{"template", "/system.slice/payments@.service", none},
		{"instance of nothing", "/system.slice/@eu.service", none},
		{"space", "/system.slice/payments .service", none},
		{"too long", "/system.slice/x" + long + ".service", none},

		{"a control group that is gone", "/system.slice/payments.service (deleted)", unknown},
		{"a root that is gone", "/user.slice (deleted)", unknown},
		{"relative", "system.slice/payments.service", unknown},
		{"nothing", "", unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, form := range []string{
				"0::" + tt.path + "\n",
				"0::" + tt.path,
				"12:pids:/system.slice/other.service\n1:name=systemd:/system.slice/other.service\n0::" + tt.path + "\n",
			} {
				if got := verdict(form); got != tt.want {
					t.Errorf("%q: got %s, want %s", form, got, tt.want)
				}
			}
		})
	}
}

func TestOnlyTheUnifiedHierarchyCounts(t *testing.T) {
	for _, content := range []string{
		"",
		"\n",
		"1:name=systemd:/system.slice/payments.service\n",
		"10::/system.slice/payments.service\n",
		"00::/system.slice/payments.service\n",
		" 0::/system.slice/payments.service\n",
		"0:cpu:/system.slice/payments.service\n",
		"0::/system.slice/payments.service\n0::/user.slice\n",
		"0::/user.slice\n0::/system.slice/payments.service\n",
	} {
		if got := verdict(content); got != unknown {
			t.Errorf("%q: got %s, want %s", content, got, unknown)
		}
	}
}

// TestKernel: what this machine's kernel writes is understood.
func TestKernel(t *testing.T) {
	content, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if path, err := unifiedPath(content); err != nil || !strings.HasPrefix(path, "/") {
		t.Errorf("%q: path %q, %v", content, path, err)
	}
}

// FuzzSystemUnit: a unit is found only right below system.slice and its slices,
// and is one that a grant could name.
func FuzzSystemUnit(f *testing.F) {
	f.Add("0::/system.slice/payments.service\n")
	f.Add("1:name=systemd:/\n0::/user.slice/user-1000.slice/user@1000.service/system.slice/payments.service\n")
	f.Add("0::/system.slice/system-a.slice/_a@b.service/x.service (deleted)\n")
	f.Add("0::/../system.slice//a.service\n0::/\n")
	f.Fuzz(func(t *testing.T, content string) {
		unit, err := SystemUnit([]byte(content))
		if err != nil {
			if unit != "" {
				t.Errorf("%q: unit %q and %v", content, unit, err)
			}
			return
		}
		if !ValidUnit(unit) || strings.HasSuffix(unit, ".slice") {
			t.Errorf("%q: unit %q", content, unit)
		}
		_, path, _ := strings.Cut("\n"+content, "\n0::/system.slice/")
		path, _, _ = strings.Cut(path, "\n")
		components := strings.Split(path, "/")
		first := slices.IndexFunc(components, func(c string) bool { return !strings.HasSuffix(c, ".slice") })
		if first < 0 || strings.TrimPrefix(components[first], "_") != unit {
			t.Errorf("%q: unit %q is not the first below system.slice", content, unit)
		}
	})
}
