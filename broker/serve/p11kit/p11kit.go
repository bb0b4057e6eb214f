// Package p11kit is the door for PKCS#11 applications: p11-kit's protocol, which the
// p11-kit-client.so of any distribution speaks, on a Unix socket. Each connection is
// one application of package proxy.
package p11kit

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/proxy"
	"github.com/kmsbroker/kmsbroker/broker/serve"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki/rpc"
)

// Door names this door in the audit trail.
const Door = "pkcs11"

const (
	// greetTime is how long a client may take to say its version.
	greetTime = 10 * time.Second
	// frameTime is how long it may take from the first byte of a call to its last, and
	// to read a large answer.
	frameTime = 60 * time.Second
)

// Core is what is behind the door: [broker.Broker].
type Core interface {
	OpenApplication(ctx context.Context, call broker.Call) *proxy.Application
}

// Config is what the door is made of.
type Config struct {
	Core    Core
	Units   serve.Units
	Shares  *serve.Shares
	Log     *slog.Logger
	Observe serve.Observe
}

// Server answers at the door.
type Server struct {
	Config
	stop   context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	open    map[net.Conn]struct{}
	running sync.WaitGroup
	large   large

	greetTime, frameTime time.Duration
}

// New makes the door. Calls go on until Stop.
func New(ctx context.Context, config Config) *Server {
	s := &Server{Config: config, open: map[net.Conn]struct{}{}, greetTime: greetTime, frameTime: frameTime}
	s.stop, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.large.stop, s.large.wait = s.stop, largeTime
	return s
}

// Serve answers the connections of a listener until Stop, which closes it.
func (s *Server) Serve(listener net.Listener) error {
	defer context.AfterFunc(s.stop, func() { listener.Close() })()
	for {
		conn, err := listener.Accept()
		switch {
		case s.stop.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case temporary(err):
			s.Log.Warn("a PKCS#11 client could not be accepted", "error", err)
			s.pause()
			continue
		case err != nil:
			listener.Close()
			return err
		case !s.enter(conn):
			conn.Close()
			continue
		}
		s.running.Go(func() {
			defer s.leave(conn)
			s.serve(conn)
		})
	}
}

// temporary reports that descriptors or memory ran out, which come back.
func temporary(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// pause waits a moment, and no longer than until Stop.
func (s *Server) pause() {
	select {
	case <-time.After(100 * time.Millisecond):
	case <-s.stop.Done():
	}
}

func (s *Server) enter(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop.Err() != nil {
		return false
	}
	s.open[conn] = struct{}{}
	return true
}

func (s *Server) leave(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, conn)
	conn.Close()
}

// Stop ends idle connections at once, and the others after the call that they are in,
// for which it waits a while.
func (s *Server) Stop(drain time.Duration) {
	s.mu.Lock()
	s.cancel()
	for conn := range s.open {
		// It wakes up who waits for a call. An error means that it is closed already.
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	timer := time.AfterFunc(drain, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for conn := range s.open {
			conn.Close()
		}
	})
	defer timer.Stop()
	s.running.Wait()
}

// serve answers one client. What goes wrong with its connection is its own affair.
func (s *Server) serve(accepted net.Conn) {
	conn, caller, err := s.Shares.Admit(accepted, s.Units)
	if err != nil {
		s.Log.Debug("a PKCS#11 client was not admitted", "error", err)
		return
	}
	defer conn.Close()
	version, ok := s.greet(conn)
	if !ok {
		return
	}
	if s.stop.Err() != nil {
		return // the deadline that Stop gave is gone
	}
	call := broker.Call{Caller: caller, Door: Door}
	application := s.Core.OpenApplication(s.stop, call)
	// What the client had is given back whether or not somebody waits for it.
	defer application.Close(context.WithoutCancel(s.stop))
	server := rpc.Server{
		Version:  version,
		Patience: s.frameTime,
		Admit:    func(int) (func(), bool) { return s.large.enter(s.whose(caller)) },
		Malformed: func(err error) {
			s.Log.Debug("a PKCS#11 client sent what is no call", "uid", caller.UID, "pid", caller.PID, "error", err)
		},
		Do: func(c *cryptoki.Call) (answer *cryptoki.Answer) {
			began := time.Now()
			defer func() { s.Observe(c.Function.String(), verdict(answer.RV), time.Since(began)) }()
			defer s.survive(&answer)
			defer s.endIfStopped(conn)
			return application.Do(s.stop, c)
		},
	}
	if err := server.Serve(conn); err != nil && s.stop.Err() == nil {
		s.Log.Debug("the connection of a PKCS#11 client broke", "uid", caller.UID, "pid", caller.PID, "error", err)
	}
}

