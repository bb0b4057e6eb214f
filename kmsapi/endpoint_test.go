package kmsapi

import (
	"crypto/x509"
	"strings"
	"testing"
)

func TestEndpoints(t *testing.T) {
	tests := []struct {
		text    string
		want    Endpoint
		genuine bool
	}{
		{"", Endpoint{"kms.cn-hangzhou.aliyuncs.com", true}, true},
		{"KMS.cn-hangzhou.aliyuncs.com", Endpoint{"kms.cn-hangzhou.aliyuncs.com", true}, true},
		{"kms-vpc.cn-hangzhou.aliyuncs.com:443", Endpoint{"kms-vpc.cn-hangzhou.aliyuncs.com:443", true}, true},
		{"https://kst-1.cryptoservice.kms.aliyuncs.com", Endpoint{"kst-1.cryptoservice.kms.aliyuncs.com", true}, false},
		{"kms.eu-central-1.aliyuncs.com", Endpoint{"kms.eu-central-1.aliyuncs.com", true}, false}, // another region
		{"kms.cn-hangzhou.aliyuncs.com:8443", Endpoint{"kms.cn-hangzhou.aliyuncs.com:8443", true}, false},
		{"bucket.oss-cn-hangzhou.aliyuncs.com", Endpoint{"bucket.oss-cn-hangzhou.aliyuncs.com", true}, false}, // a customer's name
		{"http://kms.cn-hangzhou.aliyuncs.com", Endpoint{"kms.cn-hangzhou.aliyuncs.com", false}, false},
		{"HTTP://kms.cn-hangzhou.aliyuncs.com", Endpoint{"kms.cn-hangzhou.aliyuncs.com", false}, false},
		{"aliyuncs.com", Endpoint{"aliyuncs.com", true}, false},
		{"evilaliyuncs.com", Endpoint{"evilaliyuncs.com", true}, false},
		{"kms.aliyuncs.com.evil.example", Endpoint{"kms.aliyuncs.com.evil.example", true}, false},
		{"127.0.0.1:8080", Endpoint{"127.0.0.1:8080", true}, false},
		{"http://127.0.0.1:8080", Endpoint{"127.0.0.1:8080", false}, false},
		{"https://[::1]:8080", Endpoint{"[::1]:8080", true}, false},
		{"[::1]", Endpoint{"[::1]", true}, false},
	}
	t.Setenv("SSL_CERT_FILE", "")
	t.Setenv("SSL_CERT_DIR", "")
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			c, err := NewClient(ClientConfig{Region: "cn-hangzhou", Endpoint: tt.text, Credentials: StaticCredentials(testCredentials)})
			if err != nil {
				t.Fatal(err)
			}
			if c.Endpoint() != tt.want || c.Genuine() != tt.genuine {
				t.Errorf("got %v, genuine %v", c.Endpoint(), c.Genuine())
			}
			c, err = NewClient(ClientConfig{
				Region: "cn-hangzhou", Endpoint: tt.text, Credentials: StaticCredentials(testCredentials), RootCAs: x509.NewCertPool(),
			})
			if err != nil {
				t.Fatal(err)
			}
			if c.Genuine() {
				t.Error("genuine although the roots are not the system's")
			}
		})
	}
}

// TestRootsFromTheEnvironment: whoever sets these variables chooses whom TLS
// believes.
func TestRootsFromTheEnvironment(t *testing.T) {
	c, err := NewClient(ClientConfig{Region: "cn-hangzhou", Credentials: StaticCredentials(testCredentials)})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"SSL_CERT_FILE", "SSL_CERT_DIR"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SSL_CERT_FILE", "")
			t.Setenv("SSL_CERT_DIR", "")
			if !c.Genuine() {
				t.Error("not genuine although nothing is set")
			}
			t.Setenv(name, "/tmp/roots")
			if c.Genuine() {
				t.Error("genuine with somebody's roots")
			}
		})
	}
}

var badEndpoints = []string{
	" ", "/", "https://", "https:///", "kms.example/", "kms.example/path", "kms.example?x=1", "kms.example?", "kms.example#f", "kms.example#",
	"user@kms.example", "https://user:secret@kms.example", "https://user:secret@kms.exa mple", "ftp://kms.example", "unix:///run/x.sock",
	"kms.example:", "kms.example:0", "kms.example:65536", "kms.example:http", "kms..example:-1", "-kms.example", "kms.example.",
	"kms_example", "kms%2eexample", "kms.exämple", "[::1", "[fe80::1%25eth0]", "::1", "kms.example\n", "a\x00b", "https://https://kms.example",
}

func TestBadEndpoints(t *testing.T) {
	for _, text := range badEndpoints {
		if e, err := ParseEndpoint(text); err == nil {
			t.Errorf("%q is taken for %v", text, e)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error quotes a password: %v", text, err)
		}
	}
}

// FuzzParseEndpoint: what is accepted is stable and has nothing but a host.
func FuzzParseEndpoint(f *testing.F) {
	for _, text := range append(badEndpoints, "kms.example", "http://127.0.0.1:80", "[::1]:443") {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseEndpoint(text)
		if err != nil {
			return
		}
		if strings.ContainsAny(e.Host, "/?#@%\\ \r\n") {
			t.Errorf("%q is taken for %q", text, e.Host)
		}
		if again, err := ParseEndpoint(e.String()); err != nil || again != e {
			t.Errorf("%q: %v becomes %v, %v", text, e, again, err)
		}
	})
}
