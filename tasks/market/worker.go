package market

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/tasks/job"
)

const (
	jobsMax    = 256                    // jobs that are kept in mind
	ownedMax   = 64                     // of one submitter
	streamsMax = 32                     // jobs with a stream at a time
	doneMax    = 1024                   // results that wait for their verdict; with so many no more work is taken
	goneMax    = 256                    // jobs remembered as over, so that a late announcement does not revive them
	bidSpread  = 200 * time.Millisecond // by which a worker that fits not at all bids later than one that fits wholly

	lookRetry  = time.Minute      // a job that this peer cannot run is looked at again after this
	returnTime = 30 * time.Second // a lost stream is opened again for so long though no task is open
	forgetTime = 3 * time.Minute  // a job without tasks of it here and without news is forgotten
	resultKeep = 24 * time.Hour   // a result that no leader takes is kept for so long
	frozenKeep = 10 * time.Minute // a frozen attempt keeps its memory for so long
	yieldKeep  = 10 * time.Second // one that was frozen because less is lent, for so long
	queueMax   = 2 * time.Second  // what finds no core in time is given back

	dialFirst = 50 * time.Millisecond // between two dials, doubling up to …
	dialMax   = 5 * time.Second
	moveWait  = 2 * time.Second  // at a steward that does not lead and knows no other, before the next is tried
	dialWait  = 15 * time.Second // for the answer to a Dial

	aheadTime = 250 * time.Millisecond // work kept ready beside what runs, in running time
	aheadMax  = 256                    // tasks of one job that are kept ready
	stampsMax = 64                     // reports whose sending time is remembered
)

// WorkerKind is what happened to a worker.
type WorkerKind uint8

// The kinds of event, with the fields they use.
const (
	WorkerTick WorkerKind = iota // time passed: call at Out.Wake
	Announced                    // Ad
	Looked                       // Job, Look
	Connected                    // Job, Stream: what Out.Dials asked for is there
	Ordered                      // Job, Stream, Order
	Hungup                       // Job, Stream: it ended, or could not be opened
	Ended                        // Job, End: an attempt ended
	Changed                      // Lends
	Mine                         // On: the owner takes the machine back, or gives it again
	Sleeping                     // On: the machine is about to sleep; off: it woke or stayed awake
	Stopping                     // this peer leaves: everything is given back
)

// WorkerEvent is one thing that happened to a worker; Kind says which fields count.
type WorkerEvent struct {
	Kind   WorkerKind
	Job    job.ID
	Stream uint64
	Ad     *Ad
	Look   Look
	Order  *Order
	End    End
	Lends  Lends
	On     bool
}

// Look is what the shell found out about a job that it was told to look at.
type Look struct {
	Refused string // why this peer cannot run it, in words; "" if it can
	Local   int64  // bytes of its inputs that are here …
	Total   int64  // … of so many
	Prefer  []Span // tasks whose inputs are here
}

// End is how an attempt ended. With Result and without Failed it is a success.
type End struct {
	Lease
	Ran    time.Duration
	Result []byte // encoded; nil if it gave none for a reason that is not the task's
	Failed bool   // Result counts against the task; it has at most FailureMax bytes
	Why    Reason // without Result
}

// Lends is what a peer lends now.
type Lends struct {
	Cores   int
	Memory  int64 // bytes
	Mains   bool
	Battery int           // percent
	Awake   time.Duration // how long it is expected to stay awake; 0: no end is expected
	Wasm    bool
	Proc    bool
	Labels  []string
	Why     string // why it lends no cores, in words
	Peers   int    // members that are online, this one included, who may all hear the same announcement; 0: unknown
}

// Attempt names one run of one task here.
type Attempt struct {
	Job job.ID
	Lease
}

// Start is an attempt to begin.
type Start struct {
	Attempt
	Until Moment
}

// Post is a report and the job whose steward it is for.
type Post struct {
	Job    job.ID
	Stream uint64
	Report *Report // the receiver's to keep
}

// Dial asks for a stream to a steward.
type Dial struct {
	Job    job.ID
	Peer   peer.ID
	Stream uint64 // its number, in every event of it
}

