package tasks

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/quorum"
	"github.com/shoal-os/shoal/tasks/card"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/keep"
)

const (
	// upkeepEvery is how often each seat is looked after, and sweepEvery how often the directory is.
	upkeepEvery = 5 * time.Second
	sweepEvery  = 10 * time.Minute
	// upkeepWait bounds one look after a seat.
	upkeepWait = time.Minute
	// orphanWait is how long a group may be without the submission that it was made for. A submitter gives up much sooner.
	orphanWait = 5 * time.Minute
	// strayWait is how long pieces may be listed for a job of which nobody has heard.
	strayWait = time.Hour
	// lateWait is how long after a job's time its records are left to its stewards to delete; then anybody does.
	lateWait = 24 * time.Hour
	// stewardsWanted is how many a job has if the pool has as many.
	stewardsWanted = 3
)

// upkeep looks after seats and records, now and then.
func (t *Tasks) upkeep() {
	ticker := time.NewTicker(upkeepEvery)
	defer ticker.Stop()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-ticker.C:
			for _, s := range t.allSeats() {
				if s.due() {
					s.upkeep()
				}
			}
		case <-sweep.C:
			if err := t.sweep(t.ctx); err != nil && t.ctx.Err() == nil {
				t.log.Warn("tasks: old records", "err", err)
			}
		case <-t.ctx.Done():
			return
		}
	}
}

// overRest is how many rounds of upkeep pass a job by that is over.
const overRest = 24

// due reports whether there may be something to do for a seat. Of the many whose job is over it costs next to nothing.
func (s *seat) due() bool {
	if s.clerk.behind() {
		return true
	}
	if !s.leading.Load() && s.ledger.Job() != nil {
		return false
	}
	return !s.ledger.Progress().Over || s.rounds.Add(1)%overRest == 0
}

// upkeep looks after one seat, unless that is being done.
func (s *seat) upkeep() {
	if !s.keeping.CompareAndSwap(false, true) {
		return
	}
	if !s.t.start(func() {
		defer s.keeping.Store(false)
		ctx, cancel := context.WithTimeout(s.ctx, upkeepWait)
		defer cancel()
		s.clerk.work()
		if err := s.lookAfter(ctx); err != nil && s.ctx.Err() == nil {
			s.t.log.Info("tasks: looking after a job", "job", s.id.Short(), "err", err)
		}
	}) {
		s.keeping.Store(false)
	}
}

// lookAfter ends what is over, and replaces stewards that are gone for good. That is the leader's to do.
func (s *seat) lookAfter(ctx context.Context) error {
	st := s.group.Status()
	switch {
	case !st.Leading:
		return nil
	case s.ledger.Job() == nil && s.t.cfg.Boot()-time.Duration(s.began.Load()) > orphanWait:
		return s.dissolve(ctx)
	case s.ledger.Job() == nil:
		return nil
	case s.ledger.Expired(s.t.cfg.Now()):
		return s.dissolve(ctx)
	}
	return s.voters(ctx, st)
}

// dissolve ends a job for good: its records first, so that a crash on the way leaves a group that does it again.
func (s *seat) dissolve(ctx context.Context) error {
	if err := s.t.forget(ctx, s.id); err != nil {
		return err
	}
	return s.group.Dissolve(ctx)
}

// forget deletes a job's records.
func (t *Tasks) forget(ctx context.Context, id job.ID) error {
	var changes []directory.Change
	for r := range t.cfg.Records.Scan(keep.Of(id)) {
		changes = append(changes, directory.Change{Key: r.Key, Delete: true})
	}
	if _, ok := t.cfg.Records.Get(card.KeyOf(id)); ok {
		changes = append(changes, directory.Change{Key: card.KeyOf(id), Delete: true})
	}
	if len(changes) == 0 {
		return nil
	}
	return t.cfg.Records.Write(ctx, changes...)
}

