package serve

import (
	"net"
	"sync"
)

// maxConnections is how many connections one uid may have to a socket that
// everybody can reach. A connection costs about 20 KiB and a descriptor; a
// client needs one.
const maxConnections = 256

// LimitPerUID returns a listener that closes at once what a uid opens beyond its
// share, so that no account can take the descriptors of all others.
func LimitPerUID(listener *net.UnixListener, refused func(what string)) net.Listener {
	return &perUID{UnixListener: listener, refused: refused, open: map[uint32]int{}}
}

type perUID struct {
	*net.UnixListener
	refused func(what string)
	mu      sync.Mutex
	open    map[uint32]int
}

// Accept implements net.Listener.
func (l *perUID) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if counted := l.admit(conn); counted != nil {
			return counted, nil
		}
		conn.Close()
	}
}

func (l *perUID) admit(conn *net.UnixConn) net.Conn {
	uid, err := peerUID(conn)
	if err != nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[uid] >= maxConnections {
		l.refused(RefusedConnection)
		return nil
	}
	l.open[uid]++
	return &countedConn{UnixConn: conn, release: func() { l.release(uid) }}
}

func (l *perUID) release(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[uid]--; l.open[uid] == 0 {
		delete(l.open, uid)
	}
}

type countedConn struct {
	*net.UnixConn
	once    sync.Once
	release func()
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	c.once.Do(c.release)
	return c.UnixConn.Close()
}
