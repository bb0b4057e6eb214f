package backend

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/hsm/hsmtest"
)

// callTimeout of the backends under test.
const callTimeout = 30 * time.Second

// process is a plugin process without a process.
type process struct {
	token     *hsmtest.Token
	stopped   bool // as by SIGSTOP
	unwilling bool // to give sessions
	exited    chan struct{}
	once      sync.Once
}

func newProcess(token *hsmtest.Token) *process {
	return &process{token: token, exited: make(chan struct{})}
}

func (p *process) Token() hsm.Token        { return p.token }
func (p *process) PID() int                { return 42 }
func (p *process) Exited() <-chan struct{} { return p.exited }
func (p *process) Kill()                   { p.once.Do(func() { close(p.exited) }) }
func (p *process) Ping(ctx context.Context) error {
	if p.stopped {
		<-ctx.Done()
		return hsm.Errorf(hsm.Timeout, "no answer")
	}
	return nil
}

// Sessions implements Process.
func (p *process) Sessions(context.Context) (cryptoki.Device, error) {
	if p.unwilling {
		return nil, hsm.Errorf(hsm.NotPermitted, "no sessions")
	}
	return &sessions{p}, nil
}

// sessions tell which process they are of.
type sessions struct{ of *process }

func (*sessions) MaxSessions() int { return 2 }
func (*sessions) OpenSession(context.Context) (cryptoki.Session, error) {
	return nil, cryptoki.CKR_SESSION_COUNT
}

func (p *process) Shutdown(context.Context) { p.token.Close(context.Background()); p.Kill() }

// launcher hands out processes in turn and remembers them.
type launcher struct {
	mu        sync.Mutex
	processes []*process
	next      func(attempt int) (*process, error)
}

func (l *launcher) launch(context.Context) (Process, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, err := l.next(len(l.processes))
	l.processes = append(l.processes, p)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (l *launcher) attempts() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.processes)
}

func (l *launcher) last() *process {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.processes[len(l.processes)-1]
}

// supervise runs a backend until the test ends. It must be called within a
// synctest bubble, where time passes only when everybody waits.
func supervise(t *testing.T, l *launcher) *Backend { t.Helper(); return superviseWith(t, l, nil) }

func superviseWith(t *testing.T, l *launcher, prompted *PromptedPIN) *Backend {
	t.Helper()
	logins, err := keyring.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := New(Config{
		Name: "b", Launch: l.launch, Logins: logins, Prompted: prompted, CallTimeout: callTimeout,
		Log: slog.New(slog.DiscardHandler), Changed: func(Status) {},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); b.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; logins.Close() })
	return b
}

func healthy(int) (*process, error) { return newProcess(hsmtest.New()), nil }
