package importer

import (
	"fmt"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/failure"
)

// Progress tells that a step began or ended.
type Progress struct {
	Step    string
	Region  string // empty: the step belongs to no region
	State   StepState
	Detail  string        // for people; set when the step ended
	Elapsed time.Duration // set when the step ended
}

// StepState is how a step is.
type StepState int

// The states of a step. A Skipped step was done by an earlier attempt.
const (
	Started StepState = iota + 1
	Done
	Skipped
	Failed
	Planned
)

// step runs f between two reports.
func (r *run) step(region, name string, f func() (detail string, err error)) error {
	r.report(Progress{Step: name, Region: region, State: Started})
	start := r.Now()
	detail, err := f()
	p := Progress{Step: name, Region: region, State: Done, Detail: detail, Elapsed: r.Now().Sub(start)}
	if err != nil {
		p.State, p.Detail = Failed, ""
		err = inStep(region, name, err)
	}
	r.report(p)
	return err
}

// inStep says in which step a failure happened and keeps its kind and hint.
func inStep(region, step string, err error) error {
	f := *failure.From(err)
	if region != "" {
		step += " in " + region
	}
	f.Message = fmt.Sprintf("import step %s: %s", step, f.Message)
	f.Err = err
	return &f
}
