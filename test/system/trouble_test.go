package system

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

// trouble is something that goes wrong outside of the daemon and is mended there.
type trouble struct {
	name   string
	begin  func(s *stage.Stage)
	end    func(s *stage.Stage)
	log    string // what the operator reads
	metric string // of which there is one then
}

var troubles = []trouble{
	{
		name: "the access key is revoked",
		begin: func(s *stage.Stage) {
			s.Intercept(refusing(http.StatusNotFound, "InvalidAccessKeyId.NotFound"))
		},
		end:    func(s *stage.Stage) { s.Intercept(nil) },
		log:    "InvalidAccessKeyId.NotFound",
		metric: `kmsbroker_kms_calls_total{operation="Encrypt",outcome="refused",region="cn-hangzhou"`,
	},
	{
		name: "the clock is stepped", // the machine's cannot be: KMS says what it then says
		begin: func(s *stage.Stage) {
			s.Intercept(refusing(http.StatusBadRequest, "InvalidTimeStamp.Expired"))
		},
		end:    func(s *stage.Stage) { s.Intercept(nil) },
		log:    "InvalidTimeStamp",
		metric: `kmsbroker_kms_calls_total{operation="Encrypt",outcome="refused",region="cn-hangzhou"`,
	},
	{
		name: "the network is gone",
		begin: func(s *stage.Stage) {
			s.Intercept(func(http.ResponseWriter, *http.Request, http.Handler) bool { panic(http.ErrAbortHandler) })
		},
		end:    func(s *stage.Stage) { s.Intercept(nil) },
		log:    "no answer from KMS",
		metric: `kmsbroker_kms_circuit_changes_total{endpoint="ENDPOINT",region="cn-hangzhou",state="open"`,
	},
}

func refusing(status int, code string) stage.Intercept {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) bool {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"RequestId":"7021b6ec-4be7-4d3c-8a68-000000000000","Code":"` + code + `","Message":"no"}`))
		return false
	}
}

// TestTroubleOutside: each ends in a line of the log and in a metric, and is over without
// a restart when it is mended.
func TestTroubleOutside(t *testing.T) {
	for _, tr := range troubles {
		t.Run(tr.name, func(t *testing.T) {
			s := stage.New(t, stage.Options{})
			daemon := s.Start()
			s.Import("app-1")
			c := newClient(t, s)
			encrypt := func() error {
				_, err := c.Encrypt(t.Context(), "app-1", []byte("x"), nil)
				return err
			}
			if err := encrypt(); err != nil {
				t.Fatal(err)
			}
			tr.begin(s)
			metric := strings.Replace(tr.metric, "ENDPOINT", s.EndpointURL(), 1)
			eventually(t, "the trouble shows in "+metric, func() bool {
				if encrypt() == nil {
					t.Error("encrypted nevertheless")
				}
				return scrape(t, s)[metric] > 0
			})
			if err := daemon.Wait(tr.log); err != nil {
				t.Errorf("the log does not tell: %v", err)
			}
			tr.end(s)
			eventually(t, "it is over", func() bool { return encrypt() == nil })
		})
	}
}

func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !happened(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 60 s", what)
		}
	}
}
