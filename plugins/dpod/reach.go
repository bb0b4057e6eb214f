package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/plugins/internal/chrystoki"
)

// reachTime is how long the service's hosts may take to accept a connection.
const reachTime = 2 * time.Second

// withReach adds to a failure which of the service's hosts can be reached: the
// library answers with the same code whether the token service, the way to the
// partition or the partition itself is in trouble.
func withReach(ctx context.Context, err error, conf *chrystoki.Config) error {
	e, ok := errors.AsType[*hsm.Error](err)
	if !ok || e.Reason != hsm.TokenGone && e.Reason != hsm.NotFound && e.Reason != hsm.Internal {
		return err
	}
	var found []string
	for _, host := range hosts(conf) {
		found = append(found, host.what+" "+host.reach(ctx))
	}
	if len(found) == 0 {
		return err
	}
	told := *e
	told.Detail += ": " + strings.Join(found, ", ")
	return &told
}

// host is one that the service client talks to.
type host struct{ what, address string }

// hosts are those that the configuration names. A client before version 10.2 knows
// no token service.
func hosts(conf *chrystoki.Config) []host {
	var all []host
	if u, err := url.Parse(conf.Value(chrystoki.RESTSection, keyConfigURI)); err == nil && u.Hostname() != "" {
		all = append(all, host{"the token service", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443"))})
	}
	name, port := conf.Value(chrystoki.RESTSection, keyServerName), conf.Value(chrystoki.RESTSection, keyServerPort)
	if name != "" && port != "" {
		all = append(all, host{"the HSM service", net.JoinHostPort(name, port)})
	}
	return all
}

// reach says whether a connection can be made, in the words of the kernel or of
// DNS.
func (h host) reach(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", h.address)
	if err != nil {
		return fmt.Sprintf("(%s) cannot be reached: %v", h.address, err)
	}
	_ = conn.Close() // it was there
	return fmt.Sprintf("(%s) can be reached", h.address)
}
