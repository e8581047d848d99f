package sim

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/quorum/replica"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
)

// adBound is how long an open task may go unannounced by a leader that has nothing in its way, by true time: the longest
// pause between two announcements on a slow clock.
const adBound = market.LeaseTTL + 70*time.Second

// facts is what an onlooker who sees all has noted down.
type facts struct {
	entries  []noted                     // what the group agreed on
	winners  map[uint32]winner           // the one commit of a task
	told     map[uint32]job.Token        // commits that a worker was told of
	ends     map[job.Token]time.Duration // true time at which an attempt's lease lapses at the last that granted or renewed it
	top      map[uint32]job.Token        // the newest token granted of a task
	running  map[uint32][]*guest         // by task
	poisoned map[uint32]bool
}

type noted struct {
	id    uint64
	term  uint64
	reply []byte
}

type winner struct {
	token job.Token
	by    peer.ID
}

func newFacts() facts {
	return facts{winners: map[uint32]winner{}, told: map[uint32]job.Token{}, ends: map[job.Token]time.Duration{},
		top: map[uint32]job.Token{}, running: map[uint32][]*guest{}, poisoned: map[uint32]bool{}}
}

func compareTokens(a, b job.Token) int {
	return cmp.Or(cmp.Compare(a.Term, b.Term), cmp.Compare(a.Seq, b.Seq))
}

// agree holds what a replica applied, and what its ledger made of it, against what others did.
func (w *world) agree(x *node, c replica.Command, reply []byte) {
	f := &w.facts
	i := int(c.Index) - 1
	switch {
	case i > len(f.entries):
		w.fail("%s applies command %d, and %d were agreed on", x.id, c.Index, len(f.entries))
	case i == len(f.entries):
		f.entries = append(f.entries, noted{c.ID, c.Term, reply})
	case f.entries[i].id != c.ID || f.entries[i].term != c.Term:
		w.fail("%s applies another command %d than others did", x.id, c.Index)
	case !bytes.Equal(f.entries[i].reply, reply):
		w.fail("%s answers command %d with %v, others with %v", x.id, c.Index, reply, f.entries[i].reply)
	}
}

// decided notes commits: at most one for each task, whoever applies it, and of an exclusive job only that of the newest
// attempt.
func (w *world) decided(x *node, a market.Applied) {
	f := &w.facts
	for _, o := range a.Outcomes {
		switch {
		case o.Kind == market.Finish && o.Status == market.Committed:
			won, ok := f.winners[o.Task]
			if ok && (won != winner{o.Token, o.By}) {
				w.fail("task %d is committed twice: %s by %s and %s by %s", o.Task, won.token, won.by, o.Token, o.By)
			}
			if f.poisoned[o.Task] {
				w.fail("task %d is committed and was given up", o.Task)
			}
			if !ok && w.job.Spec.Exclusive && o.Token != f.top[o.Task] {
				w.fail("task %d of an exclusive job is committed by %s, and %s was granted since", o.Task, o.Token, f.top[o.Task])
			}
			f.winners[o.Task] = winner{o.Token, o.By}
		case o.Kind == market.Fail && o.Status == market.Poisoned:
			f.poisoned[o.Task] = true
			if _, ok := f.winners[o.Task]; ok {
				w.fail("task %d is given up and was committed", o.Task)
			}
		}
	}
}

// leads checks that a new leader knows of every commit that anybody was told of.
func (w *world) leads(x *node, v *market.View, term uint64) {
	w.res.Leaders++
	for t, token := range w.facts.told {
		if v.Open(t) {
			w.fail("%s leads term %d and does not know that task %d was committed as %s", x.id, term, t, token)
		}
	}
}

