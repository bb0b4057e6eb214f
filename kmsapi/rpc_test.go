package kmsapi

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aliyun/alibaba-cloud-sdk-go/services/ram"
)

func newRPC(t *testing.T, url string) *RPC {
	t.Helper()
	rpc, err := NewRPC(RPCConfig{Service: "RAM", Region: "cn-hangzhou", Endpoint: url, Credentials: StaticCredentials(testCredentials)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rpc.Close)
	return rpc
}

func getUser(t *testing.T, rpc *RPC) (*ram.GetUserResponse, error) {
	req, resp := ram.CreateGetUserRequest(), ram.CreateGetUserResponse()
	req.UserName = "broker"
	return resp, rpc.Do(t.Context(), req, resp)
}

func TestRPC(t *testing.T) {
	var form map[string][]string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI != "/" || r.Method != http.MethodPost {
			t.Errorf("request line is %s %s", r.Method, r.RequestURI)
		}
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		form = r.PostForm
		if got := r.PostForm.Get("Signature"); got != signature(r.PostForm, testSecret) {
			t.Errorf("Signature %q", got)
		}
		answerWith(http.StatusOK, `{"RequestId":"r","User":{"UserName":"broker"}}`)(w, r)
	}))
	defer server.Close()
	resp, err := getUser(t, newRPC(t, server.URL))
	if err != nil || resp.User.UserName != "broker" {
		t.Errorf("%+v, %v", resp.User, err)
	}
	for name, want := range map[string]string{"Action": "GetUser", "Version": "2015-05-01", "UserName": "broker", "AccessKeyId": testKeyID, "SecurityToken": testToken} {
		if len(form[name]) != 1 || form[name][0] != want {
			t.Errorf("%s = %q", name, form[name])
		}
	}
}

func TestRPCFailures(t *testing.T) {
	tests := []struct {
		name    string
		status  int
		body    string
		code    string
		unknown bool
		says    string
	}{
		{"refusal", 404, `{"Code":"EntityNotExist.User","Message":"m","RequestId":"r"}`, "EntityNotExist.User", false, "GetUser: EntityNotExist.User: m (HTTP 404, request r)"},
		{"error", 500, `{"Code":"InternalError","Message":"m","RequestId":"r"}`, "InternalError", true, "InternalError"},
		{"HTML", 502, "<html>", "", true, "GetUser: unreadable answer from RAM (HTTP 502)"},
		{"empty object", 200, "{}", "", true, "RequestId in the answer is missing"},
		{"wrong types", 200, `{"RequestId":"r","User":[1]}`, "", true, "documented form"},
		{"redirect", 307, "", "", true, "redirects"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(answerWith(tt.status, tt.body))
			defer server.Close()
			_, err := getUser(t, newRPC(t, server.URL))
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Code != tt.code || e.Service != "RAM" || e.OutcomeUnknown() != tt.unknown || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %#v: %v", e, err)
			}
			mustNotLeak(t, err)
		})
	}
}

func TestRPCUnreachable(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	_, err := getUser(t, newRPC(t, server.URL))
	if err == nil || !strings.Contains(err.Error(), "RAM") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
	mustNotLeak(t, err)
}

func TestRPCConfiguration(t *testing.T) {
	for _, config := range []RPCConfig{{Region: "cn-hangzhou"}, {Endpoint: "h"}, {Region: "cn-hangzhou", Endpoint: "http://h/x"}} {
		if _, err := NewRPC(config); err == nil {
			t.Errorf("%+v was taken", config)
		}
	}
	t.Setenv("DEBUG", "sdk")
	if _, err := NewRPC(RPCConfig{Region: "cn-hangzhou", Endpoint: "h"}); err == nil {
		t.Error("DEBUG=sdk was taken")
	}
}
