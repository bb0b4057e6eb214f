//go:build root

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
)

func withNumber(text string, f func(int) error) error {
	n, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	return f(n)
}

// untilTold returns when standard input ends.
func untilTold() error {
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func metrics() error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", "/run/kmsbroker/metrics.sock")
	}}
	resp, err := (&http.Client{Transport: transport}).Get("http://localhost/metrics")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}

// greet opens a connection and exchanges the settings of HTTP/2.
func greet() (net.Conn, *http2.Framer, error) {
	conn, err := net.Dial("unix", client.DefaultSocket)
	if err != nil {
		return nil, nil, err
	}
	framer := http2.NewFramer(conn, conn)
	_, err = io.WriteString(conn, http2.ClientPreface)
	if err = errors.Join(err, framer.WriteSettings()); err == nil {
		_, err = framer.ReadFrame()
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, framer, nil
}

// hold prints how many connections it has.
func hold(n int) error {
	var held []net.Conn
	for range n {
		if conn, _, err := greet(); err == nil {
			held = append(held, conn)
		}
	}
	fmt.Println(len(held))
	err := untilTold()
	for _, conn := range held {
		conn.Close()
	}
	return err
}

// knock fills the queue of the socket, and says so when the kernel turned it away.
func knock(n int) error {
	told := make(chan error, 1)
	there := sync.OnceFunc(func() { fmt.Println("there") })
	stop := make(chan struct{})
	var knocking sync.WaitGroup
	for range n {
		knocking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if conn, err := net.Dial("unix", client.DefaultSocket); err == nil {
					conn.Close()
				} else {
					there()
				}
			}
		})
	}
	go func() { told <- untilTold() }()
	err := <-told
	close(stop)
	knocking.Wait()
	return err
}

// drip prints how many calls it has begun: that of each connection says that its
// message has 1000 bytes, which never come.
func drip(n int) error {
	var begun []*http2.Framer
	for range n {
		_, framer, err := greet()
		if err != nil {
			return err
		}
		if err := beginCall(framer, 1000); err != nil {
			return err
		}
		begun = append(begun, framer)
	}
	fmt.Println(len(begun))
	told := make(chan error, 1)
	go func() { told <- untilTold() }()
	for {
		for _, framer := range begun {
			_ = framer.WriteData(1, false, []byte{0}) // to a call that may have been ended
		}
		select {
		case err := <-told:
			return err
		case <-time.After(time.Second):
		}
	}
}

func beginCall(framer *http2.Framer, size uint32) error {
	var headers bytes.Buffer
	encoder := hpack.NewEncoder(&headers)
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", v1.Crypto_Encrypt_FullMethodName}, {":authority", "x"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			return err
		}
	}
	return errors.Join(
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers.Bytes(), EndHeaders: true}),
		framer.WriteData(1, false, binary.BigEndian.AppendUint32([]byte{0}, size)))
}

// oversize prints the gRPC status of a call whose message is too large to come.
func oversize() error {
	_, framer, err := greet()
	if err != nil {
		return err
	}
	if err := beginCall(framer, 1<<31); err != nil {
		return err
	}
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		headers, ok := frame.(*http2.MetaHeadersFrame)
		if !ok {
			continue
		}
		for _, field := range headers.Fields {
			if field.Name == "grpc-status" {
				n, err := strconv.Atoi(field.Value)
				fmt.Println(codes.Code(n))
				return err
			}
		}
	}
}

// once is what flood does for codes.OK, with calls that are made once whatever
// becomes of them.
func once(key string, n int) error {
	conn, err := grpc.NewClient("unix:"+client.DefaultSocket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	if err != nil {
		return err
	}
	defer conn.Close()
	crypto := v1.NewCryptoClient(conn)
	return crowd(n, codes.OK, func(ctx context.Context, _ int) (codes.Code, error) {
		_, err := crypto.Encrypt(ctx, &v1.EncryptRequest{Key: key, Plaintext: []byte("a secret")})
		return status.Code(err), err
	})
}

// flood has n calls under way, 32 on each connection.
func flood(key string, n int, told codes.Code) error {
	const perConnection = 32
	var clients []*client.Client
	for range (n + perConnection - 1) / perConnection {
		c, err := client.New("")
		if err != nil {
			return err
		}
		defer c.Close()
		clients = append(clients, c)
	}
	return crowd(n, told, func(ctx context.Context, i int) (codes.Code, error) {
		_, err := clients[i/perConnection].Encrypt(ctx, key, []byte("a secret"), nil)
		if e, ok := errors.AsType[*client.Error](err); ok {
			return e.Code, err
		}
		return status.Code(err), err
	})
}

// crowd makes calls, n at a time, until standard input ends. It prints a line when one
// has ended as told, and in the end how many succeeded, were refused for being one too
// many, and failed.
func crowd(n int, told codes.Code, call func(ctx context.Context, i int) (codes.Code, error)) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var mu sync.Mutex
	ended := map[codes.Code]int{}
	there := sync.OnceFunc(func() { fmt.Println("there") })
	var callers sync.WaitGroup
	for i := range n {
		callers.Go(func() {
			for ctx.Err() == nil {
				code, callErr := call(ctx, i)
				mu.Lock()
				if ctx.Err() == nil {
					ended[code]++
					if code != codes.OK && code != codes.ResourceExhausted {
						fmt.Fprintln(os.Stderr, callErr)
					}
				}
				mu.Unlock()
				if code == told {
					there()
				}
			}
		})
	}
	err := untilTold()
	stop()
	callers.Wait()
	other := 0
	for code, n := range ended {
		if code != codes.OK && code != codes.ResourceExhausted {
			other += n
		}
	}
	fmt.Println(ended[codes.OK], ended[codes.ResourceExhausted], other)
	return err
}
