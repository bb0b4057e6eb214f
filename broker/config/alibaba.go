package config

import (
	"net"
	"net/netip"
	"strconv"
)

// Alibaba is the TCP address where applications are answered that sign with an
// access key of the broker's.
type Alibaba struct {
	Listen  string // host:port; "" for none
	TLSCert string // file; "" without TLS
	TLSKey  string // file
}

// alibaba reads a table that need not be there.
func (t *table) alibaba() Alibaba {
	sub, ok := t.table("alibaba")
	if !ok {
		return Alibaba{}
	}
	a := Alibaba{TLSCert: sub.absolute("tls_cert", ""), TLSKey: sub.absolute("tls_key", "")}
	if sub.present("listen") {
		a.Listen = sub.text("listen", "")
	}
	loopback, valid := listenAddress(a.Listen)
	switch {
	case !sub.isText("listen"):
	case !valid:
		sub.problem("listen", "%s must be an IP address and a port such as \"127.0.0.1:8765\", not %q", sub.full("listen"), a.Listen)
	case sub.has("tls_cert") != sub.has("tls_key"):
		sub.problem("tls_cert", "%s and %s go together", sub.full("tls_cert"), sub.full("tls_key"))
	case !loopback && !sub.has("tls_cert"):
		sub.problem("listen", "%s: plaintexts would go over the network without TLS: give %s and %s, or a loopback address",
			sub.full("listen"), sub.full("tls_cert"), sub.full("tls_key"))
	}
	sub.done()
	return a
}

// listenAddress reports whether text is an IP address with a port, and whether
// that is of this machine alone. A name would mean what a resolver makes of it.
func listenAddress(text string) (loopback, valid bool) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return false, false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return false, false
	}
	addr, err := netip.ParseAddr(host)
	return addr.IsLoopback(), err == nil
}
