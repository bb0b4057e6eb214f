package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/kmsbroker/kmsbroker/broker/authz"
)

// peerCredentials is a gRPC transport security that adds nothing to the bytes
// and asks the kernel, once per connection, who is on the other side.
type peerCredentials struct {
	units  Units
	shares *Shares // nil: there are none
}

type callerInfo struct {
	credentials.CommonAuthInfo
	caller authz.Caller
}

func (callerInfo) AuthType() string { return "SO_PEERCRED" }

func (c peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	caller, err := PeerOf(conn, c.units)
	if err != nil {
		return nil, nil, err
	}
	info := callerInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		caller:         caller,
	}
	if c.shares != nil {
		if conn, err = c.shares.connect(conn, caller); err != nil {
			return nil, nil, err
		}
	}
	return conn, info, nil
}

func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("peer credentials are for servers")
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "SO_PEERCRED"}
}

func (c peerCredentials) Clone() credentials.TransportCredentials { return c }

func (peerCredentials) OverrideServerName(string) error { return nil }

// PeerOf returns the process that connected, with the credentials it had then
// (unix(7): SO_PEERCRED, SO_PEERGROUPS, SO_PEERPIDFD), and the unit that it is in.
// Whoever holds the descriptor later, it remains the one who connected.
func PeerOf(conn net.Conn, units Units) (authz.Caller, error) {
	var caller authz.Caller
	var process pidfd
	err := control(conn, func(fd int) error {
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return err
		}
		caller = authz.Caller{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}
		caller.Groups, err = peerGroups(fd)
		process = peerPIDFD(fd)
		return err
	})
	if err != nil {
		return authz.Caller{}, err
	}
	defer process.close()
	caller.User = authz.UserName(caller.UID)
	caller.Unit = units.of(caller.PID, process)
	return caller, nil
}

// peerUID returns the uid of the process that connected, and nothing that takes
// time to find out.
func peerUID(conn net.Conn) (uid uint32, err error) {
	err = control(conn, func(fd int) error {
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil {
			uid = cred.Uid
		}
		return err
	})
	return uid, err
}

// control asks the kernel about the descriptor of a Unix socket.
func control(conn net.Conn, ask func(fd int) error) error {
	sc, ok := conn.(syscall.Conn)
	if !ok || conn.LocalAddr().Network() != "unix" {
		return fmt.Errorf("%T is not a Unix socket connection", conn)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var askErr error
	err = raw.Control(func(fd uintptr) { askErr = ask(int(fd)) })
	if err := errors.Join(err, askErr); err != nil {
		return fmt.Errorf("ask the kernel who connected: %w", err)
	}
	return nil
}

// CallerOf returns who makes the gRPC call in ctx.
func CallerOf(ctx context.Context) (authz.Caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return authz.Caller{}, errors.New("the call has no peer")
	}
	info, ok := p.AuthInfo.(callerInfo)
	if !ok {
		return authz.Caller{}, fmt.Errorf("the call came without peer credentials (%T)", p.AuthInfo)
	}
	return info.caller, nil
}
