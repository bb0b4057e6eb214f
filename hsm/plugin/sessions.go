package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki/rpc"
	"github.com/kmsbroker/kmsbroker/hsm/plugin/hsmv1"
)

// Limits of the service Sessions in hsm.proto.
const (
	sessionSocket  = "sessions.sock"
	fewestSessions = 2
	mostSessions   = 1 << 16
)

// Sessions returns the open token as a device for PKCS#11 calls. NotPermitted: the
// plugin does not offer it. The device is as good as the process: when that ends, calls
// fail.
func (p *Process) Sessions(ctx context.Context) (cryptoki.Device, error) {
	most := 0
	err := p.client.call(ctx, "offer PKCS#11 sessions", func(ctx context.Context) error {
		m, err := p.sessions.Listen(ctx, &hsmv1.ListenRequest{})
		if err != nil {
			return err
		}
		if n := m.GetMaxSessions(); n < fewestSessions || n > mostSessions {
			return corrupt("max_sessions", "%d", n)
		}
		most = int(m.GetMaxSessions())
		return nil
	})
	if err != nil {
		return nil, err
	}
	makeRoom(most)
	return &remoteDevice{socket: filepath.Join(p.child.sockets, sessionSocket), pid: p.PID(), most: most}, nil
}

// remoteDevice is the token behind a plugin process.
type remoteDevice struct {
	socket string
	pid    int // who has to listen there
	most   int
}

// MaxSessions implements [cryptoki.Device].
func (d *remoteDevice) MaxSessions() int { return d.most }

// OpenSession implements [cryptoki.Device].
func (d *remoteDevice) OpenSession(ctx context.Context) (cryptoki.Session, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", d.socket)
	if err != nil {
		return nil, hsm.Errorf(hsm.TokenGone, "open a PKCS#11 session: %v", err)
	}
	s, err := d.open(ctx, conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (d *remoteDevice) open(ctx context.Context, conn net.Conn) (cryptoki.Session, error) {
	peer, err := peerOf(conn)
	if err != nil {
		return nil, hsm.Errorf(hsm.Internal, "open a PKCS#11 session: %v", err)
	}
	if int(peer.Pid) != d.pid {
		return nil, hsm.Errorf(hsm.Corrupt, "open a PKCS#11 session: process %d listens for the plugin, which is %d", peer.Pid, d.pid)
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, hsm.Errorf(hsm.Internal, "open a PKCS#11 session: %v", err)
		}
	}
	version, err := rpc.Negotiate(conn, rpc.Latest)
	if err != nil {
		return nil, hsm.Errorf(hsm.TokenGone, "open a PKCS#11 session: %v", err)
	}
	l, err := newLine(conn)
	if err != nil {
		return nil, hsm.Errorf(hsm.Internal, "open a PKCS#11 session: %v", err)
	}
	s := &remoteSession{rpc.NewClient(l, version)}
	answer, err := s.client.Do(ctx, &cryptoki.Call{Function: cryptoki.OpenSession})
	switch {
	case err != nil:
		return nil, hsm.Errorf(hsm.TokenGone, "open a PKCS#11 session: %v", err)
	case answer.RV != cryptoki.CKR_OK:
		return nil, answer.RV
	}
	return s, nil
}

// unsent answers a call that does not get to the plugin. A client must not be able to end
// a session with one, which may have what is of others.
const unsent = cryptoki.CKR_ARGUMENTS_BAD

// remoteSession believes no answer.
type remoteSession struct{ client *rpc.Client }

var _ cryptoki.Pipeline = (*remoteSession)(nil)

// Do implements [cryptoki.Session].
func (s *remoteSession) Do(ctx context.Context, call *cryptoki.Call) (*cryptoki.Answer, error) {
	answer, err := s.client.Do(ctx, call)
	if errors.Is(err, rpc.ErrUnsent) {
		return cryptoki.Refuse(unsent), nil
	}
	if err != nil {
		return nil, err
	}
	if err := checkAnswer(call, answer); err != nil {
		return nil, fmt.Errorf("answer to %v: %w", call.Function, err)
	}
	return answer, nil
}

// DoBoth implements [cryptoki.Pipeline].
func (s *remoteSession) DoBoth(ctx context.Context, first, second *cryptoki.Call) (a, b *cryptoki.Answer, err error) {
	a, b, err = s.client.DoBoth(ctx, first, second)
	if errors.Is(err, rpc.ErrUnsent) {
		return cryptoki.Refuse(unsent), cryptoki.Refuse(unsent), nil
	}
	if err != nil {
		return nil, nil, err
	}
	if err := checkAnswer(first, a); err != nil {
		return nil, nil, fmt.Errorf("answer to %v: %w", first.Function, err)
	}
	if err := checkAnswer(second, b); err != nil {
		return nil, nil, fmt.Errorf("answer to %v: %w", second.Function, err)
	}
	return a, b, nil
}

// Close implements [cryptoki.Session].
func (s *remoteSession) Close() error { return s.client.Close() }

// checkAnswer refuses what a PKCS#11 library cannot have answered, because it would
// have written beyond its caller's buffer, or answered another question.
func checkAnswer(call *cryptoki.Call, a *cryptoki.Answer) error {
	if call.Function == cryptoki.GetAttributeValue && a.Attributes != nil {
		return checkAttributes(call.Templates[0], a.Attributes)
	}
	if got := max(len(a.Data), len(a.List)); got > 0 && (call.Room.Null || got > int(call.Room.Size)) {
		return corrupt("length", "%d where there is room for %d", got, call.Room.Size)
	}
	return nil
}

func checkAttributes(asked, got []cryptoki.Attribute) error {
	if len(got) != len(asked) {
		return corrupt("number of attributes", "%d instead of %d", len(got), len(asked))
	}
	for i, a := range got {
		switch {
		case a.Type != asked[i].Type:
			return corrupt("attribute", "%#x instead of %#x", a.Type, asked[i].Type)
		case uint64(len(a.Value)) > asked[i].Length:
			return corrupt("attribute", "%#x has %d bytes where there is room for %d", a.Type, len(a.Value), asked[i].Length)
		case len(a.Nested) > len(asked[i].Nested):
			return corrupt("attribute", "%#x is a template of %d where there is room for %d", a.Type, len(a.Nested), len(asked[i].Nested))
		}
		if err := checkAttributes(asked[i].Nested[:len(a.Nested)], a.Nested); err != nil {
			return err
		}
	}
	return nil
}
