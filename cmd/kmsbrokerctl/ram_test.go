package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/kmsapi"
	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
	"github.com/kmsbroker/kmsbroker/kmsapi/ram"
)

const (
	rootID     = "LTAIroot"
	rootSecret = "root-secret-of-the-test"
)

// TestRAMScripts run with an emulated cloud at $CLOUD, its administrator's
// credentials in admin.toml, and a daemon at $SOCKET that has the keys payments
// and backup.
func TestRAMScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/ram",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"status": status, "works": works, "withheld": withheld,
		},
		Setup: func(env *testscript.Env) error {
			cloud, err := emulatedCloud(env)
			if err != nil {
				return err
			}
			env.Setenv("CLOUD", cloud)
			socket, err := fakeDaemon(env)
			if err != nil {
				return err
			}
			env.Setenv("SOCKET", socket)
			// Under the race detector each command would end a second later.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			admin := "access_key_id = '" + rootID + "'\naccess_key_secret = '" + rootSecret + "'\n"
			return os.WriteFile(filepath.Join(env.WorkDir, "admin.toml"), []byte(admin), 0o600)
		},
	})
}

// emulatedCloud is an emulator whose clock goes on by a minute with each request,
// so that access keys have an order.
func emulatedCloud(env *testscript.Env) (string, error) {
	var mu sync.Mutex
	now := time.Now()
	emulated, err := emulator.New(emulator.Config{
		Regions: []string{"cn-hangzhou"}, AccessKeyID: rootID, AccessKeySecret: rootSecret,
		Clock: func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return now
		},
	})
	if err != nil {
		return "", err
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		now = now.Add(time.Minute)
		mu.Unlock()
		emulated.ServeHTTP(w, r)
	}))
	env.Defer(server.Close)
	return server.URL, nil
}

// daemon is as much of kmsbrokerd as these commands ask.
type daemon struct {
	v1.UnimplementedControlServer
}

func (daemon) ListKeys(context.Context, *v1.ListKeysRequest) (*v1.ListKeysResponse, error) {
	key := func(name string) *v1.Key {
		cmk := &v1.CMK{Arn: "acs:kms:cn-hangzhou:1000000000000001:key/" + name + "-id", Current: true}
		return &v1.Key{Name: name, Arn: cmk.GetArn(), Alias: "alias/" + name, Cmks: []*v1.CMK{cmk}}
	}
	return &v1.ListKeysResponse{Keys: []*v1.Key{key("backup"), key("payments")}}, nil
}

func (daemon) Status(context.Context, *v1.StatusRequest) (*v1.StatusResponse, error) {
	return &v1.StatusResponse{InstanceId: "instance-of-the-test", Endpoint: &v1.StatusResponse_Endpoint{Region: "cn-hangzhou"}}, nil
}

func fakeDaemon(env *testscript.Env) (string, error) {
	// Not below the script's directory, whose path can be too long for a socket.
	dir, err := os.MkdirTemp("", "kmsbrokerctl")
	if err != nil {
		return "", err
	}
	env.Defer(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "control.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return "", err
	}
	server := grpc.NewServer()
	v1.RegisterControlServer(server, daemon{})
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(listener) })
	env.Defer(func() {
		server.Stop()
		serving.Wait()
	})
	return socket, nil
}

func credentialsOf(ts *testscript.TestScript, file string) kmsapi.Credentials {
	key, err := kmsapi.ParseCredentials([]byte(ts.ReadFile(file)))
	ts.Check(err)
	return key
}

// works FILE asks STS with the access key in a file.
func works(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: works FILE")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	if neg {
		cancel() // after one attempt
		ctx, cancel = context.WithTimeout(context.Background(), 500*time.Millisecond)
	}
	defer cancel()
	err := ram.Probe(ctx, ts.Getenv("CLOUD"), nil, credentialsOf(ts, args[0]))
	if (err == nil) == neg {
		ts.Fatalf("the access key of %s: %v", args[0], err)
	}
}

// withheld FILE... demands that the secret in the first file is in no output and
// in none of the other files.
func withheld(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: withheld FILE [OTHER...]")
	}
	secret := credentialsOf(ts, args[0]).AccessKeySecret
	for _, other := range append([]string{"stdout", "stderr"}, args[1:]...) {
		if strings.Contains(ts.ReadFile(other), secret) {
			ts.Fatalf("the secret of %s is in %s", args[0], other)
		}
	}
}
