package market

import (
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/tasks/job"
)

const (
	// PageTasks is how many tasks' results make a page.
	PageTasks = 128
	// PoisonPeers is how many different peers must have failed at a task to poison it.
	PoisonPeers = 3
	// failuresKept is how many failed attempts' results stay with a poisoned task.
	failuresKept = 3
)

// State is where a task stands in the ledger.
type State uint8

// The states of a task. Numbers are part of pages and append-only.
const (
	Open       State = 0
	Succeeded  State = 1
	Failed     State = 2 // poisoned
	Skipped    State = 3 // the reduce of a job with a poisoned task
	Dropped    State = 4 // open when the job was canceled
	NoSuchTask State = 5
)

// String names it.
func (s State) String() string {
	return [...]string{"open", "done", "failed", "skipped", "canceled", "none"}[min(s, NoSuchTask)]
}

// Outcome is what one command came to.
type Outcome struct {
	Kind CommandKind
	Lease
	By     peer.ID
	Ran    time.Duration
	Status Status
}

// Applied is what one entry came to.
type Applied struct {
	Index, Term uint64
	Outcomes    []Outcome
}

// Ledger is what a job's group agrees on. Apply, Restore and Stored change it and must not run at once with one another
// (quorum sees to the first two); everything else may be called at any time by anybody.
type Ledger struct {
	id      job.ID
	applied func(Applied)
	guards  Guards

	mu     sync.RWMutex
	index  uint64 // of the last entry
	born   uint64 // term of the submission
	signed *job.Signed
	splits uint32 // tasks without the reduce
	all    uint32
	closed taskSet

	failed   map[uint32]bool // poisoned ones among the closed
	trouble  map[uint32][]failure
	canceled string // why; "" if not
	canceler peer.ID
	ended    time.Time
	ran      times

	loose  map[uint32]*loosePage // results that are not sealed, by page
	weight int                   // their bytes
	pages  [][]chunk.CID         // the parts of each page that are sealed
	fresh  map[chunk.CID]Page    // those that are not Stored
	away   map[chunk.CID]uint32  // those that were sealed before this replica had them, with their pages
}

// failure is one failed attempt of an open task.
type failure struct {
	by     peer.ID
	token  job.Token
	result []byte
}

// NewLedger returns the empty ledger of a job. applied is called once for each entry, within Apply, with its outcome;
// nil for nobody. It must not call the ledger back.
func NewLedger(id job.ID, applied func(Applied)) *Ledger {
	return NewLedgerWith(usualGuards, id, applied)
}

// Guards are the checks of the ledger and the steward that the simulator takes away one at a time, to see that they are
// missed.
type Guards uint8

// The guards.
const (
	OpenGuard  Guards = 1 << iota // a task that is closed takes no other result
	TokenGuard                    // an attempt whose token is not current commits only where salvage is allowed
	LeaseGuard                    // an exclusive task is granted again only when its lease must have lapsed
	AllGuards  = OpenGuard | TokenGuard | LeaseGuard
)

// NewLedgerWith is NewLedger for the simulator: with some guards only.
func NewLedgerWith(g Guards, id job.ID, applied func(Applied)) *Ledger {
	l := &Ledger{id: id, applied: applied, guards: g}
	l.clear()
	return l
}

func (l *Ledger) clear() {
	l.failed, l.trouble = map[uint32]bool{}, map[uint32][]failure{}
	l.loose, l.fresh, l.away = map[uint32]*loosePage{}, map[chunk.CID]Page{}, map[chunk.CID]uint32{}
}

// Apply takes one entry of the group's log in and returns the encoded replies (DecodeReplies), or nothing if the entry
// makes no sense. index and term are the entry's. It is deterministic.
func (l *Ledger) Apply(index, term uint64, data []byte) []byte {
	l.mu.Lock()
	l.index = index
	at, commands, err := DecodeBatch(data)
	var replies []Status
	out := Applied{Index: index, Term: term}
	if err == nil {
		for i := range commands {
			c := &commands[i]
			status := l.command(c, term, at)
			replies = append(replies, status)
			out.Outcomes = append(out.Outcomes, Outcome{c.Kind, c.Lease, c.By, c.Ran, status})
		}
	}
	l.mu.Unlock()
	if l.applied != nil && len(out.Outcomes) > 0 {
		l.applied(out)
	}
	return encodeReplies(replies)
}

