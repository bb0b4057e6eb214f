package rpc

import (
	"bytes"
	"net"
	"reflect"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// FuzzCall feeds requests of a hostile client. What is understood is written and read
// again to the same call, so nothing is understood in two ways.
func FuzzCall(f *testing.F) {
	for _, call := range calls() {
		for v := Version(0); v <= Latest; v++ {
			if body, err := v.AppendCall(nil, &call); err == nil {
				f.Add(byte(v), body)
			}
		}
	}
	f.Fuzz(func(t *testing.T, version byte, body []byte) {
		v := min(Version(version), Latest)
		call, err := v.ParseCall(body)
		if err != nil || !carried(call.Function) {
			return
		}
		written, err := v.AppendCall(nil, call)
		if err != nil {
			return // such as a room beyond the bounds
		}
		again, err := v.ParseCall(written)
		if err != nil || !reflect.DeepEqual(again, call) {
			t.Errorf("%v\nfirst  %+v\nsecond %+v", err, call, again)
		}
	})
}

// FuzzAnswer feeds answers of a hostile plugin.
func FuzzAnswer(f *testing.F) {
	for _, call := range calls() {
		for _, answer := range answersTo(&call) {
			if body, err := Latest.AppendAnswer(nil, &call, answer); err == nil {
				f.Add(uint32(call.Function), body)
			}
		}
	}
	f.Fuzz(func(t *testing.T, function uint32, body []byte) {
		call := &cryptoki.Call{Function: cryptoki.Function(function)}
		answer, err := Latest.ParseAnswer(body, call)
		if err == nil && answer.RV == cryptoki.CKR_OK && len(answer.Data) > len(body) {
			t.Errorf("%d bytes came out of %d", len(answer.Data), len(body))
		}
	})
}

// FuzzServer feeds a whole stream to a server.
func FuzzServer(f *testing.F) {
	for _, call := range calls() {
		frame, err := Latest.AppendCall(BeginFrame(nil), &call)
		if err != nil {
			f.Fatal(err)
		}
		EndFrame(frame, 0, 1)
		f.Add(frame)
	}
	f.Fuzz(func(_ *testing.T, stream []byte) {
		server := Server{Version: Latest, Do: func(*cryptoki.Call) *cryptoki.Answer {
			return &cryptoki.Answer{Data: []byte("x"), Size: 1, List: []uint64{1}}
		}}
		_ = server.Serve(&oneWay{in: bytes.NewReader(stream)})
	})
}

// oneWay is a connection from which a stream comes, and to which everything can go.
type oneWay struct {
	net.Conn
	in *bytes.Reader
}

func (c *oneWay) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *oneWay) Write(p []byte) (int, error) { return len(p), nil }