// greet settles the version. Both sides' versions are logged when they differ.
func (s *Server) greet(conn net.Conn) (rpc.Version, bool) {
	if err := conn.SetDeadline(time.Now().Add(s.greetTime)); err != nil {
		return 0, false
	}
	version, offered, err := rpc.Accept(conn)
	if err != nil {
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			s.Log.Debug("a PKCS#11 client did not say its version", "error", err)
		}
		return 0, false
	}
	switch {
	case offered > rpc.Latest:
		s.Log.Info("a PKCS#11 client speaks a later version of p11-kit's protocol", "offered", offered, "spoken", version)
	case offered < rpc.Latest: // such as all of Debian 12
		s.Log.Debug("a PKCS#11 client speaks an earlier version of p11-kit's protocol", "offered", offered, "latest", rpc.Latest)
	}
	return version, conn.SetDeadline(time.Time{}) == nil
}

// endIfStopped has no other call follow the one that was under way, of which the frame
// came so slowly that it had a deadline of its own when Stop gave it one.
func (s *Server) endIfStopped(conn net.Conn) {
	if s.stop.Err() != nil {
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// survive answers a call that panicked. The panic's value may hold anything and is not
// logged.
func (s *Server) survive(answer **cryptoki.Answer) {
	if r := recover(); r != nil {
		s.Log.Error("panic in a PKCS#11 call", "stack", string(debug.Stack()))
		*answer = cryptoki.Refuse(cryptoki.CKR_GENERAL_ERROR)
	}
}

// verdict is a return value as the failures that the doors' metrics count.
func verdict(rv cryptoki.RV) error {
	kind := failure.Invalid
	switch rv {
	case cryptoki.CKR_OK, cryptoki.CKR_BUFFER_TOO_SMALL:
		return nil
	case cryptoki.CKR_KEY_FUNCTION_NOT_PERMITTED, cryptoki.CKR_ACTION_PROHIBITED, cryptoki.CKR_KEY_UNEXTRACTABLE,
		cryptoki.CKR_PIN_INCORRECT, cryptoki.CKR_PIN_LOCKED, cryptoki.CKR_ATTRIBUTE_SENSITIVE:
		kind = failure.Denied
	case cryptoki.CKR_OBJECT_HANDLE_INVALID, cryptoki.CKR_KEY_HANDLE_INVALID, cryptoki.CKR_SLOT_ID_INVALID,
		cryptoki.CKR_SESSION_HANDLE_INVALID:
		kind = failure.NotFound
	case cryptoki.CKR_OPERATION_ACTIVE, cryptoki.CKR_OPERATION_NOT_INITIALIZED, cryptoki.CKR_USER_ALREADY_LOGGED_IN,
		cryptoki.CKR_USER_NOT_LOGGED_IN, cryptoki.CKR_SESSION_READ_ONLY:
		kind = failure.WrongState
	case cryptoki.CKR_DEVICE_MEMORY, cryptoki.CKR_SESSION_COUNT, cryptoki.CKR_FUNCTION_REJECTED:
		kind = failure.Throttled
	case cryptoki.CKR_DEVICE_ERROR, cryptoki.CKR_DEVICE_REMOVED, cryptoki.CKR_TOKEN_NOT_PRESENT:
		kind = failure.Unavailable
	case cryptoki.CKR_GENERAL_ERROR:
		kind = failure.Internal
	}
	return failure.New(kind, rv.String(), "%v", rv)
}
