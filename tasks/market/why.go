package market

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/tasks/job"
)

// Standing is one lease as a steward sees it, for ps and top.
type Standing struct {
	Lease
	Worker  peer.ID
	Phase   Phase
	Ran     time.Duration
	Expires Moment
	Copy    bool // the second attempt at the task
}

// Leases returns the leases of this leader, by task.
func (s *Steward) Leases() (out []Standing) {
	for _, k := range s.tasks {
		for i, l := range k.leases {
			out = append(out, Standing{l.Lease, l.to.id, l.phase, l.elapsed(s.now), l.expires, i > 0})
		}
	}
	slices.SortFunc(out, func(a, b Standing) int {
		return cmp.Or(cmp.Compare(a.Task, b.Task), cmp.Compare(a.Token.Term, b.Token.Term), cmp.Compare(a.Token.Seq, b.Token.Seq))
	})
	return out
}

// Leading reports whether this peer leads, by the last that it was told, and in which term.
func (s *Steward) Leading() (term uint64, ok bool) { return s.term, s.leading }

// OpenTasks is how many tasks could be granted; 0 if this peer does not lead.
func (s *Steward) OpenTasks() int {
	if !s.leading || s.over {
		return 0
	}
	return s.open()
}

// Workers returns how many workers stand by, and how many tasks they could begin now.
func (s *Steward) Workers() (workers, slots int) {
	for _, w := range s.order {
		if w.here {
			workers++
			slots += w.slots
		}
	}
	return workers, slots
}

// Why says in one sentence where a task stands and, if it does not run, what it waits for. name turns a peer into words.
func (s *Steward) Why(t int, name func(peer.ID) string) string {
	task := uint32(t)
	switch {
	case !s.leading:
		return "this steward does not lead"
	case t < 0 || task >= s.view.All:
		return "the job has no such task"
	case s.view.closed.has(task):
		return "it is done, or was given up"
	case s.over:
		return "the job is over"
	}
	k := s.tasks[task]
	if k != nil && len(k.leases) > 0 {
		return s.whyLeased(k, name)
	}
	switch _, proposed := s.pending[task]; {
	case proposed:
		return "its result is being written to the job's log"
	case task >= s.view.Splits:
		if s.taken.has(task) {
			return fmt.Sprintf("it waits for the %d tasks before it that are not done", int(s.view.Splits)-s.view.closed.count)
		}
	case s.now < s.grantFrom:
		return "a new leader waits for those who may be running it to say so"
	}
	workers, slots := s.Workers()
	switch {
	case k != nil && len(k.failures) > 0:
		return fmt.Sprintf("it failed %d times (%s) and waits for another peer, or for a while", len(k.failures), names(k.failures, name))
	case workers == 0:
		return "no peer has offered to run it; ask each why"
	case slots == 0:
		return fmt.Sprintf("all that the %d peers lend is in use; it is one of %d that wait", workers, s.open())
	}
	return "it is about to be granted"
}

func (s *Steward) whyLeased(k *task, name func(peer.ID) string) string {
	var parts []string
	for _, l := range k.leases {
		doing := [...]string{"has it", "has it ready", "runs it", "has frozen it", "has its result"}[min(l.phase, Done)]
		text := fmt.Sprintf("%s %s (attempt %s, %v)", name(l.to.id), doing, l.Token, l.elapsed(s.now).Round(time.Millisecond))
		if l.lost {
			text += ", was lost from sight, and is waited for as the job is exclusive"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

func names(peers []peer.ID, name func(peer.ID) string) string {
	var out []string
	for _, p := range peers {
		if n := name(p); !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return strings.Join(out, ", ")
}

// Why says in one sentence what this peer does about a job, or why it does nothing.
func (w *Worker) Why(id job.ID) string {
	p := w.jobs[id]
	switch {
	case slices.Contains(w.gone, id):
		return "it is over"
	case w.stopped:
		return "this peer is stopping"
	case w.mine:
		return "its owner uses this machine (shoal mine)"
	case w.asleep:
		return "this machine is about to sleep"
	case p == nil:
		return "no announcement of it has come here"
	case len(p.held) > 0:
		return fmt.Sprintf("%d tasks of it are here: %d running, %d ready, %d frozen, %d with a result to hand over",
			len(p.held), p.n[Running], p.n[Queued], p.n[Frozen], p.n[Done])
	case w.lends.Cores <= 0 && w.lends.Why != "":
		return w.lends.Why
	case w.lends.Cores <= 0:
		return "this peer lends no cores now"
	}
	return w.whyIdle(p)
}

func (w *Worker) whyIdle(p *pursuit) string {
	switch p.stage {
	case looking:
		return "its program and inputs are being looked at"
	case refused:
		return p.why
	case unasked:
		return "it leaves the job to the peers that were asked to bid first; if tasks stay open, it is asked too"
	case waiting:
		return "it bids in a moment, after those that fit better"
	case apart, dialing:
		return "it looks for the job's leading steward"
	}
	switch {
	case p.moveAt != 0:
		return "it waits for the job's stewards to choose a leader"
	case p.open == 0:
		return "it stands by; every task is in somebody's hands"
	case p.room(w.cores()-w.used(), w.lends.Memory-w.memory()) == 0:
		return "its cores or memory are in use by other tasks"
	}
	return "it has offered cores and waits for a task"
}

// Holding is one lease in a worker's hands.
type Holding struct {
	Job job.ID
	Standing
}

// Held returns what the worker has in hand, for top.
func (w *Worker) Held() (out []Holding) {
	for _, p := range w.order {
		for _, a := range p.sorted(anyPhase) {
			out = append(out, Holding{p.id, Standing{Lease: a.Lease, Worker: w.self, Phase: a.phase, Ran: a.elapsed(w.now), Expires: a.until}})
		}
	}
	return out
}

// When says when a peer lends its cores.
type When uint8

// The policies.
const (
	WhenAlways When = iota
	WhenMains       // only on mains
	WhenIdle        // only while nobody uses the machine
)

// batteryMin is the charge, in percent, under which a machine lends nothing.
const batteryMin = 25

// Allow says how many cores a policy lets a peer lend, and if none, why, in words.
func Allow(when When, cores int, mains bool, battery int, idle bool) (int, string) {
	switch {
	case when == WhenMains && !mains:
		return 0, "it runs on battery, and lends only on mains"
	case when == WhenIdle && !idle:
		return 0, "its owner uses it, and it lends only when idle"
	case !mains && battery < batteryMin:
		return 0, "its battery is low"
	}
	return cores, ""
}
