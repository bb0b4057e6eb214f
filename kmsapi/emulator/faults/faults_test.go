package faults_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/faults"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

func set(t *testing.T, seed uint64, rules ...faults.Rule) *faults.Injector {
	t.Helper()
	in := &faults.Injector{}
	if err := in.Set(faults.Plan{Seed: seed, Rules: rules}); err != nil {
		t.Fatal(err)
	}
	return in
}

func TestPickSelects(t *testing.T) {
	in := set(t, 1,
		faults.Rule{Kind: faults.Reset, Action: "Create*", Region: "cn-shanghai"},
		faults.Rule{Kind: faults.HTML, Action: "Encrypt", Count: 2},
		faults.Rule{Kind: faults.Internal, Region: "eu-*"},
	)
	for _, tt := range []struct {
		action, region string
		want           faults.Kind
	}{
		{"CreateKey", "cn-shanghai", faults.Reset},
		{"CreateKey", "cn-hangzhou", ""},
		{"Encrypt", "eu-west-1", faults.HTML},
		{"Encrypt", "eu-west-1", faults.HTML},
		{"Encrypt", "eu-west-1", faults.Internal}, // the count is used up
		{"Encrypt", "cn-hangzhou", ""},
		{"CreateUser", "", ""},
	} {
		got, ok := in.Pick(tt.action, tt.region)
		if got.Kind != tt.want || ok != (tt.want != "") {
			t.Errorf("%s in %q: %q, want %q", tt.action, tt.region, got.Kind, tt.want)
		}
	}
	if got := in.Hits(); !slices.Equal(got, []int{1, 2, 1}) {
		t.Errorf("hits %v", got)
	}
	if _, ok := (&faults.Injector{}).Pick("Encrypt", "r"); ok {
		t.Error("a fault without a plan")
	}
}

// TestSeedRepeats finds the same requests hit in every run of a seed, about as
// many as the probability says, and others with another seed.
func TestSeedRepeats(t *testing.T) {
	quarter := 0.25
	run := func(seed uint64) (hits string) {
		in := set(t, seed, faults.Rule{Kind: faults.Reset, Probability: &quarter})
		for range 1000 {
			_, hit := in.Pick("Encrypt", "r")
			hits += fmt.Sprintf("%.1t", hit)
		}
		return hits
	}
	first := run(7)
	if n := strings.Count(first, "t"); n < 200 || n > 300 {
		t.Errorf("%d of 1000 requests hit", n)
	}
	if run(7) != first || run(8) == first {
		t.Error("the seed does not decide")
	}
	never := 0.0
	if _, hit := set(t, 7, faults.Rule{Kind: faults.Reset, Probability: &never}).Pick("Encrypt", "r"); hit {
		t.Error("probability 0 hits")
	}
}

func TestSetRefuses(t *testing.T) {
	over := 1.5
	in := set(t, 1, faults.Rule{Kind: faults.Reset})
	for name, r := range map[string]faults.Rule{
		"unknown kind":       {Kind: "explosion"},
		"no kind":            {},
		"probability":        {Kind: faults.Reset, Probability: &over},
		"count":              {Kind: faults.Reset, Count: -1},
		"skew without skew":  {Kind: faults.Skew},
		"reset with skew":    {Kind: faults.Reset, Skew: faults.Duration(time.Hour)},
		"latency for free":   {Kind: faults.Latency},
		"latency afterwards": {Kind: faults.Latency, Delay: 1, After: true},
	} {
		if err := in.Set(faults.Plan{Rules: []faults.Rule{r}}); err == nil {
			t.Errorf("%s passes", name)
		}
	}
	if _, ok := in.Pick("Encrypt", "r"); !ok {
		t.Error("a refused plan replaced the one before")
	}
}

func TestAnswers(t *testing.T) {
	request := &wire.Request{ID: "ID-1", Host: "kms.test", Action: "Encrypt"}
	for kind, want := range map[faults.Kind]struct {
		status int
		body   string
	}{
		faults.Throttling:  {429, `"Code":"Rejected.Throttling"`},
		faults.FlowControl: {400, `"Code":"Throttling.User"`},
		faults.Internal:    {500, `"Code":"InternalFailure"`},
		faults.Unavailable: {503, `"Code":"ServiceUnavailableTemporary"`},
		faults.HTML:        {502, "<html>"},
	} {
		w := httptest.NewRecorder()
		if err := (faults.Rule{Kind: kind}).Answer(w, request); err != nil {
			t.Fatal(err)
		}
		if w.Code != want.status || !strings.Contains(w.Body.String(), want.body) {
			t.Errorf("%s answers %d %s", kind, w.Code, w.Body)
		}
	}
}

func TestReset(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := (faults.Rule{Kind: faults.Reset}).Answer(w, &wire.Request{}); err != nil {
			t.Error(err)
		}
	})
	for name, start := range map[string]func(http.Handler) *httptest.Server{
		"TCP": httptest.NewServer, "TLS": httptest.NewTLSServer,
		"HTTP/2": func(h http.Handler) *httptest.Server {
			s := httptest.NewUnstartedServer(h)
			s.EnableHTTP2 = true
			s.StartTLS()
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			web := start(handler)
			defer web.Close()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, web.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := web.Client().Do(r)
			if err == nil {
				response.Body.Close()
				t.Fatalf("answered %s", response.Status)
			}
			if name != "HTTP/2" && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %v, want a reset", err)
			}
		})
	}
}

func TestControl(t *testing.T) {
	in := &faults.Injector{}
	do := func(method, body string) (int, string) {
		w := httptest.NewRecorder()
		in.ServeHTTP(w, httptest.NewRequest(method, "/-/faults", strings.NewReader(body)))
		data, err := io.ReadAll(w.Result().Body)
		if err != nil {
			t.Fatal(err)
		}
		return w.Code, string(data)
	}
	if status, body := do(http.MethodPut, `{"seed":3,"rules":[{"kind":"latency","action":"Enc*","delay":"5ms","probability":0.5},{"kind":"skew","skew":"-20m"}]}`); status != http.StatusNoContent {
		t.Fatalf("%d %s", status, body)
	}
	if r, ok := in.Pick("Decrypt", "r"); !ok || time.Duration(r.Skew) != -20*time.Minute {
		t.Errorf("picked %+v", r)
	}
	status, body := do(http.MethodGet, "")
	var shown struct {
		faults.Plan
		Hits []int
	}
	if err := json.Unmarshal([]byte(body), &shown); err != nil || status != http.StatusOK || shown.Seed != 3 || !slices.Equal(shown.Hits, []int{0, 1}) || time.Duration(shown.Rules[0].Delay) != 5*time.Millisecond {
		t.Errorf("%d %s", status, body)
	}
	for _, bad := range []string{"", `{"rules":[{"kind":"x"}]}`, `{"rulez":[]}`, `{"rules":[{"kind":"latency","delay":"soon"}]}`} {
		if status, _ := do(http.MethodPut, bad); status != http.StatusBadRequest {
			t.Errorf("%q is answered %d", bad, status)
		}
	}
	if status, _ := do(http.MethodPost, "{}"); status != http.StatusMethodNotAllowed {
		t.Errorf("POST is answered %d", status)
	}
	if status, _ := do(http.MethodDelete, ""); status != http.StatusNoContent {
		t.Errorf("DELETE is answered %d", status)
	}
	if _, ok := in.Pick("Encrypt", "r"); ok {
		t.Error("a fault is left")
	}
}
