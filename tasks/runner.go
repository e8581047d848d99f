package tasks

import (
	"context"
	"time"

	"github.com/shoal-os/shoal/tasks/exec"
	"github.com/shoal-os/shoal/tasks/job"
)

// Runner runs guests, never in this process. Over makes one of an exec.Pool.
type Runner interface {
	// Prepare compiles a program, so that tasks start warm. An error says in words why it cannot run here.
	Prepare(ctx context.Context, kind job.Kind, module, id string) error
	// Start begins an attempt.
	Start(exec.Task) (Guest, error)
}

// Guest is an attempt that runs; see exec.Attempt.
type Guest interface {
	Freeze()
	Thaw()
	Kill()
	Until(time.Duration)
	Done() <-chan struct{}
	Exit() exec.Exit // after Done
}

// Over makes a Runner of a pool of children.
func Over(p *exec.Pool) Runner { return children{p} }

type children struct{ *exec.Pool }

// Start implements Runner.
func (c children) Start(t exec.Task) (Guest, error) {
	a, err := c.Pool.Start(t)
	if err != nil {
		return nil, err
	}
	return a, nil
}
