package market

import (
	"cmp"
	"slices"
	"time"
)

// attempt is one task held.
type attempt struct {
	Attempt
	of      *pursuit
	phase   Phase
	until   Moment        // the lease lasts so long by our clock
	listed  uint64        // Seq of the first Full report of this stream with it; 0 none
	since   Moment        // it entered the phase
	ran     time.Duration // before since, while running
	yielded bool          // frozen because less is lent, not because the lease ran out
	result  []byte
	took    time.Duration
	failed  bool
	void    bool   // its lease was revoked
	gone    bool   // it is held no more
	sentAt  Moment // of the result on this stream
}

// enter moves an attempt to a phase.
func (w *Worker) enter(a *attempt, to Phase) {
	if a.phase == Running {
		a.ran += w.now.Sub(a.since)
	}
	a.of.n[a.phase]--
	a.phase, a.since = to, w.now
	a.of.n[to]++
	a.of.dueAt = earlier(a.of.dueAt, a.deadline())
}

// deadline is when something is to be done about an attempt if nothing happens.
func (a *attempt) deadline() Moment {
	switch {
	case a.phase == Running:
		return a.until
	case a.phase == Queued:
		return a.since.Add(queueMax)
	case a.phase == Frozen && a.yielded:
		return a.since.Add(yieldKeep)
	case a.phase == Frozen:
		return a.since.Add(frozenKeep)
	}
	return a.since.Add(resultKeep)
}

// elapsed is how long an attempt has run.
func (a *attempt) elapsed(now Moment) time.Duration {
	if a.phase == Running {
		return a.ran + now.Sub(a.since)
	}
	if a.phase == Done {
		return a.took
	}
	return a.ran
}

// remove forgets an attempt.
func (w *Worker) remove(a *attempt) {
	a.of.n[a.phase]--
	a.gone = true
	delete(a.of.held, a.Task)
}

// kill ends an attempt, wherever it is.
func (w *Worker) kill(a *attempt) {
	if a.phase == Running || a.phase == Frozen {
		w.out.Kill = append(w.out.Kill, a.Attempt)
	}
	w.remove(a)
}

// anyPhase stands for all phases.
const anyPhase Phase = 0

// sorted returns a job's attempts of a phase in the order in which they were granted.
func (p *pursuit) sorted(phase Phase) []*attempt {
	var out []*attempt
	for _, a := range p.held {
		if phase == anyPhase || a.phase == phase {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b *attempt) int {
		if a.Token.Less(b.Token) {
			return -1
		}
		if b.Token.Less(a.Token) {
			return 1
		}
		return cmp.Compare(a.Task, b.Task)
	})
	return out
}
