//go:build root

// Command caller does with a connection to the application socket what
// kmsbrokerctl never would: it keeps one for several calls, and hands it to other
// processes.
//
//	caller keep KEY         for each line of standard input, encrypt through one connection
//	caller give PATH        connect, and pass the connection to whoever takes it at PATH
//	caller take PATH KEY    encrypt through a connection that was passed
//	caller hold N           open N connections, and keep those that the daemon takes
//	caller drip N           begin N calls, and send a byte of each every second
//	caller flood KEY N      encrypt with N calls under way until standard input ends
//	caller steady KEY N     the same, for so few that none is refused
//	caller once KEY N       the same, without the client package, which tries again
//	caller knock N          connect N at a time and leave again, until standard input ends
//	caller oversize         say that a message of 2 GiB will come, and print how that ends
//	caller metrics          print the metrics of the daemon
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
)

const patience = 30 * time.Second

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "caller:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "keep":
		return keep(ctx, args[1])
	case len(args) == 2 && args[0] == "give":
		return give(ctx, args[1])
	case len(args) == 3 && args[0] == "take":
		return take(ctx, args[1], args[2])
	case len(args) == 2 && args[0] == "hold":
		return withNumber(args[1], hold)
	case len(args) == 2 && args[0] == "drip":
		return withNumber(args[1], drip)
	case len(args) == 3 && args[0] == "flood":
		return withNumber(args[2], func(n int) error { return flood(args[1], n, codes.ResourceExhausted) })
	case len(args) == 3 && args[0] == "steady":
		return withNumber(args[2], func(n int) error { return flood(args[1], n, codes.OK) })
	case len(args) == 3 && args[0] == "once":
		return withNumber(args[2], func(n int) error { return once(args[1], n) })
	case len(args) == 2 && args[0] == "knock":
		return withNumber(args[1], knock)
	case len(args) == 1 && args[0] == "oversize":
		return oversize()
	case len(args) == 1 && args[0] == "metrics":
		return metrics()
	default:
		return errors.New("usage: caller keep KEY | give PATH | take PATH KEY | hold N | drip N | flood KEY N | steady KEY N | once KEY N | knock N | oversize | metrics")
	}
}

func connect(ctx context.Context) (*net.UnixConn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", client.DefaultSocket)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

func keep(ctx context.Context, key string) error {
	conn, err := connect(ctx)
	if err != nil {
		return err
	}
	crypto, err := over(conn)
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		encrypt(ctx, crypto, key)
	}
	return nil
}

// over speaks gRPC over a connection, and makes no other.
func over(conn net.Conn) (v1.CryptoClient, error) {
	dial := func(context.Context, string) (net.Conn, error) {
		if conn == nil {
			return nil, errors.New("the connection was lost")
		}
		only := conn
		conn = nil
		return only, nil
	}
	grpcConn, err := grpc.NewClient("passthrough:///kmsbroker",
		grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return v1.NewCryptoClient(grpcConn), nil
}

// encrypt prints how a call ended.
func encrypt(ctx context.Context, crypto v1.CryptoClient, key string) {
	_, err := crypto.Encrypt(ctx, &v1.EncryptRequest{Key: key, Plaintext: []byte("a secret")})
	fmt.Println(status.Code(err))
}

func give(ctx context.Context, path string) error {
	conn, err := connect(ctx)
	if err != nil {
		return err
	}
	taker, err := dialPatiently(ctx, path)
	if err != nil {
		return err
	}
	file, err := conn.File()
	if err != nil {
		return err
	}
	_, _, err = taker.WriteMsgUnix([]byte{0}, syscall.UnixRights(int(file.Fd())), nil)
	if err != nil {
		return err
	}
	fmt.Println(os.Getpid())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// dialPatiently waits for a socket that is about to be made.
func dialPatiently(ctx context.Context, path string) (*net.UnixConn, error) {
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			return conn.(*net.UnixConn), nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func take(ctx context.Context, path, key string) error {
	conn, err := receive(path)
	if err != nil {
		return err
	}
	crypto, err := over(conn)
	if err != nil {
		return err
	}
	encrypt(ctx, crypto, key)
	return nil
}

// receive lets one process of any user pass a connection.
func receive(path string) (net.Conn, error) {
	unix.Umask(0)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	giver, err := listener.AcceptUnix()
	if err := errors.Join(err, listener.Close()); err != nil {
		return nil, err
	}
	defer giver.Close()
	oob := make([]byte, syscall.CmsgSpace(4))
	_, n, _, _, err := giver.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return nil, err
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("%d control messages, %w", len(messages), err)
	}
	descriptors, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(descriptors) != 1 {
		return nil, fmt.Errorf("%d descriptors, %w", len(descriptors), err)
	}
	file := os.NewFile(uintptr(descriptors[0]), "passed")
	defer file.Close()
	return net.FileConn(file)
}
