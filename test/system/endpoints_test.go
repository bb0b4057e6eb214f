package system

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// TestFallback: the first address is used as long as it answers, and the second when
// it does not, which costs no call.
func TestFallback(t *testing.T) {
	s := stage.New(t, stage.Options{})
	var met atomic.Int64
	vpc := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		met.Add(1)
		s.KMS.ServeHTTP(w, r)
	}))
	s.Configure(fmt.Sprintf("endpoint         = %q", s.EndpointURL()), fmt.Sprintf("endpoint         = [%q, %q]", vpc.URL, s.EndpointURL()))
	s.Start()
	s.Import("app-1")
	encrypt := func() { s.Must(s.CtlInput([]byte("x"), s.Application(), "encrypt", "--key", "app-1"), nil) }
	encrypt()
	if public := s.Actions("Encrypt"); met.Load() == 0 || public != 0 {
		t.Errorf("%d requests came to the first address, %d encryptions to the second", met.Load(), public)
	}
	vpc.CloseClientConnections()
	vpc.Close()
	for range 20 {
		encrypt()
	}
	if public := s.Actions("Encrypt"); public != 20 {
		t.Errorf("%d encryptions came to the second address", public)
	}
	if shown := s.Ctl(s.Control(), "status"); !strings.Contains(shown.Stdout, vpc.URL) || !strings.Contains(shown.Stdout, "circuit open") {
		t.Errorf("status does not tell of the address that failed:\n%s", shown.Stdout)
	}
}

// TestQuotasMeet: with the documented quotas on both sides, a crowd of callers waits
// for its turn and is never told by KMS that it came too fast.
func TestQuotasMeet(t *testing.T) {
	s := stage.New(t, stage.Options{Quota: true})
	var throttled atomic.Int64
	s.Intercept(func(w http.ResponseWriter, r *http.Request, kms http.Handler) bool {
		seen := httptest.NewRecorder()
		kms.ServeHTTP(seen, r)
		if seen.Code == http.StatusTooManyRequests {
			throttled.Add(1)
		}
		maps.Copy(w.Header(), seen.Header())
		w.WriteHeader(seen.Code)
		_, _ = w.Write(seen.Body.Bytes())
		return false
	})
	s.Start()
	s.Import("app-1")
	app, err := client.New(s.Application())
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var done atomic.Int64
	var callers sync.WaitGroup
	for range 64 {
		callers.Go(func() {
			for ctx.Err() == nil {
				_, err := app.Encrypt(t.Context(), "app-1", []byte("x"), nil)
				if err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	callers.Wait()
	t.Logf("%d encryptions in 3 s", done.Load())
	if throttled.Load() != 0 || done.Load() == 0 {
		t.Errorf("%d of %d calls were throttled by KMS", throttled.Load(), done.Load())
	}
}