// WorkerOut is what a worker has its shell do, in this order: what must not run any longer stops before anything is
// said about it. It is valid until the next Step.
type WorkerOut struct {
	Freeze []Attempt // stop at once, and keep in memory
	Until  []Start   // of those that run, or go on: how long they may, now
	Thaw   []Attempt // go on
	Kill   []Attempt // end it; no Ended is expected, one that comes is ignored
	Posts  []Post
	Hangup []uint64 // streams to close; none of their events counts any more
	Dials  []Dial
	Starts []Start
	Looks  []*Ad  // fetch and check the spec, compile the program, count inputs; answer with Looked
	Wake   Moment // when to send a WorkerTick; zero when nothing depends on time
}

// Worker is one peer's side of all jobs. One goroutine owns it.
type Worker struct {
	self    peer.ID
	lends   Lends
	mine    bool
	asleep  bool
	stopped bool

	jobs   map[job.ID]*pursuit
	order  []*pursuit // by id
	gone   []job.ID   // over, the oldest first
	stream uint64     // last number

	now Moment
	out WorkerOut
}

// NewWorker returns a worker that lends nothing yet.
func NewWorker(self peer.ID) *Worker {
	return &Worker{self: self, jobs: map[job.ID]*pursuit{}}
}

// Step takes events in, in their order, and says what to do. Give it all that have gathered: they are answered together.
// The answer is valid until the next Step.
func (w *Worker) Step(now Moment, events ...WorkerEvent) *WorkerOut {
	w.now = now
	o := &w.out
	w.out = WorkerOut{Freeze: o.Freeze[:0], Thaw: o.Thaw[:0], Kill: o.Kill[:0], Until: o.Until[:0], Posts: o.Posts[:0],
		Hangup: o.Hangup[:0], Dials: o.Dials[:0], Starts: o.Starts[:0], Looks: o.Looks[:0]}
	w.freezeLapsed() // before anything else is believed
	for i := range events {
		w.apply(&events[i])
	}
	w.expire()
	w.fit()
	w.start()
	w.dial()
	w.talk()
	w.out.Wake = w.wake()
	return &w.out
}

func (w *Worker) apply(ev *WorkerEvent) {
	switch ev.Kind {
	case Announced:
		w.announced(ev.Ad)
		return
	case Changed:
		w.lends = ev.Lends
		w.refit()
		return
	case Mine:
		if w.mine = ev.On; ev.On {
			w.giveUp(Owner)
		}
		return
	case Sleeping:
		if w.asleep = ev.On; ev.On {
			w.giveUp(Suspend)
		}
		return
	case Stopping:
		w.stopped = true
		w.giveUp(Leaving)
		return
	}
	p := w.jobs[ev.Job]
	if p == nil {
		return
	}
	switch ev.Kind {
	case Looked:
		w.looked(p, ev.Look)
	case Connected:
		if p.stage == dialing && p.stream == ev.Stream {
			w.connected(p)
		}
	case Ordered:
		if p.stage == standing && p.stream == ev.Stream {
			w.ordered(p, ev.Order)
		}
	case Hungup:
		if (p.stage == standing || p.stage == dialing) && p.stream == ev.Stream {
			w.hungup(p)
		}
	case Ended:
		w.ended(p, &ev.End)
	}
}

// cores is how many cores may be used now.
func (w *Worker) cores() int {
	if w.mine || w.asleep || w.stopped {
		return 0
	}
	return w.lends.Cores
}

// used is how many cores the running attempts have.
func (w *Worker) used() (n int) {
	for _, p := range w.order {
		n += p.n[Running] * p.ad.Needs.Cores
	}
	return n
}

func (w *Worker) memory() (n int64) {
	for _, p := range w.order {
		n += int64(p.n[Running]+p.n[Frozen]) * p.ad.Needs.Memory
	}
	return n
}

// paced takes in for how long an attempt had its cores: on a busy machine that is much longer than its program ran, and what
// is kept ready by the program's time alone would not find a core in queueMax.
func (p *pursuit) paced(took time.Duration) {
	if p.mean > 0 {
		took = (3*p.mean + took) / 4
	}
	p.mean = max(took, time.Microsecond)
	p.ended++
}

// ended takes in that an attempt is over.
func (w *Worker) ended(p *pursuit, e *End) {
	a := p.held[e.Task]
	if a == nil || a.Token != e.Token || a.phase != Running && a.phase != Frozen {
		return
	}
	if e.Result == nil {
		w.release(a, e.Why)
		return
	}
	p.paced(max(e.Ran, a.elapsed(w.now)))
	w.enter(a, Done)
	a.result, a.took, a.failed = e.Result, e.Ran, e.Failed
	p.unsent = append(p.unsent, a)
}