// voters takes out one steward that will not come back, or takes one in if there are fewer than wanted. One change a time.
func (s *seat) voters(ctx context.Context, st quorum.Status) error {
	for _, m := range st.Members {
		if !m.Self && (m.Lost || s.t.goneForGood(m.Peer)) {
			return s.group.Remove(ctx, m.Peer)
		}
	}
	have := map[peer.ID]bool{}
	learner := peer.ID("")
	for _, m := range st.Members {
		have[m.Peer] = true
		if m.Learner {
			learner = m.Peer
		}
	}
	if learner != "" && s.t.online(learner) {
		return s.group.Add(ctx, learner)
	}
	if len(have) >= stewardsWanted {
		return nil
	}
	wanted := s.t.chooseBeside(s.id, have)
	if len(have)+len(wanted) < stewardsWanted {
		return nil // with two, both are needed: no better than one
	}
	var err error
	for _, id := range wanted[:stewardsWanted-len(have)] {
		err = errors.Join(err, s.group.Add(ctx, id))
	}
	return err
}

// goneForGood: evicted, left, or not seen for a month.
func (t *Tasks) goneForGood(id peer.ID) bool {
	m, ok := t.cfg.Members.Member(id)
	if ok {
		return m.State == roster.Departed || m.Role < ident.RoleMember
	}
	return m.Standing == roster.Evicted || m.Standing == roster.Left
}

func (t *Tasks) online(id peer.ID) bool {
	m, ok := t.cfg.Members.Member(id)
	return ok && (m.Self || m.State == roster.Online)
}

// candidates are the members that may be stewards.
func (t *Tasks) candidates() (out []quorum.Candidate) {
	for _, m := range t.cfg.Members.Members() {
		if m.Role < ident.RoleMember {
			continue
		}
		out = append(out, quorum.Candidate{
			ID: m.ID, Self: m.ID == t.self, Owner: t.cfg.Owner(m.ID), Anchor: m.Lends.AlwaysOn, Mains: m.Lends.Power != roster.PowerBattery,
			Reachable: m.ID == t.self || m.State == roster.Online, Uptime: t.cfg.Uptime(m.ID),
		})
	}
	return out
}

// chooseStewards chooses those of a new job: this peer and two more, if there are two more.
func (t *Tasks) chooseStewards(id job.ID) []peer.ID {
	return quorum.Choose(id, t.candidates(), stewardsWanted)
}

// chooseBeside chooses further stewards of a job that has some, best first.
func (t *Tasks) chooseBeside(id job.ID, have map[peer.ID]bool) (out []peer.ID) {
	var rest []quorum.Candidate
	for _, c := range t.candidates() {
		if !have[c.ID] || c.Self {
			rest = append(rest, c)
		}
	}
	for _, p := range quorum.Choose(id, rest, quorum.VotersMax) {
		if !have[p] {
			out = append(out, p)
		}
	}
	if len(out) == 0 && len(rest) == 2 { // Choose gives odd numbers; one more is what may be wanted
		for _, c := range rest {
			if !c.Self && c.Reachable {
				out = append(out, c.ID)
			}
		}
	}
	return out
}

// sweep deletes what crashes left behind: lists of jobs that never came to be, by whoever wrote them; and records of jobs whose time was
// over long ago, which their stewards would have deleted if they could.
func (t *Tasks) sweep(ctx context.Context) error {
	now := t.cfg.Now()
	var changes []directory.Change
	cards := map[string]bool{}
	for r := range t.cfg.Records.Scan(card.Prefix) {
		id, err := card.IDOf(r.Key)
		if err != nil {
			continue
		}
		c, err := card.Decode(id, r.Value)
		if err == nil && !c.Expires.IsZero() && now.After(c.Expires.Add(lateWait)) && t.seat(id) == nil {
			changes = append(changes, directory.Change{Key: r.Key, Delete: true})
			continue // its lists go with the next sweep, or by whoever wrote them
		}
		cards[id.String()] = true
	}
	for r := range t.cfg.Records.Scan(keep.Prefix) {
		id, ok := jobOfList(r.Key)
		if ok && cards[id.String()] || ok && t.seat(id) != nil {
			continue
		}
		age := now.Sub(r.Time.Time())
		if age > strayWait && r.Author == t.self || age > strayWait+lateWait {
			changes = append(changes, directory.Change{Key: r.Key, Delete: true})
		}
	}
	if len(changes) == 0 {
		return nil
	}
	return t.cfg.Records.Write(ctx, changes...)
}

// jobOfList reads the job's id from a keep record's key.
func jobOfList(key string) (job.ID, bool) {
	if len(key) < len(keep.Prefix)+2*len(job.ID{}) {
		return job.ID{}, false
	}
	id, err := job.ParseID(key[len(keep.Prefix) : len(keep.Prefix)+2*len(job.ID{})])
	return id, err == nil
}
