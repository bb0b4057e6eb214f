package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"time"

	doors "github.com/kmsbroker/kmsbroker/broker/serve"
	"github.com/kmsbroker/kmsbroker/broker/serve/alibaba"
	"github.com/kmsbroker/kmsbroker/internal/secretfile"
)

// answerTime leaves a call that took all of its time some to send its answer.
const answerTime = doors.CallTime + 15*time.Second

// alibabaSocket answers the local callers of Alibaba Cloud's protocol.
func (h *house) alibabaSocket(ctx context.Context) door {
	socket := doors.SocketConfig{Path: h.cfg.Sockets.Alibaba, Mode: 0o666, GID: -1}
	shares := h.alibabaShares(ctx)
	d := httpDoor(h.socketDoor(alibaba.Door, alibaba.Door, socket), h.alibabaServer(alibaba.OnSocket(shares)))
	listen := d.listen
	d.listen = func(ctx context.Context, refused func(what string)) (net.Listener, error) {
		listener, err := listen(ctx, refused)
		if err != nil {
			return nil, err
		}
		return shares.Identify(listener, h.units), nil
	}
	return d
}

// tcpName is what the socket unit of the TCP address calls it.
const tcpName = alibaba.Door + "-tcp"

// alibabaTCP answers applications that sign.
func (h *house) alibabaTCP(ctx context.Context) (door, error) {
	var secure *tls.Config
	if cert := h.cfg.Alibaba.TLSCert; cert != "" {
		pair, err := readCertificate(cert, h.cfg.Alibaba.TLSKey)
		if err != nil {
			return door{}, err
		}
		secure = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	}
	shares := h.alibabaShares(ctx)
	callers, err := alibaba.Signed(ctx, h.core, shares, time.Now)
	if err != nil {
		return door{}, err
	}
	address := h.cfg.Alibaba.Listen
	d := httpDoor(door{name: alibaba.Door, at: "address " + address}, h.alibabaServer(callers))
	d.listen = func(ctx context.Context, _ func(what string)) (net.Listener, error) {
		listener, err := h.passed.take(tcpName, "tcp", address)
		if listener == nil && err == nil {
			listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		}
		if err != nil {
			return nil, fmt.Errorf("alibaba.listen: %w", err)
		}
		strangers := shares.Strangers(listener)
		if secure == nil {
			return strangers, nil
		}
		return tls.NewListener(strangers, secure), nil
	}
	return d, nil
}

func (h *house) alibabaShares(ctx context.Context) *doors.Shares {
	return doors.NewShares(ctx, h.room, h.core.Names, alibaba.Door, h.measured.Refused(alibaba.Door))
}

func (h *house) alibabaServer(callers alibaba.Callers) *doors.HTTPServer {
	handler := alibaba.New(alibaba.Config{Core: h.core, Log: h.log, Observe: h.measured.Door(alibaba.Door), Callers: callers, Tracer: h.tracer})
	return doors.NewHTTPServer(doors.HTTPConfig{Handler: handler, Log: h.log, MaxHeader: alibaba.MaxHeader, AnswerTime: answerTime})
}

// readCertificate reads a certificate and its key, which nobody else may read.
func readCertificate(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("alibaba.tls_cert: %w", err)
	}
	key, err := secretfile.Read(keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("alibaba.tls_key: %w", err)
	}
	defer clear(key)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("alibaba.tls_cert %s and alibaba.tls_key %s: %w", certFile, keyFile, err)
	}
	return pair, nil
}
