// Package library is applications that are processes of their own, which load a library.
package library

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki/module"
	"github.com/kmsbroker/kmsbroker/test/application"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// Tasks are what processes can be told to do, by name. What a task returns travels as
// JSON.
type Tasks map[string]func(a *application.Application, argument json.RawMessage) (any, error)

// variable makes a test program an application.
const variable = "KMSBROKER_TEST_APPLICATION"

type settings struct {
	Module, Token string
	PIN           []byte
}

type order struct {
	Task     string
	Argument json.RawMessage
}

type report struct {
	Result json.RawMessage
	Error  string
	RV     cryptoki.RV // of the error, if it is one
}

// Main runs the tests, or in a process that [Start] started its tasks.
func Main(m *testing.M, tasks Tasks) {
	if os.Getenv(variable) == "" {
		os.Exit(m.Run())
	}
	if err := serve(os.Stdin, os.Stdout, tasks); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(in io.Reader, out io.Writer, tasks Tasks) error {
	orders, reports := json.NewDecoder(in), json.NewEncoder(out)
	var s settings
	if err := orders.Decode(&s); err != nil {
		return err
	}
	loaded, err := module.Open(s.Module)
	if err != nil {
		return err
	}
	user := &application.Application{
		Library: func(call *cryptoki.Call) (*cryptoki.Answer, error) {
			own := *call
			if own.Function == cryptoki.Initialize {
				own.Data = [2][]byte{}
			}
			return loaded.Do(&own), nil
		},
		Token: s.Token, PIN: s.PIN,
	}
	for {
		var o order
		err := orders.Decode(&o)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := reports.Encode(perform(user, tasks, o)); err != nil {
			return err
		}
	}
}

func perform(a *application.Application, tasks Tasks, o order) report {
	task := tasks[o.Task]
	if task == nil {
		return report{Error: "there is no task " + o.Task}
	}
	result, err := task(a, o.Argument)
	r := report{}
	if err != nil {
		r.Error = err.Error()
		r.RV, _ = errors.AsType[cryptoki.RV](err)
	}
	var jsonErr error
	if r.Result, jsonErr = json.Marshal(result); jsonErr != nil {
		return report{Error: jsonErr.Error()}
	}
	return r
}

// Process is an application that is a process of its own.
type Process struct {
	t       testing.TB
	cmd     *exec.Cmd
	in      io.WriteCloser
	reports *json.Decoder
}

// Start starts an application of a token in this test program, whose TestMain has to
// call [Main]. It ends with the test.
func Start(t testing.TB, target stage.PKCS11) *Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{t: t, cmd: exec.Command(self)}
	p.cmd.Env = append(target.Environ(), variable+"=1")
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.reports = json.NewDecoder(bufio.NewReader(out))
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	p.send(settings{target.Module, target.Token, []byte(target.PIN)})
	return p
}

// PID is the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Kill ends it at once, if it has not ended.
func (p *Process) Kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

func (p *Process) send(v any) {
	if err := json.NewEncoder(p.in).Encode(v); err != nil {
		p.t.Errorf("an application ended: %v", err)
	}
}

// Order tells it to do a task, and does not wait for the end of it.
func (p *Process) Order(task string, argument any) {
	raw, err := json.Marshal(argument)
	if err != nil {
		p.t.Error(err)
	}
	p.send(order{task, raw})
}

// Report waits for the end of a task. The error is that of the task, a [cryptoki.RV]
// among others.
func (p *Process) Report(result any) error {
	var r report
	if err := p.reports.Decode(&r); err != nil {
		return fmt.Errorf("the application ended: %w", err)
	}
	if result != nil && len(r.Result) > 0 {
		if err := json.Unmarshal(r.Result, result); err != nil {
			return err
		}
	}
	switch {
	case r.RV != 0:
		return fmt.Errorf("%s: %w", r.Error, r.RV)
	case r.Error != "":
		return errors.New(r.Error)
	default:
		return nil
	}
}

// Run is Order and Report.
func (p *Process) Run(task string, argument, result any) error {
	p.Order(task, argument)
	return p.Report(result)
}