func (l *Ledger) command(c *Command, term uint64, at time.Time) Status {
	if c.Kind == Submit {
		return l.submit(c.Data, term)
	}
	if l.signed == nil {
		return Unready
	}
	if c.Kind == Cancel {
		return l.cancel(c, at)
	}
	if status := l.admits(c, term); status != 0 {
		return status
	}
	if c.Kind == Fail {
		return l.fail(c, at)
	}
	l.ran.add(c.Ran)
	l.close(c.Task, Succeeded, entry{Succeeded, c.Token, c.By, c.Ran, at, [][]byte{c.Data}}, at)
	return Committed
}

// submit makes the job. The spec is not verified again: whoever proposed it did, and all replicas must agree.
func (l *Ledger) submit(raw []byte, term uint64) Status {
	if l.signed != nil {
		return Repeated
	}
	signed, err := job.Trust(append([]byte(nil), raw...))
	if err != nil || signed.ID != l.id {
		return Unready
	}
	l.born = term
	l.begin(signed)
	return Accepted
}

func (l *Ledger) begin(signed *job.Signed) {
	l.signed = signed
	l.splits, l.all = uint32(signed.Spec.Tasks()), uint32(signed.Spec.All())
	l.closed = newTaskSet(int(l.all))
	l.pages = make([][]chunk.CID, (l.all+PageTasks-1)/PageTasks)
}

// admits is the compare of the compare-and-set: 0 lets the command through.
func (l *Ledger) admits(c *Command, term uint64) Status {
	if c.Task >= l.all || l.reduce(c.Task) && l.closed.next(0, l.splits) < l.splits {
		return Unready
	}
	if l.closed.has(c.Task) && l.guards&OpenGuard != 0 {
		// Whether a sealed page is still in memory differs between replicas, so of its tasks no more is said.
		if e, ok := l.looseEntry(c.Task); ok && c.Kind == Finish && e.state == Succeeded && e.token == c.Token && e.by == c.By {
			return Committed // the same commit again: its first answer was lost
		}
		return Closed
	}
	if l.canceled != "" {
		return Canceled
	}
	if l.guards&TokenGuard == 0 {
		return 0
	}
	if c.Token.Term > term || c.Token.Seq == 0 {
		return Stale // no such token can have been granted
	}
	if c.Kind == Finish && l.signed.Spec.Exclusive && c.Checked != term {
		return Stale
	}
	return 0
}

func (l *Ledger) reduce(t uint32) bool { return t >= l.splits }

func (l *Ledger) fail(c *Command, at time.Time) Status {
	list := l.trouble[c.Task]
	for _, f := range list {
		if f.token == c.Token {
			return Repeated
		}
	}
	list = append(list, failure{c.By, c.Token, slices.Clone(c.Data)}) // the entry is not ours to keep
	l.trouble[c.Task] = list
	if !poisonous(list) && len(list) < l.signed.Spec.Attempts() {
		return Counted
	}
	e := entry{state: Failed, token: c.Token, by: c.By, at: at}
	for _, f := range list[max(0, len(list)-failuresKept):] {
		e.results = append(e.results, f.result)
	}
	l.failed[c.Task] = true
	l.close(c.Task, Failed, e, at)
	if l.splits < l.all && c.Task < l.splits && !l.closed.has(l.splits) {
		l.failed[l.splits] = true
		l.close(l.splits, Skipped, entry{state: Skipped, at: at}, at)
	}
	return Poisoned
}

// poisonous: enough different peers failed.
func poisonous(list []failure) bool {
	peers := map[peer.ID]bool{}
	for _, f := range list {
		peers[f.by] = true
	}
	return len(peers) >= PoisonPeers
}

