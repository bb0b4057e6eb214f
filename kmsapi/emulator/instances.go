package emulator

import (
	"net/http"
	"regexp"
	"slices"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// Gateway is the dedicated gateway of a KMS instance. It speaks the cryptographic
// operations alone, ReEncrypt not among them, and knows the keys of its instance
// alone ("Differences between shared and dedicated gateways"). Whatever name it is
// called by, it is in the first region. Serve it over TLS with a certificate of a
// private authority.
func (s *Server) Gateway(instanceID string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.handle(w, r, instanceID) })
}

var validInstance = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// hasInstance reports whether there is such a KMS instance in a region.
func (s *Server) hasInstance(region, id string) bool {
	return region == s.names[0] && slices.Contains(s.instances, id)
}

// throughGateway reports whether a dedicated gateway speaks an operation.
func throughGateway(action string) bool {
	return operations[action].class == crypto && action != "ReEncrypt"
}

// sees reports whether a key is there for whoever comes through the call's
// gateway.
func (c *call) sees(k *key) bool { return c.gateway == "" || c.gateway == k.Instance }

// reach refuses to work with a key of an instance through the shared gateway,
// where it is out of reach until its owner enables access over the Internet
// ("Access keys of a KMS instance over the Internet"). Nobody does here.
func (c *call) reach(k *key) error {
	if c.op.class == crypto && c.gateway != k.Instance {
		return &wire.Error{
			Status: http.StatusForbidden, Code: "Forbidden.NoPermission",
			Message: "Key " + k.ID + " of KMS instance " + k.Instance + " can be used through the dedicated gateway of the instance only.",
		}
	}
	return nil
}
