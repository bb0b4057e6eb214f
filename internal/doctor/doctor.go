// Package doctor looks at an installation of kmsbroker from outside and says what is
// wrong with it and what to do next: what an operator would be asked on the telephone.
// It changes nothing, and shows no secret.
package doctor

import (
	"context"
	"errors"
	"fmt"

	"github.com/kmsbroker/kmsbroker/broker/config"
	"github.com/kmsbroker/kmsbroker/broker/serve"
)

// Result is how a check ended.
type Result string

// The results. A warning is worth a look, a problem keeps something from working.
const (
	OK      Result = "ok"
	Warning Result = "warning"
	Problem Result = "problem"
	Skipped Result = "skipped"
)

// Finding is what a check found.
type Finding struct {
	Check   string `json:"check"` // what was looked at
	Result  Result `json:"result"`
	Message string `json:"message"`
	Next    string `json:"next,omitempty"` // what to do
}

// Options say what is looked at.
type Options struct {
	Config  string // the configuration file
	Control string // socket; "" is the configured one
	Version string // of who asks
}

// report collects findings.
type report struct{ findings []Finding }

func (r *report) add(check string, result Result, next, format string, args ...any) {
	r.findings = append(r.findings, Finding{check, result, fmt.Sprintf(format, args...), next})
}

func (r *report) ok(check, format string, args ...any) { r.add(check, OK, "", format, args...) }

// Examine makes all checks. It ends with ctx.
func Examine(ctx context.Context, o Options) []Finding {
	r := &report{}
	cfg, err := config.Load(o.Config)
	if problems, ok := errors.AsType[config.Problems](err); ok {
		for _, p := range problems {
			r.add("configuration", Problem, "correct the file; `kmsbrokerd --check-config` says the same", "%s", p)
		}
	} else if err != nil {
		r.add("configuration", Problem, "run this as root, or name the file with --config", "%v", err)
	}
	control := o.Control
	if cfg != nil {
		r.configuration(cfg, o.Config)
		r.files(cfg)
		r.network(ctx, cfg)
		if control == "" {
			control = cfg.Sockets.Control
		}
	}
	if control == "" {
		control = config.DefaultRuntimeDir + "/admin/control.sock"
	}
	r.daemon(ctx, control, o.Version)
	return r.findings
}

// configuration looks at what is in order as text and still does not work.
func (r *report) configuration(cfg *config.Config, path string) {
	r.ok("configuration", "%s is in order", path)
	if len(cfg.KMS.AllRegions()) == 0 {
		r.add("configuration", Warning, "add [kms] with a region and credentials", "no KMS is configured: nothing can be imported or encrypted")
	}
	if len(cfg.Backends) == 0 {
		r.add("configuration", Warning, "add a [backend.NAME]", "no HSM backend is configured: no key can be made")
	}
	if len(cfg.Grants) == 0 && len(cfg.Objects) == 0 {
		r.add("configuration", Warning, "add a [[grant]]", "there are no grants: nobody may use a key")
	}
	units := cfg.NamesUnits()
	why := serve.Units{WithoutPIDFD: cfg.UnitWithoutPIDFD}.Unknown()
	switch {
	case units && why != "":
		r.add("units of callers", Problem, "see docs/grants.md, or set unit_without_pidfd", "grants to units match nobody here: %s", why)
	case units && cfg.UnitWithoutPIDFD:
		r.add("units of callers", Warning, "use Linux 6.5 or later and remove unit_without_pidfd", "units are found by PID, which can be another process's by then")
	case units:
		r.ok("units of callers", "the kernel tells them")
	}
}
