package config

import (
	"strings"
	"testing"
)

func TestAlibaba(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "",
		"[sockets]\nalibaba = ''\n":              "",
		"[alibaba]\nlisten = '127.0.0.1:8765'\n": "",
		"[alibaba]\nlisten = '[::1]:8765'\n":     "",
		"[alibaba]\nlisten = '127.0.0.1:8765'\ntls_cert = '/c'\ntls_key = '/k'\n": "",
		"[alibaba]\nlisten = '0.0.0.0:8765'\ntls_cert = '/c'\ntls_key = '/k'\n":   "",
		"[alibaba]\n":                                                            "alibaba.listen is missing",
		"[alibaba]\nlisten = 8765\n":                                             "alibaba.listen must be a string",
		"[alibaba]\nlisten = ''\n":                                               "alibaba.listen must be an IP address and a port",
		"[alibaba]\nlisten = '8765'\n":                                           "alibaba.listen must be an IP address and a port",
		"[alibaba]\nlisten = ':8765'\n":                                          "alibaba.listen must be an IP address and a port",
		"[alibaba]\nlisten = 'localhost:8765'\n":                                 "alibaba.listen must be an IP address and a port",
		"[alibaba]\nlisten = '127.0.0.1:0'\n":                                    "alibaba.listen must be an IP address and a port",
		"[alibaba]\nlisten = '0.0.0.0:8765'\n":                                   "plaintexts would go over the network without TLS",
		"[alibaba]\nlisten = '[::]:8765'\n":                                      "plaintexts would go over the network without TLS",
		"[alibaba]\nlisten = '127.0.0.1:8765'\ntls_cert = '/c'\n":                "alibaba.tls_cert and alibaba.tls_key go together",
		"[alibaba]\nlisten = '127.0.0.1:8765'\ntls_cert = 'c'\ntls_key = '/k'\n": "alibaba.tls_cert must be an absolute path",
		"[alibaba]\nlisten = '127.0.0.1:8765'\ntls = true\n":                     "unknown key alibaba.tls",
	} {
		_, err := parse("f", []byte(minimal+text), testAccounts)
		if want == "" && err != nil || want != "" && (err == nil || strings.Count(err.Error(), "\n") > 0 || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
		}
	}
}
