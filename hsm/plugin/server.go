package plugin

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/plugin/hsmv1"
)

// keysPerMessage keeps KeysResponse below maxMessage with the longest keys that
// hsm.proto allows.
const keysPerMessage = 32

// server is the plugin's side of hsm.proto.
type server struct {
	hsmv1.UnimplementedTokenServer
	opener      Opener
	initializer hsm.TokenInitializer // nil when the plugin has none
	logger      *slog.Logger

	mu    sync.Mutex
	used  bool // Open or InitToken was called, whatever came of it
	token hsm.Token
}

func (s *server) Open(stream grpc.BidiStreamingServer[hsmv1.OpenRequest, hsmv1.OpenResponse]) error {
	req, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := s.use(); err != nil {
		return toStatus(err)
	}
	token, err := s.opener(stream.Context(), OpenRequest{
		Settings: req.GetSettings(), PIN: askPIN(stream), Logger: s.logger,
	})
	if err != nil {
		return toStatus(err)
	}
	s.mu.Lock()
	s.token = token
	s.mu.Unlock()
	return stream.Send(&hsmv1.OpenResponse{})
}

// askPIN asks the daemon for the PIN, once.
func askPIN(stream grpc.BidiStreamingServer[hsmv1.OpenRequest, hsmv1.OpenResponse]) hsm.PINSource {
	var asked atomic.Bool
	return func(_ context.Context, token hsm.TokenID) ([]byte, error) {
		if asked.Swap(true) {
			return nil, hsm.Errorf(hsm.Invalid, "the PIN was asked for before, and a login is attempted once")
		}
		if err := stream.Send(&hsmv1.OpenResponse{WantsPin: true, Token: tokenToProto(token)}); err != nil {
			return nil, hsm.Errorf(hsm.TokenGone, "ask for the PIN: %v", err)
		}
		answer, err := stream.Recv()
		if err != nil {
			return nil, hsm.Errorf(hsm.TokenGone, "the daemon gave no PIN: %v", err)
		}
		return answer.GetPin(), nil
	}
}

func (s *server) InitToken(ctx context.Context, req *hsmv1.InitTokenRequest) (*hsmv1.InitTokenResponse, error) {
	defer clear(req.GetSoPin())
	defer clear(req.GetPin())
	if s.initializer == nil {
		return nil, toStatus(hsm.Errorf(hsm.NotPermitted, "this plugin does not initialise tokens: use the vendor's tool"))
	}
	if err := s.use(); err != nil {
		return nil, toStatus(err)
	}
	serial, err := s.initializer.InitToken(ctx, hsm.TokenSpec{
		Settings: req.GetSettings(), Label: req.GetLabel(), SOPIN: req.GetSoPin(), PIN: req.GetPin(),
	})
	if err != nil {
		return nil, toStatus(err)
	}
	return &hsmv1.InitTokenResponse{Serial: serial}, nil
}

// use makes sure that the vendor library is initialised, and a PIN tried, once
// at most.
func (s *server) use() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used {
		return hsm.Errorf(hsm.Invalid, "this process was told to open or to initialise its token before: start another one")
	}
	s.used = true
	return nil
}

func (s *server) current() hsm.Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token
}

// with answers a call with the open token.
func with[Answer any](s *server, fn func(token hsm.Token) (Answer, error)) (Answer, error) {
	var none Answer
	token := s.current()
	if token == nil {
		return none, toStatus(hsm.Errorf(hsm.Invalid, "the token is not open"))
	}
	answer, err := fn(token)
	if err != nil {
		return none, toStatus(err)
	}
	return answer, nil
}

func (s *server) Describe(ctx context.Context, _ *hsmv1.DescribeRequest) (*hsmv1.DescribeResponse, error) {
	return with(s, func(token hsm.Token) (*hsmv1.DescribeResponse, error) {
		info, err := token.Describe(ctx)
		if err != nil {
			return nil, err
		}
		m := &hsmv1.DescribeResponse{
			Manufacturer: info.Manufacturer, Model: info.Model, Serial: info.Serial, Label: info.Label,
			Firmware: info.Firmware, Library: info.Library, Role: string(info.Role),
			Fips: info.FIPS, MaxSessions: uint32(max(info.MaxSessions, 0)),
		}
		for _, a := range info.WrappingAlgorithms {
			m.WrappingAlgorithms = append(m.WrappingAlgorithms, string(a))
		}
		for _, p := range info.Policies {
			m.Policies = append(m.Policies, &hsmv1.Policy{Number: uint32(p.Number), Name: p.Name, Value: uint32(p.Value)})
		}
		return m, nil
	})
}

func (s *server) GenerateKey(ctx context.Context, req *hsmv1.GenerateKeyRequest) (*hsmv1.GenerateKeyResponse, error) {
	return with(s, func(token hsm.Token) (*hsmv1.GenerateKeyResponse, error) {
		key, err := token.GenerateKey(ctx, hsm.KeySpec{ID: hsm.KeyIDFromBytes(req.GetId()), Label: req.GetLabel()})
		if err != nil {
			return nil, err
		}
		return &hsmv1.GenerateKeyResponse{Key: keyToProto(key)}, nil
	})
}

