package market

import (
	"container/heap"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/tasks/job"
)

// fair is one worker among several jobs, each with a steward of its own. Messages take a millisecond.
type fair struct {
	t    *testing.T
	now  Moment
	w    *Worker
	wake Moment
	jobs []*fairJob
	due  fairEvents
	seq  int
}

type fairEvent struct {
	at  Moment
	seq int
	f   func()
}

type fairEvents []fairEvent

func (q fairEvents) Len() int { return len(q) }
func (q fairEvents) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q fairEvents) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *fairEvents) Push(x any)   { *q = append(*q, x.(fairEvent)) }
func (q *fairEvents) Pop() any {
	x := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return x
}

type fairJob struct {
	f       *fair
	signed  *job.Signed
	l       *Ledger
	s       *Steward
	takes   time.Duration
	owner   peer.ID
	prio    int
	done    int
	running int
	area    float64 // core seconds
	since   Moment
	index   uint64
	applied []Applied
	wake    Moment
	steps   int
}

func newFair(t *testing.T, cores int) *fair {
	f := &fair{t: t, now: 1, w: NewWorker("w")}
	f.step(WorkerEvent{Kind: Changed, Lends: Lends{Cores: cores, Memory: 1 << 40, Mains: true, Wasm: true}})
	return f
}

func (f *fair) after(d time.Duration, do func()) {
	f.seq++
	heap.Push(&f.due, fairEvent{f.now.Add(d), f.seq, do})
}

func (f *fair) add(owner peer.ID, prio, tasks int, takes time.Duration) *fairJob {
	signed := testJob(f.t, func(s *job.Spec) { s.Split.Count, s.Priority, s.Nonce = uint32(tasks), prio, uint64(len(f.jobs)) })
	j := &fairJob{f: f, signed: signed, takes: takes, owner: owner, prio: prio, since: f.now}
	j.l = NewLedger(signed.ID, func(a Applied) { j.applied = append(j.applied, a) })
	j.s = NewSteward(signed.ID, peer.ID(fmt.Sprint("s", len(f.jobs))))
	f.jobs = append(f.jobs, j)
	j.propose([]Command{{Kind: Submit, Data: signed.Raw}})
	v, _ := j.l.View()
	j.step(StewardEvent{Kind: Lead, Term: 1, View: v, Stewards: []peer.ID{j.s.self}})
	return j
}

func (j *fairJob) propose(list []Command) {
	data, err := EncodeBatch(time.UnixMilli(1), list)
	if err != nil {
		j.f.t.Fatal(err)
	}
	j.index++
	j.applied = nil
	j.l.Apply(j.index, 1, data)
	for _, a := range slices.Clone(j.applied) {
		for _, o := range a.Outcomes {
			if o.Status == Committed {
				j.done++
			}
		}
		j.f.after(0, func() { j.step(StewardEvent{Kind: Result, Applied: a}) })
	}
}

func (j *fairJob) step(ev StewardEvent) {
	out := j.s.Step(j.f.now, ev)
	if j.steps++; j.steps%100 == 0 { // it looks at every task
		if err := j.s.Check(); err != nil {
			j.f.t.Fatal(err)
		}
	}
	for _, c := range slices.Clone(out.Propose) {
		j.f.after(time.Millisecond, func() { j.propose([]Command{c}) })
	}
	for _, a := range out.Orders {
		j.f.after(time.Millisecond, func() {
			j.f.step(WorkerEvent{Kind: Ordered, Job: j.signed.ID, Stream: a.Stream, Order: a.Order})
		})
	}
	if out.Announce != nil {
		ad := *out.Announce
		ad.Submitter = j.owner
		j.f.after(time.Millisecond, func() { j.f.step(WorkerEvent{Kind: Announced, Ad: &ad}) })
	}
	if at := out.Wake; at != 0 && at != j.wake {
		j.wake = at
		j.f.after(at.Sub(j.f.now), func() {
			if j.wake == at {
				j.wake = 0
				j.step(StewardEvent{})
			}
		})
	}
}

func (f *fair) of(id job.ID) *fairJob {
	for _, j := range f.jobs {
		if j.signed.ID == id {
			return j
		}
	}
	return nil
}

func (f *fair) step(ev WorkerEvent) {
	out := f.w.Step(f.now, ev)
	if err := f.w.Check(); err != nil {
		f.t.Fatal(err)
	}
	for _, p := range out.Posts {
		j := f.of(p.Job)
		f.after(time.Millisecond, func() {
			j.step(StewardEvent{Kind: Reported, Peer: "w", Stream: p.Stream, Report: p.Report})
		})
	}
	for _, d := range out.Dials {
		j := f.of(d.Job)
		f.after(time.Millisecond, func() {
			j.step(StewardEvent{Kind: Joined, Peer: "w", Stream: d.Stream})
			f.step(WorkerEvent{Kind: Connected, Job: d.Job, Stream: d.Stream})
		})
	}
	for _, s := range out.Starts {
		j := f.of(s.Job)
		j.count(1)
		f.after(j.takes, func() {
			j.count(-1)
			f.step(WorkerEvent{Kind: Ended, Job: s.Job, End: End{Lease: s.Lease, Ran: j.takes, Result: testResult(f.t, "")}})
		})
	}
	for _, ad := range slices.Clone(out.Looks) {
		f.after(time.Millisecond, func() { f.step(WorkerEvent{Kind: Looked, Job: ad.Job}) })
	}
	if at := out.Wake; at != 0 && at != f.wake {
		f.wake = at
		f.after(at.Sub(f.now), func() {
			if f.wake == at {
				f.wake = 0
				f.step(WorkerEvent{})
			}
		})
	}
}

