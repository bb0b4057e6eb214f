package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki/rpc"
	"github.com/kmsbroker/kmsbroker/hsm/plugin/hsmv1"
)

// sessionServer is the plugin's side of the service Sessions.
//
// Calls travel on a socket of their own, because gRPC would cost an application most
// of the time that a call takes, and because the frames are those that applications
// speak.
type sessionServer struct {
	hsmv1.UnimplementedSessionsServer
	*server

	listening sync.Mutex
	listener  net.Listener // nil until Listen
	// opened has a place for each session of the device. One whose connection has ended
	// keeps its place until the device has closed it, and who opens another waits.
	opened chan struct{}
}

// Listen implements [hsmv1.SessionsServer].
func (s *sessionServer) Listen(context.Context, *hsmv1.ListenRequest) (*hsmv1.ListenResponse, error) {
	return with(s.server, func(token hsm.Token) (*hsmv1.ListenResponse, error) {
		device, ok := token.(cryptoki.Device)
		if !ok {
			return nil, hsm.Errorf(hsm.NotPermitted, "this plugin offers no PKCS#11 sessions")
		}
		most := device.MaxSessions()
		if most < fewestSessions {
			return nil, hsm.Errorf(hsm.Misconfigured, "the token admits too few sessions to share some with PKCS#11 applications")
		}
		if err := s.listen(device); err != nil {
			return nil, hsm.Errorf(hsm.Internal, "listen for PKCS#11 sessions: %v", err)
		}
		return &hsmv1.ListenResponse{MaxSessions: uint32(min(most, mostSessions))}, nil
	})
}

func (s *sessionServer) listen(device cryptoki.Device) error {
	s.listening.Lock()
	defer s.listening.Unlock()
	if s.listener != nil {
		return nil
	}
	dir := os.Getenv(goplugin.EnvUnixSocketDir)
	if dir == "" {
		return fmt.Errorf("%s is not set", goplugin.EnvUnixSocketDir)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, sessionSocket))
	if err != nil {
		return err
	}
	s.listener, s.opened = listener, make(chan struct{}, device.MaxSessions())
	makeRoom(device.MaxSessions())
	go s.accept(device) // until the process ends
	return nil
}

// accept serves connections. The daemon makes no more than there may be sessions, and
// some that it is about to close.
func (s *sessionServer) accept(device cryptoki.Device) {
	places := make(chan struct{}, 2*device.MaxSessions())
	for {
		places <- struct{}{}
		conn, err := s.listener.Accept()
		if err != nil {
			s.logger.Error("PKCS#11 sessions cannot be accepted", "error", err)
			<-places
			time.Sleep(time.Second) // of descriptors, which run out and come back
			continue
		}
		go func() {
			defer func() { <-places }()
			defer conn.Close()
			if err := s.converse(conn, device); err != nil {
				s.logger.Warn("PKCS#11 session ended", "error", err)
			}
		}()
	}
}

// converse is the life of a session.
func (s *sessionServer) converse(conn net.Conn, device cryptoki.Device) error {
	peer, err := peerOf(conn)
	if err != nil {
		return err
	}
	if int(peer.Pid) != os.Getppid() || int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("process %d of user %d connected, who is not the daemon", peer.Pid, peer.Uid)
	}
	version, _, err := rpc.Accept(conn)
	if err != nil {
		return err
	}
	opened := &openedSession{device: device, places: s.opened, logger: s.logger}
	defer opened.close()
	calls := rpc.Server{Version: version, Do: opened.do}
	l, err := newLine(conn)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	return calls.Serve(l)
}

// openedSession is the session of a connection, nil until it is opened.
type openedSession struct {
	device  cryptoki.Device
	session cryptoki.Session
	places  chan struct{}
	logger  *slog.Logger
}

// do answers a call. A panic must not end the process, on which others depend, nor show
// what it was about.
func (o *openedSession) do(call *cryptoki.Call) (answer *cryptoki.Answer) {
	defer func() {
		if value := recover(); value != nil {
			o.logger.Error("panic in plugin", "method", call.Function.String(), "type", fmt.Sprintf("%T", value), "stack", places())
			answer = cryptoki.Refuse(cryptoki.CKR_GENERAL_ERROR)
		}
	}()
	ctx := context.Background()
	switch {
	case o.session == nil && call.Function == cryptoki.OpenSession:
		o.places <- struct{}{}
		session, err := o.device.OpenSession(ctx)
		if err != nil {
			<-o.places
			return cryptoki.Refuse(returnValue(err))
		}
		o.session = session
		return &cryptoki.Answer{}
	case o.session == nil:
		return cryptoki.Refuse(cryptoki.CKR_SESSION_HANDLE_INVALID)
	}
	answer, err := o.session.Do(ctx, call)
	if err != nil {
		return cryptoki.Refuse(returnValue(err))
	}
	return answer
}

func (o *openedSession) close() {
	if o.session == nil {
		return
	}
	defer func() { <-o.places }()
	if err := o.session.Close(); err != nil {
		o.logger.Warn("PKCS#11 session did not close", "error", err)
	}
}

// returnValue is how an error travels to the daemon.
func returnValue(err error) cryptoki.RV {
	if rv, ok := errors.AsType[cryptoki.RV](err); ok {
		return rv
	}
	if errors.Is(err, hsm.TokenGone) {
		return cryptoki.CKR_DEVICE_REMOVED
	}
	return cryptoki.CKR_DEVICE_ERROR
}

// peerOf asks the kernel who is at the other end: for a client, who connected; for a
// server, who listens.
func peerOf(conn net.Conn) (peer *unix.Ucred, err error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	asked := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(asked, err); err != nil {
		return nil, fmt.Errorf("ask who is connected: %w", err)
	}
	return peer, nil
}
