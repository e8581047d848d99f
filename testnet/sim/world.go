package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/agenda"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
)

// stepsMax bounds the events of a schedule; one has a thousand or some more.
const stepsMax = 100_000

// world is one pool under virtual time, with one job. All chance in it comes from its seed.
type world struct {
	agenda.Agenda // true time, which no peer knows

	seed    uint64
	without Guard
	rng     *rand.Rand
	nodes   []*node
	plan    plan
	job     *job.Signed
	facts   facts
	chaos   bool // faults may still happen
	side    []int
	cut     map[[2]int]bool
	streams []*stream

	bereaved   bool // one peer is away for good
	good, bad  []byte
	nextID     uint64
	nextStream uint64
	res        Result
	err        error
	trace      func(string) // nil: nobody looks on
}

// note tells who looks on what happens.
func (w *world) note(format string, args ...any) {
	if w.trace == nil {
		return
	}
	for i, a := range args {
		if id, ok := a.(peer.ID); ok {
			args[i] = string(id)
		}
	}
	w.trace(fmt.Sprintf("%v ", w.Now) + fmt.Sprintf(format, args...))
}

// plan is what a schedule is made of.
type plan struct {
	peers    int
	stewards int
	tasks    int
	chaos    time.Duration // how long faults go on

	loss, double float64 // of messages
	delay        time.Duration
	slow         float64 // share of messages that take up to a second
	disk         time.Duration
	patience     time.Duration // of a steward's shell with the log
	taskTime     time.Duration // the mean
	fails        float64       // share of attempts that fail
	hopeless     int           // tasks that always fail
	bulky        bool          // results of a kilobyte
	faults       []fault       // kinds that happen
	every        time.Duration // between two of them, on average
}

// upTo is a random duration below d.
func (w *world) upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(w.rng.Int64N(int64(d)))
}

// between is a random duration.
func (w *world) between(a, b time.Duration) time.Duration { return a + w.upTo(b-a) }

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		for i, a := range args {
			if id, ok := a.(peer.ID); ok {
				args[i] = string(id) // a letter
			}
		}
		w.err = fmt.Errorf("seed %d at %v: %w", w.seed, w.Now, fmt.Errorf(format, args...))
	}
}

// run lets time pass until the end, or until stop says so.
func (w *world) run(end time.Duration, stop func() bool) {
	for w.err == nil && w.Next(end) {
		if w.res.Steps++; w.res.Steps > stepsMax {
			w.fail("no rest after %d events", stepsMax)
		}
		if stop != nil && stop() {
			return
		}
	}
	w.Now = max(w.Now, end)
}

// node is one peer: a process with a worker and, on the first ones, a steward of the job with its replica.
type node struct {
	w    *world
	n    int
	id   peer.ID
	life int // what was planned for an earlier one is void

	up     bool
	dead   bool          // for good
	away   bool          // for the night
	asleep time.Duration // until when the machine is suspended; guests with it
	paused time.Duration // until when the process is stopped, while guests run on
	held   []func()      // what came meanwhile and will be found on waking
	rate   float64
	offset time.Duration

	worker  *market.Worker
	lends   market.Lends
	wWake   market.Moment
	streams map[uint64]*stream // of the worker, by their number
	guests  map[market.Attempt]*guest

	*group // nil of a peer that is no steward
}

// boot is the node's clock, which goes on in sleep.
func (x *node) boot() market.Moment {
	return market.Moment(x.offset + time.Duration(float64(x.w.Now)*x.rate))
}

// real is how long it is until the node's clock shows m.
func (x *node) real(m market.Moment) time.Duration {
	return time.Duration(float64(m.Sub(x.boot()))/x.rate) + time.Microsecond
}

// moment is the true time at which the node's clock shows m.
func (x *node) moment(m market.Moment) time.Duration {
	return time.Duration(float64(time.Duration(m)-x.offset) / x.rate)
}

// idle reports that the process does nothing now, though it is not dead.
func (x *node) idle() bool { return x.asleep > x.w.Now || x.paused > x.w.Now }

// do runs f in the node's process: now, or when it goes on. What happens to a dead process is lost.
func (x *node) do(f func()) {
	switch {
	case !x.up || x.w.err != nil:
	case x.idle():
		x.held = append(x.held, f)
	default:
		f()
	}
}

// hear is do for what comes from elsewhere, which may be lost while the process does nothing.
func (x *node) hear(f func()) {
	if x.up && x.idle() && x.w.chance(0.3) {
		return
	}
	x.do(f)
}

// later runs f in this life of the node's process, after a while.
func (x *node) later(d time.Duration, f func()) {
	life := x.life
	x.w.After(d, func() {
		if x.life == life {
			x.do(f)
		}
	})
}

// stream is a worker's standing stream to a steward.
type stream struct {
	id       uint64
	from, to *node
	number   uint64 // the worker's name for it
	fromLife int
	toLife   int
	fromEnd  bool // the worker's side knows that it ended
	toEnd    bool // the steward's side does
}

// guest is a task that runs on a machine, in a process of its own.
type guest struct {
	attempt market.Attempt
	left    time.Duration // of its work
	since   time.Duration // true time it last went on
	running bool
	turn    int // what was planned for an earlier one is void
	until   market.Moment
	fails   bool
	over    bool
}