func (l *Ledger) cancel(c *Command, at time.Time) Status {
	if l.over() {
		return Closed
	}
	l.canceled, l.canceler = string(c.Data), c.By
	if l.canceled == "" {
		l.canceled = "canceled"
	}
	l.ended = at
	return Canceled
}

// close records a task's end, and the job's.
func (l *Ledger) close(t uint32, s State, e entry, at time.Time) {
	l.closed.add(t)
	delete(l.trouble, t)
	l.keep(t, e)
	if l.closed.count == int(l.all) {
		l.ended = at
	}
}

func (l *Ledger) over() bool {
	return l.signed != nil && (l.canceled != "" || l.closed.count == int(l.all))
}

// Progress counts a job's tasks. The reduce is one of them.
type Progress struct {
	Submitted                             bool
	Tasks, Done, Failed, Skipped, Dropped int
	Canceled                              string // why; "" if it was not
	Canceler                              peer.ID
	Over                                  bool
	Ended                                 time.Time // by the wall clock of who proposed the last commit
}

// Open returns how many tasks are not closed.
func (p Progress) Open() int { return p.Tasks - p.Done - p.Failed - p.Skipped - p.Dropped }

// Progress says how far the job is.
func (l *Ledger) Progress() Progress {
	l.mu.RLock()
	defer l.mu.RUnlock()
	p := Progress{Submitted: l.signed != nil, Tasks: int(l.all), Canceled: l.canceled, Canceler: l.canceler, Over: l.over(), Ended: l.ended}
	p.Failed = len(l.failed)
	if l.splits < l.all && l.closed.has(l.splits) && l.state(l.splits) == Skipped {
		p.Failed, p.Skipped = p.Failed-1, 1
	}
	p.Done = l.closed.count - p.Failed - p.Skipped
	if l.canceled != "" {
		p.Dropped = int(l.all) - l.closed.count
	}
	return p
}

// Job returns the signed spec; nil before the submission.
func (l *Ledger) Job() *job.Signed {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.signed
}

// Expired reports whether the results' time is over: the group may be dissolved.
func (l *Ledger) Expired(now time.Time) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.over() && now.After(l.ended.Add(l.signed.Spec.Keep()))
}

// State returns where a task stands.
func (l *Ledger) State(task int) State {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if task < 0 || task >= int(l.all) {
		return NoSuchTask
	}
	return l.state(uint32(task))
}

func (l *Ledger) state(t uint32) State {
	switch {
	case l.closed.has(t) && l.failed[t] && l.reduce(t):
		return l.reduceState(t)
	case l.closed.has(t) && l.failed[t]:
		return Failed
	case l.closed.has(t):
		return Succeeded
	case l.canceled != "":
		return Dropped
	}
	return Open
}

// reduceState tells a reduce that failed from one that was skipped, which is so when anything else failed.
func (l *Ledger) reduceState(t uint32) State {
	if len(l.failed) > 1 {
		return Skipped
	}
	return Failed
}

// View is what a new leader's steward is given: a copy of what the ledger knows of open tasks.
type View struct {
	Index    uint64
	Born     uint64 // term of the submission: in that very term nothing can have been granted before
	Spec     *job.Spec
	Splits   uint32
	All      uint32
	Over     bool
	closed   taskSet
	poisoned bool
	failures map[uint32][]peer.ID
	ran      times
}

// View returns a copy of what matters to a steward; ok is false before the submission.
func (l *Ledger) View() (v View, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.signed == nil {
		return View{}, false
	}
	v = View{
		Index: l.index, Born: l.born, Spec: &l.signed.Spec, Splits: l.splits, All: l.all, Over: l.over(),
		closed: l.closed.clone(), failures: map[uint32][]peer.ID{}, ran: l.ran,
	}
	for t, list := range l.trouble {
		for _, f := range list {
			v.failures[t] = append(v.failures[t], f.by)
		}
	}
	return v, true
}

// Open reports whether a task is open in the view.
func (v *View) Open(task uint32) bool { return task < v.All && !v.closed.has(task) }