// count keeps the time that cores spent on a job.
func (j *fairJob) count(n int) {
	j.area += float64(j.running) * j.f.now.Sub(j.since).Seconds()
	j.since = j.f.now
	j.running += n
}

func (f *fair) run(d time.Duration) {
	end := f.now.Add(d)
	for len(f.due) > 0 && f.due[0].at <= end {
		e := heap.Pop(&f.due).(fairEvent)
		f.now = max(f.now, e.at)
		e.f()
	}
	f.now = end
}

// shares runs for a while and returns each job's part of the cores' time since.
func (f *fair) shares(d time.Duration) (out []float64) {
	for _, j := range f.jobs {
		j.count(0)
		j.area = 0
	}
	f.run(d)
	sum := 0.0
	for _, j := range f.jobs {
		j.count(0)
		sum += j.area
	}
	for _, j := range f.jobs {
		out = append(out, j.area/sum)
	}
	return out
}

func wantShares(t *testing.T, got []float64, want ...float64) {
	t.Helper()
	for i := range want {
		if got[i] < want[i]-0.1 || got[i] > want[i]+0.1 {
			t.Errorf("job %d has %.2f of the cores, want about %.2f; all: %.2f", i, got[i], want[i], got)
		}
	}
}

// TestFairBetweenSubmitters: three jobs of one and one of another share half and half.
func TestFairBetweenSubmitters(t *testing.T) {
	for _, takes := range []time.Duration{5 * time.Millisecond, 300 * time.Millisecond, 2 * time.Second} {
		t.Run(takes.String(), func(t *testing.T) {
			f := newFair(t, 6)
			for range 3 {
				f.add("anna", 0, 20_000, takes)
			}
			f.add("ben", 0, 20_000, takes)
			f.run(3 * takes)
			wantShares(t, f.shares(max(10*takes, 2*time.Second)), 1.0/6, 1.0/6, 1.0/6, 1.0/2)
		})
	}
}

// TestLateJobGetsItsShare: a job that comes when another has all the cores, and work kept ready beside.
func TestLateJobGetsItsShare(t *testing.T) {
	for _, takes := range []time.Duration{2 * time.Millisecond, 50 * time.Millisecond, time.Second} {
		t.Run(takes.String(), func(t *testing.T) {
			f := newFair(t, 4)
			f.add("anna", 0, 50_000, takes)
			f.run(2 * time.Second)
			f.add("ben", 0, 50_000, takes)
			f.run(time.Second + 2*takes)
			wantShares(t, f.shares(3*time.Second+10*takes), 1.0/2, 1.0/2)
		})
	}
}

// TestPriority: a step of priority is twice the share.
func TestPriority(t *testing.T) {
	f := newFair(t, 6)
	f.add("anna", 1, 5000, 100*time.Millisecond)
	f.add("ben", 0, 5000, 100*time.Millisecond)
	f.run(time.Second)
	wantShares(t, f.shares(5*time.Second), 2.0/3, 1.0/3)
}

// TestNoIdleCores: a job that has little to do leaves its share to the others, and both end.
func TestNoIdleCores(t *testing.T) {
	f := newFair(t, 4)
	a := f.add("anna", 0, 100, 100*time.Millisecond)
	b := f.add("ben", 0, 4, 100*time.Millisecond)
	f.run(3200 * time.Millisecond)
	if a.done != 100 || b.done != 4 {
		t.Errorf("done: %d and %d", a.done, b.done) // 104 tasks of 0.1 s on 4 cores need 2.6 s
	}
}

// TestSmallTasksStream: tasks of a millisecond over a round trip of two keep both cores busy.
func TestSmallTasksStream(t *testing.T) {
	f := newFair(t, 2)
	j := f.add("anna", 0, 4000, time.Millisecond)
	f.run(2500 * time.Millisecond)
	if j.done != 4000 {
		t.Errorf("%d of 4000 tasks are done, which would take 2 s on idle cores", j.done)
	}
}

// TestHotStandby: two jobs promised the same free core both open a task at once: one waits its turn or is given back, and
// both end.
func TestHotStandby(t *testing.T) {
	f := newFair(t, 1)
	a, b := f.add("anna", 0, 1, 5*time.Second), f.add("ben", 0, 1, 5*time.Second)
	f.run(20 * time.Second)
	if a.done != 1 || b.done != 1 {
		t.Errorf("done: %d and %d", a.done, b.done)
	}
}
