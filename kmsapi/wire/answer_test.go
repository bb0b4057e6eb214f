package wire_test

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http/httptest"
	"testing"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

func TestWriteResult(t *testing.T) {
	tests := map[string]struct {
		result any
		want   string
	}{
		"nothing":      {nil, `{"RequestId":"ID-1"}`},
		"empty object": {struct{}{}, `{"RequestId":"ID-1"}`},
		"object":       {map[string]any{"KeyId": "k"}, `{"RequestId":"ID-1","KeyId":"k"}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			if err := wire.WriteResult(w, &wire.Request{ID: "ID-1"}, tt.result); err != nil {
				t.Fatal(err)
			}
			if w.Code != 200 || w.Body.String() != tt.want || w.Header().Get("x-acs-request-id") != "ID-1" {
				t.Errorf("got %d %s %v", w.Code, w.Body, w.Header())
			}
		})
	}
}

func TestWriteError(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		code   string
	}{
		{wire.MissingParameter("KeyId"), 400, "MissingParameter"},
		{wire.ErrUnknownAccessKey, 404, "InvalidAccessKeyId.NotFound"},
		{errors.New("disk on fire"), 500, "InternalFailure"},
	} {
		w := httptest.NewRecorder()
		if err := wire.WriteError(w, &wire.Request{ID: "ID-1", Host: "kms.test"}, tt.err); err != nil {
			t.Fatal(err)
		}
		var body map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
		for name, value := range maps.All(body) {
			if _, ok := value.(string); !ok {
				t.Errorf("%s is %T; SDKs read strings alone", name, value)
			}
		}
		if w.Code != tt.status || body["Code"] != tt.code || body["RequestId"] != "ID-1" || body["HostId"] != "kms.test" {
			t.Errorf("%v answered %d %v", tt.err, w.Code, body)
		}
	}
}
