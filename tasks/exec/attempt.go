package exec

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/shoal-os/shoal/dht/pool"
	"github.com/shoal-os/shoal/tasks/exec/pb"
	"github.com/shoal-os/shoal/tasks/job"
)

// thawLate is how long after a time limit that was moved just before it came the child is woken once more: it may have
// stopped itself before it heard of the new one.
const thawLate = 50 * time.Millisecond

// Attempt is one run of a task. Its methods may be called by anybody at any time, and do nothing after its end.
type Attempt struct {
	task Task
	pool *Pool
	done chan struct{}

	mu     sync.Mutex
	runner *runner // nil before it has one and after the end
	id     uint64  // of the task in the runner
	over   bool
	exit   Exit
	why    string // why it was killed

	until  time.Duration // 0: never
	frozen bool          // by Freeze
	lapsed bool          // Until has come
	late   time.Duration // when to wake the child once more; 0: need not
	held   bool          // whether it stands still, for one reason or the other
	told   bool          // of proc: what the child knows of frozen
	ran    time.Duration // how long it ran unheld until since
	since  time.Time     // zero while it does not run
	timer  *time.Timer   // calls tick
}

func newAttempt(p *Pool, t Task) *Attempt {
	return &Attempt{task: t, pool: p, done: make(chan struct{}), until: t.Until}
}

// Done is closed when the attempt has ended: no process of it runs any more, and all it wrote was passed on.
func (a *Attempt) Done() <-chan struct{} { return a.done }

// Exit says how the attempt ended. It must be called after Done only.
func (a *Attempt) Exit() Exit {
	select {
	case <-a.done:
	default:
		panic("exec: Exit before Done")
	}
	return a.exit
}

// Freeze stops the guest until Thaw; it keeps what it has. Time that it is frozen does not count.
func (a *Attempt) Freeze() { a.hold(true) }

// Thaw lets a frozen guest go on, if its time has not come.
func (a *Attempt) Thaw() { a.hold(false) }

func (a *Attempt) hold(frozen bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.frozen = frozen
	a.tell()
	a.apply()
}

// Until moves the reading of the boot-time clock at which the guest stops running; 0 is never. One that stopped because an
// earlier time came goes on.
func (a *Attempt) Until(t time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.lapsed && a.until != 0 {
		a.late = a.until + thawLate
	}
	a.until = t
	if a.runner == nil {
		return
	}
	_ = a.runner.send(&pb.Order{Order: &pb.Order_Until{Until: &pb.Until{Id: a.id, UntilNs: int64(t)}}})
	a.apply()
}

// Kill ends the attempt, soon but not at once; wait for Done.
func (a *Attempt) Kill() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kill("it was killed")
}

// kill is Kill with a reason. The lock is held.
func (a *Attempt) kill(why string) {
	if a.over || a.why != "" {
		return
	}
	a.why = why
	r, id := a.runner, a.id
	if r == nil {
		return // begin ends it
	}
	if r.kind == job.Wasm {
		r.destroy()
		return
	}
	// The child kills its guests and says what they used. If it does not, it is killed with them.
	if r.signal(id, pb.Signal_KILL) != nil {
		r.destroy()
		return
	}
	time.AfterFunc(killGrace, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.runner != nil {
			r.destroy()
		}
	})
}

// begin gives the task to a child. It returns false, and the child is free, if the attempt is over.
func (a *Attempt) begin(r *runner, id uint64) bool {
	a.mu.Lock()
	if a.why != "" {
		why := a.why
		a.mu.Unlock()
		a.end(Exit{Code: CodeKilled, Reason: why})
		return false
	}
	defer a.mu.Unlock()
	a.runner, a.id, a.since = r, id, time.Now()
	m := a.task.message()
	m.Id, m.UntilNs = id, int64(a.until)
	if err := r.send(&pb.Order{Order: &pb.Order_Task{Task: m}}); err != nil {
		r.destroy() // the attempt ends when the child's reader does
		return true
	}
	a.tell()
	a.apply()
	return true
}

// tell has a child of proc freeze or thaw its guests. The lock is held.
func (a *Attempt) tell() {
	if a.runner == nil || a.runner.kind != job.Proc || a.told == a.frozen {
		return
	}
	a.told = a.frozen
	kind := pb.Signal_THAW
	if a.frozen {
		kind = pb.Signal_FREEZE
	}
	_ = a.runner.signal(a.id, kind)
}

// apply makes the child do what the fields say, and sets the timer. The lock is held.
func (a *Attempt) apply() {
	if a.over || a.runner == nil {
		return
	}
	now := pool.BootTime()
	a.lapsed = a.until != 0 && now >= a.until
	held := a.frozen || a.lapsed
	again := a.late != 0 && now >= a.late
	if again {
		a.late = 0
	}
	wasm := a.runner.kind == job.Wasm
	switch {
	case held && !a.held:
		a.ran = a.running()
		a.since = time.Time{}
		if wasm {
			a.runner.freeze()
		}
	case !held && a.held:
		a.since = time.Now()
		again = true
	}
	if again && !held && wasm {
		a.runner.thaw()
	}
	a.held = held
	a.arm(now)
}

// arm sets the timer to what comes next: the end of its running time, its Until, or the second waking.
func (a *Attempt) arm(now time.Duration) {
	next := time.Duration(1<<63 - 1)
	if !a.held {
		next = a.task.Limits.Wall - a.running()
		if a.until != 0 {
			next = min(next, a.until-now)
		}
		if a.late != 0 {
			next = min(next, a.late-now)
		}
	}
	if a.timer == nil {
		a.timer = time.AfterFunc(max(next, 0), a.tick)
	} else {
		a.timer.Reset(max(next, 0))
	}
}

func (a *Attempt) tick() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over || a.runner == nil {
		return
	}
	if a.running() >= a.task.Limits.Wall {
		a.kill(fmt.Sprintf("it ran longer than its limit of %v", a.task.Limits.Wall))
		return
	}
	a.apply()
}

// running returns how long the guest has run.
func (a *Attempt) running() time.Duration {
	if a.since.IsZero() {
		return a.ran
	}
	return a.ran + time.Since(a.since)
}

// output passes on what the guest wrote. A child that says more than it may is broken.
func (a *Attempt) output(stderr bool, data []byte) error {
	w := a.task.Stdout
	if stderr {
		w = a.task.Stderr
	}
	if w == nil {
		return nil
	}
	if _, err := w.Write(data); err != nil {
		a.mu.Lock()
		a.kill("what it wrote could not be kept: " + err.Error())
		a.mu.Unlock()
	}
	return nil
}

// detach takes the child from the attempt, which has ended there. A child of wasm that was stopped after it had said so goes
// on: it is the next attempt's, which would wait for ever.
func (a *Attempt) detach() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held && a.runner != nil && a.runner.kind == job.Wasm {
		a.runner.thaw()
	}
	a.runner = nil
	if a.timer != nil {
		a.timer.Stop()
	}
}

// end sets the exit, once.
func (a *Attempt) end(e Exit) {
	a.mu.Lock()
	if a.over {
		a.mu.Unlock()
		return
	}
	a.over, a.runner = true, nil
	if a.timer != nil {
		a.timer.Stop()
	}
	if a.why != "" && (e.Fault || e.Reason == "" && e.Code == CodeKilled || e.Reason == killedWord) {
		e.Reason, e.Fault, e.Code = a.why, false, CodeKilled
	}
	e.Usage.Wall = a.running()
	a.exit = e
	a.mu.Unlock()
	close(a.done)
}

var _ io.Writer = (*tail)(nil)

// size says a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30 && n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
