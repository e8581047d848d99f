package tasks

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/tasks/exec"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
)

// try is one attempt at a task on this peer: its inputs are fetched, a guest runs, its outputs are made durable. freeze, thaw, kill
// and mayUntil are the worker's goroutine's, and take effect whichever of these it is at.
type try struct {
	market.Attempt
	h        *hand
	dir      string          // for what is read
	guestDir string          // the guest's own; a runner opens the folder around it once for all
	ctx      context.Context // ends with kill
	cancel   context.CancelFunc
	began    market.Moment

	out, err capture

	mu     sync.Mutex
	until  market.Moment
	frozen bool
	thawed chan struct{} // closed by thaw; nil when not frozen
	guest  Guest         // nil before it runs
	killed bool
}

func newTry(h *hand, s market.Start) *try {
	name := s.Job.Short() + "-" + strconv.Itoa(int(s.Task)) + "-" + s.Token.String()
	x := &try{
		Attempt: s.Attempt, h: h, until: s.Until, began: market.Moment(h.t.cfg.Boot()),
		dir: filepath.Join(h.t.cfg.Dir, "tries", name), guestDir: filepath.Join(h.t.cfg.Dir, "guests", name),
	}
	x.out.path, x.err.path = x.dir+".stdout", x.dir+".stderr"
	x.ctx, x.cancel = context.WithCancel(h.t.ctx)
	return x
}

func (x *try) freeze() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.frozen {
		return
	}
	x.frozen, x.thawed = true, make(chan struct{})
	if x.guest != nil {
		x.guest.Freeze()
	}
}

func (x *try) thaw() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.frozen {
		return
	}
	x.frozen = false
	close(x.thawed)
	if x.guest != nil {
		x.guest.Thaw()
	}
}

func (x *try) mayUntil(m market.Moment) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.until = m
	if x.guest != nil {
		x.guest.Until(time.Duration(m))
	}
}

func (x *try) kill() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.killed = true
	x.cancel()
	if x.guest != nil {
		x.guest.Kill()
	}
}

// fault ends an attempt for a reason that is not the task's.
type fault struct {
	why market.Reason
	err error
}

func (f *fault) Error() string { return f.err.Error() }

// blame is why an attempt failed by the task's own fault, in words.
type blame struct{ text string }

func (b *blame) Error() string { return b.text }

// run does all of it, and tells the worker how it ended.
func (x *try) run() {
	defer x.cancel()
	defer func() {
		x.out.end()
		x.err.end()
	}()
	end, err := x.do()
	if x.ctx.Err() != nil {
		x.h.ended(x, market.End{Why: market.Leaving}) // unless it was killed, when nobody listens
		return
	}
	var f *fault
	var b *blame
	switch {
	case err == nil:
	case errors.As(err, &b):
		end = x.failed(&job.Result{Exit: -1, Reason: reason(b.text)})
	case errors.As(err, &f):
		x.h.t.log.Info("tasks: an attempt is given back", "job", x.Job.Short(), "task", x.Task, "err", err)
		end = market.End{Why: f.why}
	default:
		x.h.t.log.Warn("tasks: an attempt is given back", "job", x.Job.Short(), "task", x.Task, "err", err)
		end = market.End{Why: market.Runner}
	}
	// What the core was taken for, not the guest's own time alone: by it the worker reckons how much to keep ready.
	end.Ran = market.Moment(x.h.t.cfg.Boot()).Sub(x.began)
	x.h.ended(x, end)
}

func (x *try) do() (market.End, error) {
	b := x.h.briefOf(x.Job)
	if b == nil {
		var err error
		if b, err = x.h.learn(x.ctx, x.Job, x.h.t.stewards(x.Job)); err != nil {
			return market.End{}, &fault{market.Inputs, err}
		}
	}
	st := stage{x: x, spec: &b.signed.Spec}
	defer st.close()
	task, err := st.prepare()
	if err != nil {
		return market.End{}, err
	}
	x.out.limit, x.err.limit = task.Limits.Output, task.Limits.Output
	exit, err := x.guestRuns(task)
	if err != nil {
		return market.End{}, err
	}
	exit.Usage.Fetched += st.fetched
	return x.result(st.spec, exit)
}

// guestRuns runs the guest to its end.
func (x *try) guestRuns(task exec.Task) (exit exec.Exit, err error) {
	guest, err := x.launch(task)
	if err != nil {
		return exit, err
	}
	<-guest.Done()
	if exit = guest.Exit(); exit.Fault {
		return exit, &fault{market.Runner, errors.New(exit.Reason)}
	}
	return exit, nil
}

// launch starts the guest, once it is not frozen.
func (x *try) launch(task exec.Task) (Guest, error) {
	for {
		x.mu.Lock()
		if x.killed {
			x.mu.Unlock()
			return nil, context.Canceled
		}
		thawed := x.thawed
		if !x.frozen {
			task.Until = time.Duration(x.until)
			guest, err := x.h.t.cfg.Runner.Start(task)
			x.guest = guest
			if err != nil {
				x.guest = nil
				err = &fault{market.Runner, err}
			}
			x.mu.Unlock()
			return guest, err
		}
		x.mu.Unlock()
		select {
		case <-thawed:
		case <-x.ctx.Done():
			return nil, x.ctx.Err()
		}
	}
}

// reason makes a text fit for a result.
func reason(text string) string {
	text = wire.CleanText(text)
	if len(text) > job.ReasonMax {
		text = wire.CleanText(text[:job.ReasonMax-4]) + "…"
	}
	return text
}
