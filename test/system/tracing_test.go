package system

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/kmsbroker/kmsbroker/test/stage"
)

// traces collects what a daemon exports.
type traces struct {
	mu    sync.Mutex
	spans map[string]*tracepb.Span // by ID
	raw   bytes.Buffer
}

func (c *traces) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var req collector.ExportTraceServiceRequest
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &req) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw.Write(body)
	for _, resource := range req.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.spans[string(span.GetSpanId())] = span
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// paths are the names from the root to each span.
func (c *traces) paths() map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[string]bool{}
	for _, span := range c.spans {
		path := span.GetName()
		for parent := c.spans[string(span.GetParentSpanId())]; parent != nil; parent = c.spans[string(parent.GetParentSpanId())] {
			path = parent.GetName() + " > " + path
		}
		found[path] = true
	}
	return found
}

// TestTraces: a trace goes from the door over the core to KMS and the plugin, and has
// nothing of what is encrypted.
func TestTraces(t *testing.T) {
	c := &traces{spans: map[string]*tracepb.Span{}}
	server := httptest.NewServer(c)
	defer server.Close()
	s := stage.New(t, stage.Options{})
	s.Configure("[backend.hsm]", fmt.Sprintf("[tracing]\nendpoint = %q\n\n[backend.hsm]", server.URL))
	daemon := s.Start()
	s.Import("app-1")
	const secret = "a secret that is not traced"
	sealed := s.CtlInput([]byte(secret), s.Application(), "encrypt", "--key", "app-1", "--context", "hidden-name=hidden-value")
	s.Must(sealed, nil)
	s.Must(s.CtlInput([]byte(sealed.Stdout), s.Application(), "decrypt", "--context", "hidden-name=hidden-value"), nil)
	s.Must(s.CtlInput([]byte(secret), s.Application(), "encrypt", "--envelope", "--key", "app-1"), nil)
	s.Refused(s.CtlInput([]byte(secret), s.Application(), "encrypt", "--key", secret), 4, "no grant")
	daemon.Stop() // which sends the last

	found := c.paths()
	for _, path := range []string{
		"/kmsbroker.v1.Crypto/Encrypt > core encrypt > KMS Encrypt",
		"/kmsbroker.v1.Crypto/Encrypt > core encrypt > wait for a turn at KMS",
		"/kmsbroker.v1.Crypto/Decrypt > core decrypt > KMS Decrypt",
		"/kmsbroker.v1.Crypto/CreateMessageKey > core seal > KMS GenerateDataKey",
		"/kmsbroker.v1.Control/ImportKey > import wrap > plugin Wrap",
		"/kmsbroker.v1.Control/ImportKey > import create > KMS CreateKey",
	} {
		if !found[path] {
			t.Errorf("there is no %s in %v", path, found)
		}
	}
	for _, hidden := range []string{secret, "hidden-name", "hidden-value", sealed.Stdout[:20], s.HSM.PIN, stage.AccessKeySecret} {
		if bytes.Contains(c.raw.Bytes(), []byte(hidden)) {
			t.Errorf("%q is traced", hidden)
		}
	}
}
