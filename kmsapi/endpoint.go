package kmsapi

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Endpoint is the address of a KMS.
type Endpoint struct {
	Host string // "host" or "host:port"
	TLS  bool
}

func (e Endpoint) String() string {
	if e.TLS {
		return "https://" + e.Host
	}
	return "http://" + e.Host
}

var hostPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// ParseEndpoint reads "host", "host:port", "https://host[:port]" or
// "http://host[:port]". It refuses everything that a URL can carry besides: the
// SDK would pass a path or a user on to the wire.
func ParseEndpoint(text string) (Endpoint, error) {
	raw := text
	if !strings.Contains(raw, "://") {
		raw = "https://" + raw
	}
	u, err := url.Parse(raw)
	if err != nil {
		return Endpoint{}, fmt.Errorf("endpoint %.100q is not an address: write HOST, HOST:PORT or https://HOST:PORT", withoutUser(text))
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return Endpoint{}, fmt.Errorf("endpoint %.100q: the scheme must be https or http", withoutUser(text))
	case u.User != nil:
		return Endpoint{}, fmt.Errorf("endpoint %.100q must not carry a user or password", withoutUser(text))
	case u.Host == "" || raw[len(u.Scheme):] != "://"+u.Host:
		return Endpoint{}, fmt.Errorf("endpoint %.100q must be a host and a port alone, without a path or query", withoutUser(text))
	}
	host := strings.ToLower(u.Hostname())
	if _, err := netip.ParseAddr(host); err != nil && !hostPattern.MatchString(host) {
		return Endpoint{}, fmt.Errorf("endpoint %.100q: %.100q is not a host name", text, host)
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return Endpoint{}, fmt.Errorf("endpoint %.100q: the port must be 1 to 65535", text)
		}
		host += ":" + port
	} else if strings.HasSuffix(u.Host, ":") {
		return Endpoint{}, fmt.Errorf("endpoint %.100q: the port is missing after the colon", text)
	}
	return Endpoint{Host: host, TLS: u.Scheme == "https"}, nil
}

// withoutUser cuts what could be a password from an endpoint to be quoted.
func withoutUser(text string) string {
	if i := strings.LastIndex(text, "@"); i >= 0 {
		return "..." + text[i:]
	}
	return text
}

// alibaba reports that the host is a name of the region's KMS.
func (e Endpoint) alibaba(region string) bool {
	host, port, err := net.SplitHostPort(e.Host)
	if err != nil {
		host, port = e.Host, "443"
	}
	return port == "443" && (host == "kms."+region+".aliyuncs.com" || host == "kms-vpc."+region+".aliyuncs.com")
}