// checkSteward looks at a steward after each step.
func (w *world) checkSteward(x *node, out *market.StewardOut) {
	f := &w.facts
	if err := x.steward.Check(); err != nil {
		w.fail("%s: %v", x.id, err)
	}
	if out.Announce != nil || x.steward.OpenTasks() == 0 {
		x.adAt = w.Now
	}
	if _, leading := x.steward.Leading(); leading && w.Now-x.adAt > adBound && !w.chaos {
		w.fail("%s has %d open tasks and has announced none since %v", x.id, x.steward.OpenTasks(), x.adAt)
	}
	for _, l := range x.steward.Leases() {
		end := x.moment(l.Expires)
		if end < w.Now-time.Millisecond {
			w.fail("%s: the lease of task %d lapsed at %v and stands", x.id, l.Task, end)
		}
		f.ends[l.Token] = max(f.ends[l.Token], end)
		if f.top[l.Task].Less(l.Token) {
			f.top[l.Task] = l.Token
		}
	}
	for _, a := range out.Orders {
		for _, v := range a.Order.Verdicts {
			if v.Status == market.Committed {
				w.told(v.Lease)
			}
		}
	}
}

// told notes that a worker was told of its commit.
func (w *world) told(l market.Lease) {
	if won, ok := w.facts.winners[l.Task]; !ok || won.token != l.Token {
		w.fail("%s of task %d is told that it is committed; that is %s", l.Token, l.Task, won.token)
	}
	w.facts.told[l.Task] = l.Token
}

// runs checks a guest that begins or goes on.
func (w *world) runs(x *node, g *guest) {
	f := &w.facts
	t := g.attempt.Task
	if w.job.Spec.Exclusive && len(f.running[t]) > 0 {
		w.fail("%s runs task %d as %s while it runs as %s elsewhere; the job is exclusive", x.id, t, g.attempt.Token, f.running[t][0].attempt.Token)
	}
	f.running[t] = append(f.running[t], g)
	w.ran(x, g, true)
}

// ran checks a guest that stops or goes on: until now its lease must have stood at who granted it.
func (w *world) ran(x *node, g *guest, goesOn ...bool) {
	f := &w.facts
	if end := f.ends[g.attempt.Token]; w.Now > end {
		w.fail("%s runs task %d as %s, whose lease lapsed at %v", x.id, g.attempt.Task, g.attempt.Token, end)
	}
	if len(goesOn) == 0 {
		f.running[g.attempt.Task] = slices.DeleteFunc(f.running[g.attempt.Task], func(o *guest) bool { return o == g })
	}
}

// over reports that some steward knows the job to be at its end.
func (w *world) over() bool {
	for _, x := range w.nodes[:w.plan.stewards] {
		if x.up && !x.idle() && x.ledger != nil && x.ledger.Progress().Over {
			return true
		}
	}
	return false
}

// settled reports that nothing is left to be done: every steward that is there knows the end, and no worker holds a thing.
func (w *world) settled() bool {
	for _, x := range w.nodes {
		switch {
		case x.dead || x.away && x.idle():
		case !x.up || x.idle():
			return false
		case x.group != nil && !x.ledger.Progress().Over:
			return false
		case len(x.worker.Held()) > 0 || len(x.guests) > 0:
			return false
		}
	}
	return true
}

// final holds the end against what was noted down.
func (w *world) final() {
	for _, x := range w.nodes[:w.plan.stewards] {
		if !x.up || x.idle() {
			continue
		}
		for t := range w.job.Spec.All() {
			w.finalTask(x, t)
		}
	}
}

func (w *world) finalTask(x *node, t int) {
	won, ok := w.facts.winners[uint32(t)]
	state := x.ledger.State(t)
	if ok != (state == market.Succeeded) {
		w.fail("%s: task %d ends %s, committed: %v", x.id, t, state, ok)
		return
	}
	rec, pages, err := x.ledger.ResultAt(t)
	for _, p := range pages {
		if data, here := x.pages[p]; here && err != nil {
			rec, err = market.RecordIn(data, t)
		}
	}
	switch {
	case err != nil:
		w.fail("%s: task %d: %v", x.id, t, err)
	case ok && (rec.Token != won.token || rec.By != won.by || !bytes.Equal(rec.Results[0], w.good)):
		w.fail("%s: task %d has the result of %s by %s; committed was %s by %s", x.id, t, rec.Token, rec.By, won.token, won.by)
	}
}
