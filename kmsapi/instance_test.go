package kmsapi

import (
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestWrappingAlgorithms(t *testing.T) {
	if got := WrappingAlgorithms(""); !slices.Equal(got, []string{WrapOAEPSHA256, WrapOAEPSHA1, WrapPKCS1v15}) {
		t.Errorf("of the shared gateway: %v", got)
	}
	if got := WrappingAlgorithms("kst-1"); got[0] != WrapOAEPSHA256 || slices.Contains(got, WrapOAEPSHA1) {
		t.Errorf("of an instance: %v", got)
	}
}

func TestInstanceEndpoint(t *testing.T) {
	text, err := InstanceEndpoint("kst-bjj66example")
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(ClientConfig{
		Region: "cn-hangzhou", Endpoint: text, RootCAs: x509.NewCertPool(), Credentials: StaticCredentials(testCredentials),
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Endpoint{"kst-bjj66example.cryptoservice.kms.aliyuncs.com", true}); c.Endpoint() != want || c.Genuine() {
		t.Errorf("%v, genuine %v", c.Endpoint(), c.Genuine())
	}
	for _, id := range []string{"", "-a", "kst.evil.example", "kst-1/", "kst@evil", "KST-1", "kst 1", "http://kst", strings.Repeat("k", 64)} {
		if text, err := InstanceEndpoint(id); err == nil {
			t.Errorf("%q gives %q", id, text)
		}
	}
}

// TestSplit: plaintexts go to the one side and nothing else does; key material
// goes to the other.
func TestSplit(t *testing.T) {
	data := []string{"Encrypt", "Decrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext"}
	var called string
	side := func(name string) *Client {
		c, err := NewClient(ClientConfig{Region: "cn-hangzhou", Endpoint: "http://" + name, Credentials: StaticCredentials(testCredentials)})
		if err != nil {
			t.Fatal(err)
		}
		c.transport.RegisterProtocol("http", roundTripper(func(*http.Request) (*http.Response, error) {
			called = name
			answer := httptest.NewRecorder()
			answer.WriteHeader(http.StatusConflict)
			return answer.Result(), nil
		}))
		return c
	}
	kms := NewSplit(side("data"), side("management"))
	for m := range reflect.TypeFor[KMS]().Methods() {
		called = ""
		args := []reflect.Value{reflect.ValueOf(t.Context())}
		for i := 1; i < m.Type.NumIn(); i++ {
			args = append(args, reflect.Zero(m.Type.In(i)))
		}
		reflect.ValueOf(kms).MethodByName(m.Name).Call(args)
		want := "management"
		if slices.Contains(data, m.Name) {
			want = "data"
		}
		if called != want {
			t.Errorf("%s goes to %q, want %s", m.Name, called, want)
		}
	}
}
