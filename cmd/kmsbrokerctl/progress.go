package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
)

// follow shows the steps of an import as they happen and returns the key that
// ends the stream; began says that more than the plan was done before an error.
func (c *ctl) follow(stream grpc.ServerStreamingClient[v1.ImportEvent]) (key *v1.Key, began bool, err error) {
	show := progress{w: c.stderr, live: isTerminal(c.stderr)}
	for {
		event, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && key == nil:
			return nil, began, errors.New("kmsbrokerd ended the import without a key")
		case errors.Is(err, io.EOF):
			return key, began, nil
		case err != nil:
			show.interrupted()
			return nil, began, err
		}
		if step := event.GetStep(); step != nil {
			show.step(step)
			began = began || step.GetName() != "plan"
		}
		if event.GetKey() != nil {
			key = event.GetKey()
		}
	}
}

// progress is a list of steps: on a terminal the line of the running step is
// rewritten when it ends, elsewhere there is one line for each step that ended.
type progress struct {
	w       io.Writer
	live    bool
	running bool
}

func (p *progress) step(s *v1.ImportEvent_Step) {
	if s.GetState() == v1.ImportEvent_STATE_STARTED {
		if p.live {
			fmt.Fprintf(p.w, "  …  %s %s", s.GetName(), s.GetRegion())
			p.running = true
		}
		return
	}
	if p.running {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.running = false
	}
	mark, elapsed := "ok", s.GetElapsed().AsDuration().Round(time.Millisecond).String()
	switch s.GetState() {
	case v1.ImportEvent_STATE_SKIPPED:
		mark, elapsed = "--", "done before"
	case v1.ImportEvent_STATE_FAILED:
		mark = "!!"
	default:
	}
	detail := s.GetDetail()
	if region := s.GetRegion(); region != "" {
		detail = strings.TrimSuffix(region+": "+detail, ": ")
	}
	fmt.Fprintf(p.w, "  %s  %-10s  %11s  %s\n", mark, s.GetName(), elapsed, printable(detail))
}

// interrupted ends a line that a broken stream left open.
func (p *progress) interrupted() {
	if p.running {
		fmt.Fprintln(p.w)
		p.running = false
	}
}