func (s *server) Keys(_ *hsmv1.KeysRequest, stream grpc.ServerStreamingServer[hsmv1.KeysResponse]) error {
	keys, err := with(s, func(token hsm.Token) ([]hsm.Key, error) { return token.Keys(stream.Context()) })
	if err != nil {
		return err
	}
	for len(keys) > 0 {
		n := min(len(keys), keysPerMessage)
		m := new(hsmv1.KeysResponse)
		for i := range keys[:n] {
			m.Keys = append(m.Keys, keyToProto(&keys[i]))
		}
		if err := stream.Send(m); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

func (s *server) Key(ctx context.Context, req *hsmv1.KeyRequest) (*hsmv1.KeyResponse, error) {
	return with(s, func(token hsm.Token) (*hsmv1.KeyResponse, error) {
		key, err := token.Key(ctx, hsm.KeyIDFromBytes(req.GetId()))
		if err != nil {
			return nil, err
		}
		return &hsmv1.KeyResponse{Key: keyToProto(key)}, nil
	})
}

func (s *server) CheckValue(ctx context.Context, req *hsmv1.CheckValueRequest) (*hsmv1.CheckValueResponse, error) {
	return with(s, func(token hsm.Token) (*hsmv1.CheckValueResponse, error) {
		value, err := token.CheckValue(ctx, hsm.KeyIDFromBytes(req.GetId()))
		return &hsmv1.CheckValueResponse{Id: req.GetId(), Value: value[:]}, err
	})
}

func (s *server) Wrap(ctx context.Context, req *hsmv1.WrapRequest) (*hsmv1.WrapResponse, error) {
	return with(s, func(token hsm.Token) (*hsmv1.WrapResponse, error) {
		wrapped, err := token.Wrap(ctx, hsm.WrapRequest{
			Key: hsm.KeyIDFromBytes(req.GetId()), Algorithm: hsm.WrappingAlgorithm(req.GetAlgorithm()), PublicKey: req.GetPublicKey(),
		})
		return &hsmv1.WrapResponse{Id: req.GetId(), Algorithm: req.GetAlgorithm(), Wrapped: wrapped}, err
	})
}

func (s *server) SealKey(ctx context.Context, req *hsmv1.SealKeyRequest) (*hsmv1.SealKeyResponse, error) {
	return with(s, func(token hsm.Token) (*hsmv1.SealKeyResponse, error) {
		key, err := token.SealKey(ctx, hsm.KeyIDFromBytes(req.GetId()))
		if err != nil {
			return nil, err
		}
		return &hsmv1.SealKeyResponse{Key: keyToProto(key)}, nil
	})
}

func (s *server) DestroyKey(ctx context.Context, req *hsmv1.DestroyKeyRequest) (*hsmv1.DestroyKeyResponse, error) {
	return with(s, func(token hsm.Token) (*hsmv1.DestroyKeyResponse, error) {
		return &hsmv1.DestroyKeyResponse{Id: req.GetId()}, token.DestroyKey(ctx, hsm.KeyIDFromBytes(req.GetId()))
	})
}

func (s *server) Health(ctx context.Context, _ *hsmv1.HealthRequest) (*hsmv1.HealthResponse, error) {
	return with(s, func(token hsm.Token) (*hsmv1.HealthResponse, error) {
		return &hsmv1.HealthResponse{}, token.Health(ctx)
	})
}

func (s *server) Close(ctx context.Context, _ *hsmv1.CloseRequest) (*hsmv1.CloseResponse, error) {
	return &hsmv1.CloseResponse{}, toStatus(s.close(ctx))
}

// close releases the device. It may be called again when it failed, and does
// nothing when no token is open.
func (s *server) close(ctx context.Context) error {
	token := s.current()
	if token == nil {
		return nil
	}
	return token.Close(ctx)
}

func keyToProto(key *hsm.Key) *hsmv1.Key {
	m := &hsmv1.Key{
		Label: key.Label, Type: key.Type, Bits: uint32(max(key.Bits, 0)),
		Private: key.Private, Sensitive: key.Sensitive, AlwaysSensitive: key.AlwaysSensitive,
		Extractable: key.Extractable, NeverExtractable: key.NeverExtractable,
		Local: key.Local, Modifiable: key.Modifiable,
		Encrypt: key.Encrypt, Decrypt: key.Decrypt, Wrap: key.Wrap, Unwrap: key.Unwrap,
		Sign: key.Sign, Verify: key.Verify, Derive: key.Derive, Vendor: key.Vendor,
	}
	if key.ID != "" {
		m.Id = key.ID.Bytes()
	}
	return m
}

// newGRPCServer makes the server that go-plugin serves on.
func (s *server) newGRPCServer(options []grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(options,
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		// go-plugin keeps two streams of its own open, and a ping must not wait for
		// the calls in flight.
		grpc.MaxConcurrentStreams(maxInFlight+3),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
			defer s.recover(info.FullMethod, &err)
			return handler(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
			defer s.recover(info.FullMethod, &err)
			return handler(srv, stream)
		}),
	)...)
}

// recover turns a panic into an Internal error. The value of the panic and the
// arguments on the stack may be secret, so only types and places are logged.
func (s *server) recover(method string, err *error) {
	value := recover()
	if value == nil {
		return
	}
	s.logger.Error("panic in plugin", "method", method, "type", fmt.Sprintf("%T", value), "stack", places())
	*err = toStatus(hsm.Errorf(hsm.Internal, "the plugin panicked in %s: see its log", method))
}

// places lists the functions on the stack without their arguments.
func places() []string {
	const deepest = 32
	pcs := make([]uintptr, deepest)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	var list []string
	for {
		frame, more := frames.Next()
		list = append(list, fmt.Sprintf("%s:%d", frame.Function, frame.Line))
		if !more {
			return list
		}
	}
}
