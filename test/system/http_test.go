package system

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"testing"
)

// formOf reads the parameters of a KMS request and leaves its body readable.
func formOf(t *testing.T, r *http.Request) url.Values {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, err := url.ParseQuery(string(body))
	if err != nil {
		t.Error(err)
	}
	if r.URL.RawQuery != "" {
		t.Errorf("parameters in the URL: %s", r.URL.RawQuery)
	}
	return form
}

// refuse answers as KMS does.
func refuse(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"Code": code, "Message": "no", "RequestId": "r"})
}
