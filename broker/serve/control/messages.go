package control

import (
	"strings"
	"unicode"

	"google.golang.org/protobuf/types/known/durationpb"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/proxy"
)

func backendMessages(all []backend.Status) []*v1.Backend {
	messages := make([]*v1.Backend, len(all))
	for i, s := range all {
		messages[i] = backendMessage(s)
	}
	return messages
}

func backendMessage(s backend.Status) *v1.Backend {
	m := &v1.Backend{
		Name: s.Name, Plugin: s.Plugin, State: string(s.State), Restarts: uint32(s.Restarts), Pid: int32(s.PID),
		AllowForeignEndpoint: s.AllowForeignEndpoint,
	}
	if s.Err != nil {
		m.Error = s.Err.Error()
	}
	if info := s.Info; info != nil {
		m.Token = &v1.Backend_Token{
			Manufacturer: info.Manufacturer, Model: info.Model, Serial: info.Serial, Label: info.Label,
			Firmware: info.Firmware, Library: info.Library, Role: string(info.Role), Fips: info.FIPS,
			MaxSessions: uint32(info.MaxSessions),
		}
		for _, a := range info.WrappingAlgorithms {
			m.Token.WrappingAlgorithms = append(m.Token.WrappingAlgorithms, string(a))
		}
		for _, p := range info.Policies {
			m.Token.Policies = append(m.Token.Policies, &v1.Backend_Policy{
				Number: uint32(max(p.Number, 0)), Name: p.Name, Value: uint32(max(p.Value, 0)),
			})
		}
	}
	return m
}

// checkRequest reads how a backend shall be checked.
func checkRequest(req *v1.CheckBackendRequest) (backend.CheckRequest, error) {
	asked := backend.CheckRequest{Destructive: req.GetDestructive()}
	client := req.GetClient()
	const longest = 64
	if len(client) > longest || strings.ContainsFunc(client, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return asked, failure.New(failure.Invalid, "CLIENT", "the name of the client is longer than %d bytes or cannot be printed", longest)
	}
	if client != "" {
		asked.RunBy = []string{client}
	}
	return asked, nil
}

func backendKeyMessage(k broker.BackendKey) *v1.BackendKey {
	return &v1.BackendKey{
		Id: string(k.ID), Label: k.Label, Type: k.Type, Bits: uint32(k.Bits),
		Sensitive: k.Sensitive, Extractable: k.Extractable, Local: k.Local, Key: k.Name, Vendor: k.Vendor,
	}
}

func statusMessage(s broker.Status) *v1.StatusResponse {
	m := &v1.StatusResponse{
		Version: s.Version, StartedAt: timestamp(s.StartedAt), InstanceId: s.InstanceID,
		Backends: backendMessages(s.Backends), Keys: uint32(s.Keys), Unfinished: importMessages(s.Unfinished),
		Audit: &v1.StatusResponse_Audit{Records: s.AuditSeq, Head: s.AuditHead},
	}
	m.EvidenceFingerprint = s.EvidenceFingerprint
	m.DataKeys = &v1.StatusResponse_DataKeys{
		Cached: uint32(s.DataKeys.Keys), RevocationLag: durationpb.New(s.DataKeys.Age), Offline: durationpb.New(s.DataKeys.Offline),
	}
	for _, r := range s.Regions {
		endpoint := &v1.StatusResponse_Endpoint{Url: r.URL, Region: r.Region, Genuine: r.Genuine}
		for _, a := range r.Addresses {
			endpoint.Addresses = append(endpoint.Addresses, &v1.StatusResponse_Address{
				Name: a.Name, State: string(a.State), LastError: a.LastError, LastErrorAt: timestamp(a.LastErrorAt),
			})
		}
		if r.Default {
			m.Endpoint = endpoint
		} else {
			m.OtherRegions = append(m.OtherRegions, endpoint)
		}
	}
	for i := range s.Proxy {
		m.Proxy = append(m.Proxy, proxyMessage(&s.Proxy[i]))
	}
	for _, e := range s.Expiring {
		m.Expiring = append(m.Expiring, expiryMessage(e))
	}
	if s.AuditErr != nil {
		m.Audit.Error = s.AuditErr.Error()
	}
	return m
}

func proxyMessage(s *proxy.Status) *v1.StatusResponse_Proxy {
	return &v1.StatusResponse_Proxy{
		Backend: s.Name, Clients: uint32(s.Clients), ClientSessions: uint32(s.ClientSessions),
		Lent: uint32(s.Lent()), Parked: uint32(s.Parked), Idle: uint32(s.Idle), Most: uint32(s.Most),
		Waiting: uint32(s.Waiting), Late: s.Counts.Late, Resumable: s.Counts.Resumable, Lost: s.Counts.Lost,
	}
}

func expiryMessage(e broker.Expiry) *v1.StatusResponse_Expiry {
	m := &v1.StatusResponse_Expiry{
		Key: e.Key, KeyId: e.KeyID, Region: e.Region, ExpiresAt: timestamp(e.At),
		RenewedAt: timestamp(e.Renewed.At), RenewalError: e.Renewed.Error,
	}
	if e.Ahead > 0 {
		m.RenewAhead = durationpb.New(e.Ahead)
	}
	return m
}
