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

// PeerCredentials is a gRPC transport security that adds nothing to the bytes
// and asks the kernel, once per connection, who is on the other side.
func PeerCredentials() credentials.TransportCredentials { return peerCredentials{} }

type peerCredentials struct{}

type callerInfo struct {
	credentials.CommonAuthInfo
	caller authz.Caller
}

func (callerInfo) AuthType() string { return "SO_PEERCRED" }

func (peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	caller, err := PeerOf(conn)
	if err != nil {
		return nil, nil, err
	}
	return conn, callerInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		caller:         caller,
	}, nil
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
// (unix(7), SO_PEERCRED).
func PeerOf(conn net.Conn) (authz.Caller, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok || conn.LocalAddr().Network() != "unix" {
		return authz.Caller{}, fmt.Errorf("%T is not a Unix socket connection", conn)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return authz.Caller{}, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return authz.Caller{}, fmt.Errorf("ask the kernel who connected: %w", err)
	}
	return authz.Caller{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}, nil
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
