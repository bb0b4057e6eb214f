package emulator_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/faults"
)

// plan sets faults through the control endpoint.
func (f *fixture) plan(rules string) {
	f.t.Helper()
	status, body := f.control(http.MethodPut, "faults", `{"rules":[`+rules+`]}`)
	if status != http.StatusNoContent {
		f.t.Fatalf("faults: %d %s", status, body)
	}
}

func (f *fixture) control(method, name, body string) (int, string) {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), method, "http://"+f.host+"/-/"+name, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return response.StatusCode, string(data)
}

func (f *fixture) countKeys() int {
	f.t.Helper()
	return len(f.ok("ListKeys", nil).list("Keys", "Key"))
}

// reset makes a call that ends in a reset.
func (f *fixture) reset(action string, p params) {
	f.t.Helper()
	r := f.request(action, p)
	f.sign(r, time.Now())
	response, err := http.DefaultClient.Do(r)
	if err == nil {
		response.Body.Close()
		f.t.Fatalf("answered %s", response.Status)
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
		f.t.Errorf("got %v, want a reset", err)
	}
}

func TestFaultsBeforeAndAfterTheEffect(t *testing.T) {
	f := start(t, emulator.Config{Control: true})
	f.plan(`{"kind":"reset","action":"CreateKey","count":1},{"kind":"reset","action":"CreateKey","count":1,"after":true},
		{"kind":"internal","action":"CreateKey","count":1,"after":true},{"kind":"unavailable","action":"CreateKey","count":1}`)
	f.reset("CreateKey", nil)
	if n := f.countKeys(); n != 0 {
		t.Fatalf("%d keys after a reset before the effect", n)
	}
	f.reset("CreateKey", nil)
	if n := f.countKeys(); n != 1 {
		t.Fatalf("%d keys after a reset after the effect", n)
	}
	f.refused(500, "InternalFailure", "CreateKey", nil)
	if n := f.countKeys(); n != 2 {
		t.Fatalf("%d keys after a failure after the effect", n)
	}
	f.refused(503, "ServiceUnavailableTemporary", "CreateKey", nil)
	if n := f.countKeys(); n != 2 {
		t.Fatalf("%d keys after a failure before the effect", n)
	}
	f.ok("CreateKey", nil)
	if _, body := f.control(http.MethodGet, "faults", ""); !strings.Contains(body, `"hits":[1,1,1,1]`) {
		t.Errorf("hits %s", body)
	}
}

func TestFaultKinds(t *testing.T) {
	f := start(t, emulator.Config{Control: true})
	f.plan(`{"kind":"throttling","action":"ListKeys"},{"kind":"flow-control","action":"ListAliases"}`)
	f.refused(429, "Rejected.Throttling", "ListKeys", nil)
	f.refused(400, "Throttling.User", "ListAliases", nil)
	f.ok("DescribeRegions", nil)

	f.plan(`{"kind":"html","region":"cn-shanghai"}`)
	f.ok("ListKeys", nil)
	r := f.request("ListKeys", params{"RegionId": "cn-shanghai"})
	f.sign(r, time.Now())
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusBadGateway || response.Header.Get("Content-Type") != "text/html" {
		t.Errorf("answered %s, %s", response.Status, response.Header.Get("Content-Type"))
	}

	f.plan(`{"kind":"skew","skew":"20m","action":"ListKeys","count":1},{"kind":"skew","skew":"-20m","action":"ListKeys","count":1},{"kind":"skew","skew":"10m","action":"ListKeys","count":1}`)
	f.refused(400, "InvalidTimeStamp.Expired", "ListKeys", nil)
	f.refused(400, "InvalidTimeStamp.Expired", "ListKeys", nil)
	f.ok("ListKeys", nil)

	begin := time.Now()
	f.plan(`{"kind":"latency","delay":"50ms","action":"ListKeys"}`)
	f.ok("ListKeys", nil)
	if took := time.Since(begin); took < 50*time.Millisecond {
		t.Errorf("a delay of 50ms took %v", took)
	}

	// RAM goes wrong as well, outside of every region.
	f.plan(`{"kind":"internal","action":"ListUsers"}`)
	if a := f.tryService(ramVersion, "ListUsers", nil); a.code() != "InternalFailure" {
		t.Errorf("answered %v", a.body)
	}
	if err := f.server.Faults().Set(faults.Plan{}); err != nil {
		t.Fatal(err)
	}
	f.service(ramVersion, "ListUsers", nil)
}

// TestAbandonedDelay ends a delay with the request.
func TestAbandonedDelay(t *testing.T) {
	f := start(t, emulator.Config{Control: true})
	f.plan(`{"kind":"latency","delay":"1h"}`)
	r := f.request("ListKeys", nil)
	f.sign(r, time.Now())
	client := &http.Client{Timeout: 50 * time.Millisecond}
	if response, err := client.Do(r); err == nil {
		response.Body.Close()
		t.Error("answered within an hour")
	} // The server of the fixture waits for the request when it closes.
}

func TestControlListsKeys(t *testing.T) {
	f := start(t, emulator.Config{Control: true})
	first, second, empty := f.importedKey(), f.importedKey(), f.newKey("EXTERNAL")
	f.ok("ImportKeyMaterial", f.wrapped(first, "RSAES_OAEP_SHA_1", wrapOAEP1, material(32)))
	other := f.newKey("Aliyun_KMS")
	r := f.request("CreateKey", params{"RegionId": "cn-shanghai", "Tags": `[{"TagKey":"a","TagValue":"b"}]`})
	f.sign(r, time.Now())
	f.send(r)

	_, body := f.control(http.MethodGet, "keys", "")
	var list []struct {
		Region, State, Material string
		KeyID                   string `json:"key_id"`
		Imports                 int
		Tags                    []struct{ TagKey, TagValue string }
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list) != 5 {
		t.Fatalf("%v: %s", err, body)
	}
	if strings.Contains(body, b64(material(32))) {
		t.Error("material is shown")
	}
	at := map[string]int{}
	for i, k := range list {
		at[k.KeyID] = i
	}
	a, b, c, d, far := list[at[first]], list[at[second]], list[at[empty]], list[at[other]], list[4]
	if a.Imports != 2 || b.Imports != 1 || c.Imports != 0 || a.State != "Enabled" || c.State != "PendingImport" {
		t.Errorf("got %s", body)
	}
	if a.Material == "" || a.Material != b.Material || c.Material != "" || d.Material == a.Material {
		t.Errorf("equal material is not seen: %s", body)
	}
	if far.Region != "cn-shanghai" || len(far.Tags) != 1 {
		t.Errorf("the key of the other region is %+v", far)
	}
}

func TestNoControlUnlessAsked(t *testing.T) {
	f := start(t, emulator.Config{})
	for _, name := range []string{"faults", "keys"} {
		if status, body := f.control(http.MethodGet, name, ""); status != http.StatusNotFound || !strings.Contains(body, "InvalidAction.NotFound") {
			t.Errorf("/-/%s is answered %d %s", name, status, body)
		}
	}
}
