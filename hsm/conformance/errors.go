package conformance

import (
	"context"
	"strings"
)

func errorChecks() []check {
	return []check{
		{Check{"E-01", "every error has a type", "The caller can tell what to do about it.",
			basisErrors}, noComplaints(func(w *witness) *complaints { return &w.untyped }, "neither an *hsm.Error nor that of a context"), atEnd},
		{Check{"E-02", "every error has a reason that is known", "No failure falls through what callers distinguish.",
			"hsm.Reasons"}, noComplaints(func(w *witness) *complaints { return &w.unknown }, "unknown reasons"), atEnd},
		{Check{"E-03", "every error is bounded text that can be printed", "Errors go into logs and onto terminals as they are.",
			"hsm.proto (details of 1024 bytes, codes of 64)"},
			noComplaints(func(w *witness) *complaints { return &w.ugly }, "empty, too long or not printable"), atEnd},
		{Check{"E-04", "no error contains the PIN", "Logs and reports can be shown to people who must not have it.",
			basisToken}, noPIN, atEnd},
		{Check{"E-05", "no text contains key material", "Neither errors nor what is told of a key spill its value.",
			basisToken + "; PKCS#11 2.40, CKA_SENSITIVE"}, noMaterial, atEnd},
		{Check{"E-06", "the process shows the PIN to nobody", "Whoever may read the log or list processes does not learn it.",
			basisToken + "; proc(5), cmdline and environ"}, notExposed, withToken},
	}
}

// noComplaints judges what the witness has gathered.
func noComplaints(of func(w *witness) *complaints, what string) func(ctx context.Context, t *trial) error {
	return func(_ context.Context, t *trial) error {
		t.witness.mu.Lock()
		defer t.witness.mu.Unlock()
		c := of(t.witness)
		if c.total > 0 {
			return failed("%d errors are %s: %s", c.total, what, strings.Join(c.examples, "; "))
		}
		return nil
	}
}

func noPIN(ctx context.Context, t *trial) error {
	if t.config.Leaks == nil {
		return notRun("the suite would have to know the PIN (Config.Leaks)")
	}
	return noComplaints(func(w *witness) *complaints { return &w.leaking }, "showing the PIN")(ctx, t)
}

func notExposed(_ context.Context, t *trial) error {
	if t.config.Exposed == nil {
		return notRun("it takes somebody who sees the log and the process of the plugin (Config.Exposed)")
	}
	looked, found, err := t.config.Exposed()
	if err != nil {
		return blocked(err, "look at the process from outside")
	}
	if len(found) > 0 {
		return failed("the PIN is in the %s of the plugin", strings.Join(found, " and the "))
	}
	t.notef("not in the %s", strings.Join(looked, ", nor in the "))
	return nil
}

func noMaterial(_ context.Context, t *trial) error {
	if n := t.witness.spills(); n > 0 {
		return failed("%d texts contain the value of a key", n)
	}
	return nil
}
