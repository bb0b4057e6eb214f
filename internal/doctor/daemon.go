package doctor

import (
	"context"
	"errors"
	"slices"
	"time"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/client"
)

const (
	// callTime bounds each question to the daemon.
	callTime = 30 * time.Second
	// allKeysTime bounds the questions about all keys together.
	allKeysTime = time.Minute
	// startTime is what a backend may take to start.
	startTime = 10 * time.Second
)

// daemon asks the daemon how it is, and through it KMS for each key.
func (r *report) daemon(ctx context.Context, socket, version string) {
	const check = "daemon"
	conn, err := client.Dial(socket)
	if err != nil {
		r.add(check, Problem, "", "%v", err)
		return
	}
	defer conn.Close()
	control := v1.NewControlClient(conn)
	limited, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	status, err := settled(limited, control)
	if err = conn.Error(err); err != nil {
		next := "systemctl status kmsbrokerd; journalctl -u kmsbrokerd"
		if e, ok := errors.AsType[*client.Error](err); ok && e.Hint != "" {
			next = e.Hint
		}
		r.add(check, Problem, next, "%v", err)
		return
	}
	if status.GetVersion() != version {
		r.add(check, Warning, "systemctl restart kmsbrokerd after an upgrade", "it has version %s, and this is %s", status.GetVersion(), version)
	} else {
		r.ok(check, "version %s answers", version)
	}
	r.backends(status.GetBackends())
	r.trail(status.GetAudit())
	r.circuits(status)
	r.lifetimes(status)
	r.keys(ctx, conn, control)
}

// settled is the status when no backend is starting any more, or after a while.
func settled(ctx context.Context, control v1.ControlClient) (*v1.StatusResponse, error) {
	const again = 200 * time.Millisecond
	for deadline := time.Now().Add(startTime); ; {
		status, err := control.Status(ctx, &v1.StatusRequest{})
		starting := slices.ContainsFunc(status.GetBackends(), func(b *v1.Backend) bool { return backend.State(b.GetState()) == backend.Starting })
		if err != nil || !starting || time.Now().After(deadline) {
			return status, err
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return status, nil
		}
	}
}

func (r *report) backends(all []*v1.Backend) {
	for _, b := range all {
		check := "backend " + b.GetName()
		switch backend.State(b.GetState()) {
		case backend.Ready:
			t := b.GetToken()
			r.ok(check, "%s %s, serial %s, as %s", t.GetManufacturer(), t.GetModel(), t.GetSerial(), t.GetRole())
		case backend.WaitingForPIN:
			r.add(check, Problem, "kmsbrokerctl backend login "+b.GetName(), "it waits for its PIN")
		case backend.Blocked:
			r.add(check, Problem, "correct the PIN, then kmsbrokerctl backend retry-login "+b.GetName(), "a login was refused and is not tried again: %s", b.GetError())
		default:
			r.add(check, Problem, "kmsbrokerctl backend show "+b.GetName()+"; journalctl -u kmsbrokerd", "%s: %s", b.GetState(), b.GetError())
		}
		if n := b.GetRestarts(); n > 0 {
			r.add(check, Warning, "journalctl -u kmsbrokerd tells why", "its plugin was replaced %d times", n)
		}
		if b.GetAllowForeignEndpoint() {
			r.add(check, Warning, "remove allow_foreign_endpoint where keys matter", "its keys may go to a KMS that is not Alibaba Cloud's")
		}
	}
}

func (r *report) trail(a *v1.StatusResponse_Audit) {
	if a.GetError() != "" {
		r.add("audit trail", Problem, "free space or repair the disk: nothing is answered unrecorded", "%s", a.GetError())
		return
	}
	r.ok("audit trail", "%d records; check them with kmsbrokerctl audit verify", a.GetRecords())
}

func (r *report) circuits(s *v1.StatusResponse) {
	for _, e := range append([]*v1.StatusResponse_Endpoint{s.GetEndpoint()}, s.GetOtherRegions()...) {
		for _, a := range e.GetAddresses() {
			if a.GetState() != "closed" {
				r.add("KMS in "+e.GetRegion(), Problem, "the checks of the network above tell more", "%s is left alone since it failed: %s", a.GetName(), a.GetLastError())
			}
		}
	}
}

func (r *report) lifetimes(s *v1.StatusResponse) {
	for _, e := range s.GetExpiring() {
		left := time.Until(e.GetExpiresAt().AsTime())
		check := "material of " + e.GetKey()
		switch {
		case e.GetRenewalError() != "":
			r.add(check, Problem, "mend that, or kmsbrokerctl key reimport "+e.GetKey(), "it expires in %d days and could not be renewed: %s", int(left.Hours()/24), e.GetRenewalError())
		case e.GetRenewAhead() == nil && left < soon:
			r.add(check, Warning, "kmsbrokerctl key reimport "+e.GetKey()+" --expires …", "it expires in %d days and nothing renews it", int(left.Hours()/24))
		}
	}
	for _, u := range s.GetUnfinished() {
		r.add("import of "+u.GetName(), Warning, "kmsbrokerctl key import "+u.GetName()+", or key abandon", "it is not finished")
	}
}

// keys has KMS say what it knows of each key, which takes the permissions that the
// broker needs.
func (r *report) keys(ctx context.Context, conn *client.Conn, control v1.ControlClient) {
	ctx, cancel := context.WithTimeout(ctx, allKeysTime)
	defer cancel()
	list, err := control.ListKeys(ctx, &v1.ListKeysRequest{})
	if err = conn.Error(err); err != nil {
		r.add("keys", Problem, "", "%v", err)
		return
	}
	for i, listed := range list.GetKeys() {
		check := "key " + listed.GetName()
		limited, cancel := context.WithTimeout(ctx, callTime)
		key, err := control.ShowKey(limited, &v1.KeyRequest{Name: listed.GetName()})
		cancel()
		if ctx.Err() != nil {
			r.add("keys", Skipped, "", "%d of %d were asked for in %v", i, len(list.GetKeys()), allKeysTime)
			return
		}
		if err = conn.Error(err); err != nil {
			r.add(check, Problem, "check the broker's RAM policy and its network: docs/alibaba-cloud.md", "KMS cannot be asked: %v", err)
			continue
		}
		if state := key.GetState(); state != "Enabled" {
			r.add(check, Warning, "kmsbrokerctl key enable, cancel-deletion or reimport "+listed.GetName(), "its CMK %s is %s", key.GetKeyId(), state)
			continue
		}
		r.ok(check, "KMS says that CMK %s is enabled", key.GetKeyId())
	}
}
