package config

import (
	"net/url"
)

// Tracing says where traces go. The zero value is nowhere.
type Tracing struct {
	Endpoint string // OTLP over HTTP, as a URL without a path
	OneIn    uint64 // of how many calls one is traced
}

// tracing reads a table that need not be there.
func (t *table) tracing() Tracing {
	sub, ok := t.table("tracing")
	if !ok {
		return Tracing{}
	}
	var c Tracing
	if sub.present("endpoint") {
		c.Endpoint = sub.text("endpoint", "")
	}
	u, err := url.Parse(c.Endpoint)
	bad := err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Path != "" && u.Path != "/"
	if sub.isText("endpoint") && bad {
		sub.problem("endpoint", "%s must be a URL such as \"http://127.0.0.1:4318\", without a user, a path or a query", sub.full("endpoint"))
	}
	const most = 1_000_000
	c.OneIn = sub.count("one_in", 1, most)
	sub.done()
	return c
}
