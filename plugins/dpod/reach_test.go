package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/plugins/internal/chrystoki"
)

// TestReach tells a token service that is away from an HSM service that is.
func TestReach(t *testing.T) {
	up, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	conf := func(token, service net.Listener) *chrystoki.Config {
		host, port, err := net.SplitHostPort(service.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := chrystoki.Parse(fmt.Sprintf("REST = {\n AuthTokenConfigURI = https://%s/.well-known;\n ServerName = %s;\n ServerPort = %s;\n}\n",
			token.Addr(), host, port))
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	lost := &hsm.Error{Reason: hsm.TokenGone, Code: "CKR_DEVICE_ERROR", Detail: "open token"}
	for _, test := range []struct {
		token, service net.Listener
		err            error
		want           []string
	}{
		{up, gone, lost, []string{"token service (" + up.Addr().String() + ") can be", "HSM service (" + gone.Addr().String() + ") cannot be", "refused"}},
		{gone, up, lost, []string{"token service (" + gone.Addr().String() + ") cannot be", "HSM service (" + up.Addr().String() + ") can be"}},
		{gone, up, hsm.Errorf(hsm.PINIncorrect, "log in"), []string{"log in"}},
	} {
		err := withReach(t.Context(), test.err, conf(test.token, test.service))
		if hsm.ReasonOf(err) != hsm.ReasonOf(test.err) || !errors.Is(err, hsm.ReasonOf(test.err)) {
			t.Errorf("the reason became %v", err)
		}
		for _, word := range test.want {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%v: %q lacks %q", test.err, err, word)
			}
		}
	}
	if err := withReach(t.Context(), hsm.Errorf(hsm.PINIncorrect, "log in"), conf(gone, gone)); err.Error() != "log in" {
		t.Errorf("a wrong PIN is nobody's network: %v", err)
	}
}
