package serve

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
)

// TestFailuresAreLoggedSparingly: of many failures of one kind one line a second is
// logged, with how many there were; other kinds have lines of their own.
func TestFailuresAreLoggedSparingly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := newFailureLog(slog.New(slog.NewTextHandler(&out, nil)))
		away := failure.New(failure.Unavailable, "KMS", "no answer")
		for range 100 {
			l.add(t.Context(), authz.Caller{}, "Encrypt", away)
		}
		l.add(t.Context(), authz.Caller{}, "Decrypt", away)
		time.Sleep(failureInterval)
		l.add(t.Context(), authz.Caller{}, "Encrypt", away)
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 3 || !strings.Contains(lines[0], "not_logged_before=0") || !strings.Contains(lines[2], "not_logged_before=99") {
			t.Errorf("102 failures became\n%s", out.String())
		}
	})
}

// TestWhatIsNotLogged: what the caller can help, or did.
func TestWhatIsNotLogged(t *testing.T) {
	left, leave := context.WithCancel(t.Context())
	leave()
	for name, test := range map[string]struct {
		ctx    context.Context
		err    error
		logged bool
	}{
		"success":               {t.Context(), nil, false},
		"refusal":               {t.Context(), failure.New(failure.Denied, "NO_GRANT", "no"), false},
		"wrong":                 {t.Context(), failure.New(failure.Invalid, "PLAINTEXT_SIZE", "no"), false},
		"rate of a grant":       {t.Context(), failure.New(failure.Throttled, authz.ReasonRate, "no"), false},
		"the caller left":       {left, context.Canceled, false},
		"cancelled by somebody": {t.Context(), context.Canceled, true},
		"throttled by KMS":      {t.Context(), failure.New(failure.Throttled, "KMS_Rejected.Throttling", "no"), true},
		"corrupt":               {t.Context(), failure.New(failure.Corrupt, "CMK_FOREIGN", "no"), true},
		"unknown":               {t.Context(), errors.New("x"), true},
	} {
		var out bytes.Buffer
		newFailureLog(slog.New(slog.NewTextHandler(&out, nil))).add(test.ctx, authz.Caller{}, "Encrypt", test.err)
		if logged := out.Len() > 0; logged != test.logged {
			t.Errorf("%s: logged %q", name, out.String())
		}
	}
}
