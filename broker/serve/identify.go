package serve

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/kmsbroker/kmsbroker/broker/authz"
)

// Identify has an HTTP server know who is on the other side of its Unix socket, and
// gives each connection its share. The kernel is asked by the goroutine of the
// connection and not by the one that accepts, which nobody shall keep busy.
func (s *Shares) Identify(listener net.Listener, units Units) net.Listener {
	return &identified{listener, units, s}
}

type identified struct {
	net.Listener
	units  Units
	shares *Shares
}

// Accept implements net.Listener.
func (l *identified) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &peerConn{Conn: conn, listener: l}, nil
}

// peerConn asks who connected when it is first read from.
type peerConn struct {
	net.Conn // the one that was accepted
	listener *identified

	once   sync.Once
	caller authz.Caller
	owned  net.Conn // has its share; nil without one
	err    error
}

func (c *peerConn) identify() {
	if c.caller, c.err = PeerOf(c.Conn, c.listener.units); c.err == nil {
		c.owned, c.err = c.listener.shares.connect(c.Conn, c.caller)
	}
}

// Read implements net.Conn.
func (c *peerConn) Read(p []byte) (int, error) {
	if c.once.Do(c.identify); c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(p)
}

// Close implements net.Conn.
func (c *peerConn) Close() error {
	c.once.Do(func() { c.err = net.ErrClosed })
	if c.owned != nil {
		return c.owned.Close()
	}
	return c.Conn.Close()
}

type connKey struct{}

// withConn lets the handlers of a connection's requests find it.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// EnterPeer begins a call of the process that connected, which ctx of an
// [HTTPServer] knows. Throttled: its share is used up.
func (s *Shares) EnterPeer(ctx context.Context) (caller authz.Caller, leave func(), err error) {
	conn, ok := ctx.Value(connKey{}).(*peerConn)
	if !ok {
		return authz.Caller{}, nil, errors.New("the call came without peer credentials")
	}
	if conn.once.Do(conn.identify); conn.err != nil {
		return authz.Caller{}, nil, conn.err
	}
	leave, err = s.begun(s.owner(conn.caller)) // asked anew, because the policy may have been reloaded
	return conn.caller, leave, err
}

// Strangers has the connections of a listener, of which the kernel does not say
// whose they are, share what strangers have.
func (s *Shares) Strangers(listener net.Listener) net.Listener { return &strange{listener, s} }

type strange struct {
	net.Listener
	shares *Shares
}

// Accept implements net.Listener.
func (l *strange) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		owned, err := l.shares.own(conn, owner{stranger: true})
		if err == nil {
			return owned, nil
		}
		conn.Close()
	}
}

// EnterStranger begins a call of which is not known yet whose it is.
func (s *Shares) EnterStranger() (leave func(), err error) { return s.begun(owner{stranger: true}) }

// Enter begins a call of a caller who was identified by it.
func (s *Shares) Enter(caller authz.Caller) (leave func(), err error) {
	return s.begun(owner{who: caller.Identity()})
}

func (s *Shares) begun(o owner) (leave func(), err error) {
	if err := s.enter(o); err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { s.leave(o) }), nil
}
