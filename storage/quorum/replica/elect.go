package replica

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

const (
	// patienceMax is how many times the usual wait an election waits when no majority can be reached.
	patienceMax = 16
	// hurryRounds is how many elections are tried in quick succession when the leader's peer is known to be gone.
	hurryRounds = 8
)

// clock holds what is due. Raft's own ticks drive the leader only; when a follower may forget its leader and stand for
// election is decided here, from chances that the seed gives.
type clock struct {
	quiet  bool          // nothing is due: no heartbeats are sent, and none expected
	tick   time.Duration // of the leader
	hush   time.Duration // when to try to fall quiet: between two heartbeats, so that none comes after the word
	active time.Duration // when something happened last
	lease  time.Duration // until when the leader is believed in without a sign of life; 0: it is forgotten
	elect  time.Duration // when to stand for election
	hurry  int           // elections that are tried soon
	slow   time.Duration // factor of the waits between elections that nobody can win
}

// presence is what is known about who can be reached.
type presence struct {
	absent map[peer.ID]bool
	lost   map[uint64]bool    // replicas that their peers deny
	met    map[uint64]peer.ID // senders that the book does not name
}

func (p *presence) init() {
	p.absent, p.lost, p.met = make(map[peer.ID]bool), make(map[uint64]bool), make(map[uint64]peer.ID)
}

// meet remembers whose a replica is that the book does not name.
func (p *presence) meet(id uint64, whose peer.ID) {
	if len(p.met) >= metMax {
		clear(p.met)
	}
	p.met[id] = whose
}

func (p *presence) heard(id peer.ID) { delete(p.absent, id) }

// stir notes that something happened: the group is not quiet for a while.
func (r *Replica) stir() { r.clock.active = r.now }

// chance is a random part of a duration.
func (r *Replica) chance(d time.Duration) time.Duration { return time.Duration(r.rng.Int64N(int64(d))) }

// tick does what has become due by the clock.
func (r *Replica) tick() {
	c := &r.clock
	if c.quiet {
		return
	}
	if r.leading() {
		r.tickLeader()
		return
	}
	if c.lease != 0 && r.now >= c.lease {
		r.forget()
	}
	switch {
	case r.now < c.elect:
	case r.removed:
		r.askToLeave()
	default:
		r.campaign()
	}
	r.collect()
}

func (r *Replica) tickLeader() {
	c := &r.clock
	for range catchUpTicks {
		if r.now < c.tick || !r.leading() {
			return
		}
		r.rn.Tick()
		r.collect()
		c.tick += r.cfg.Timing.Heartbeat
		c.hush = r.now + r.cfg.Timing.Heartbeat/2
	}
	if c.tick <= r.now { // the machine slept, or was too busy: what was missed is not made up for
		c.tick = r.now + r.cfg.Timing.Heartbeat
	}
}

// forget gives up the leader, so that this replica may vote for another one.
func (r *Replica) forget() {
	r.clock.lease = 0
	if r.lead != 0 && !r.leading() {
		_ = r.rn.ForgetLeader()
	}
}

// heardLeader notes a sign of life.
func (r *Replica) heardLeader() {
	r.clock.lease = r.now + r.cfg.Timing.Election
	r.clock.hurry, r.clock.slow = 0, 1
	r.deferElection()
}

// deferElection sets when to stand for election unless something happens.
func (r *Replica) deferElection() {
	e := r.cfg.Timing.Election
	c := &r.clock
	switch {
	case c.hurry > 0:
		c.elect = r.now + e/8 + r.chance(e/8)
	default:
		c.elect = r.now + max(c.slow, 1)*(e+r.chance(e))
	}
}

// campaign stands for election, if this replica may.
func (r *Replica) campaign() {
	c := &r.clock
	if c.hurry > 0 {
		c.hurry--
	} else if r.majorityPresent() {
		c.slow = 1
	} else {
		c.slow = min(2*max(c.slow, 1), patienceMax)
	}
	c.quiet = false
	r.deferElection()
	if !r.leading() && r.voter() {
		r.forget()
		_ = r.rn.Campaign()
	}
}

// countPromised gives Raft the answers of those whose votes this replica has: first to the question whether they would vote for it,
// and when a majority would, to that for the vote.
func (r *Replica) countPromised() {
	if len(r.promised) == 0 {
		return
	}
	var t raftpb.MessageType
	switch st := r.rn.BasicStatus(); {
	case st.RaftState == raft.StatePreCandidate && st.GetTerm() == foundedTerm:
		t = raftpb.MsgPreVoteResp
	case st.RaftState == raft.StateCandidate && st.GetTerm() == firstOffice:
		t = raftpb.MsgVoteResp
	default:
		return
	}
	term := uint64(firstOffice)
	for _, id := range r.promised {
		_ = r.rn.Step(&raftpb.Message{Type: &t, From: &id, To: &r.self, Term: &term})
	}
}

// acquaint tells Raft, when the founder leads, that the others have what the group was founded with, so that it sends them what comes
// next without asking first where their logs end.
func (r *Replica) acquaint() {
	if len(r.promised) == 0 || r.acquainted || !r.leading() || r.term != firstOffice {
		return
	}
	r.acquainted = true
	t, index, term := raftpb.MsgAppResp, uint64(FoundedIndex), uint64(firstOffice)
	for _, id := range r.promised {
		_ = r.rn.Step(&raftpb.Message{Type: &t, From: &id, To: &r.self, Term: &term, Index: &index})
	}
}

// answered reports whether the answer to a message of Raft is known already.
func (r *Replica) answered(m *raftpb.Message) bool {
	switch m.GetType() {
	case raftpb.MsgPreVote, raftpb.MsgVote:
		return m.GetTerm() == firstOffice && slices.Contains(r.promised, m.GetTo())
	case raftpb.MsgApp: // which asks where a log ends; acquaint has it sent again with what comes after
		return !r.acquainted && m.GetTerm() == firstOffice && slices.Contains(r.promised, m.GetTo())
	}
	return false
}

// peerPresent takes note of who can be reached.
func (r *Replica) peerPresent(id peer.ID, present bool) {
	m, ok := r.book.Of(id)
	was := !r.presence.absent[id]
	if present {
		delete(r.presence.absent, id)
	} else if ok && m.ID != r.self {
		r.presence.absent[id] = true
	}
	switch {
	case !ok || was == present || m.ID == r.self:
	case present:
		r.peerBack()
	default:
		r.peerGone(m)
	}
}

func (r *Replica) peerBack() {
	r.out.Changed = true
	switch {
	case r.leading():
		r.rouse(0)
		r.stir()
	case r.lead == 0 && r.voter():
		r.clock.slow = 1
		soon := r.now + r.cfg.Timing.Election/16 + r.chance(r.cfg.Timing.Election/8)
		r.clock.elect = min(r.clock.elect, soon)
	}
}

func (r *Replica) peerGone(m Member) {
	r.out.Changed = true
	switch {
	case r.leading():
		r.rn.ReportUnreachable(m.ID)
		if !r.majorityPresent() {
			r.rouse(0) // so that this replica finds out that it leads nobody
		}
	case m.ID == r.lead && r.voter():
		r.clock.quiet = false
		r.forget()
		r.clock.hurry = hurryRounds
		r.clock.elect = r.now + r.turn(m.ID)
	}
}

// turn is how soon to stand for election when the leader is gone: one after the other, so that votes are not split, and the
// first one late enough for the others to have noticed too.
func (r *Replica) turn(gone uint64) time.Duration {
	rank := 0
	for _, m := range r.book.Members {
		if m.ID == r.self {
			break
		}
		if !m.Learner && m.ID != gone && !r.presence.absent[m.Peer] {
			rank++
		}
	}
	e := r.cfg.Timing.Election
	return e/64 + time.Duration(rank)*e/8 + r.chance(e/64)
}

func (r *Replica) lost(id uint64) {
	if _, ok := r.book.Get(id); ok && !r.presence.lost[id] {
		r.presence.lost[id] = true
		r.out.Changed = true
	}
}

// majorityPresent reports whether a majority of the voters can be reached, this one included.
func (r *Replica) majorityPresent() bool {
	voters, there := 0, 0
	for _, m := range r.book.Members {
		if m.Learner {
			continue
		}
		voters++
		if m.ID == r.self || !r.presence.absent[m.Peer] && !r.presence.lost[m.ID] {
			there++
		}
	}
	return there > voters/2
}

// rouse ends quiet: something happened, by another member or, with 0, here.
func (r *Replica) rouse(by uint64) {
	c := &r.clock
	if !c.quiet {
		return
	}
	c.quiet = false
	r.out.Changed = true
	r.stir()
	if r.leading() {
		c.tick = r.now
		return
	}
	r.heardLeader() // it is given the usual time to show itself
	if r.lead != 0 && by != r.lead {
		r.sendTo(r.lead, Message{Wake: &Wake{}})
	}
}

// settle does what depends on all that happened: reads are asked for, and a group that has nothing more to do falls quiet.
func (r *Replica) settle() {
	r.askReads()
	r.dismiss()
	if c := &r.clock; !c.quiet && r.leading() && c.hush != 0 && r.now >= c.hush {
		c.hush = 0
		if r.now >= c.active+r.cfg.Timing.Quiet {
			r.tryQuiet()
		}
	}
	r.wantSnapshot()
}

// idle reports whether this replica has nothing under way.
func (r *Replica) idle() bool {
	return len(r.proposals.pending) == 0 && r.reads.empty() && len(r.saves.waiting) == 0 && len(r.batches.waiting) == 0 &&
		len(r.parting.ids) == 0 && !r.transferring && r.commit == r.store.last()
}

// tryQuiet lets the group fall silent when all members that can be reached have everything, and a majority is among them.
func (r *Replica) tryQuiet() {
	if !r.idle() || r.applied != r.commit || !r.majorityPresent() {
		return
	}
	var tell []uint64
	for _, p := range r.progress() {
		m, _ := r.book.Get(p.id)
		if p.id == r.self || r.presence.absent[m.Peer] || r.presence.lost[p.id] {
			continue
		}
		// Raft looks now and then whether followers answered since it last looked. It must find that they did when the group
		// is roused just before it looks, or the leader would step down for nothing.
		if !p.inStep || !p.active || p.match != r.store.last() {
			return
		}
		tell = append(tell, p.id)
	}
	for _, id := range tell {
		r.sendTo(id, Message{Quiet: &Quiet{Term: r.term, Index: r.store.last()}})
	}
	r.clock.quiet = true
	r.out.Changed = true
}

// hearQuiet follows the leader into silence, if this replica has all that the leader has.
func (r *Replica) hearQuiet(from uint64, q *Quiet) {
	if r.leading() || from != r.lead || q.Term != r.term || q.Index != r.commit || !r.idle() {
		return
	}
	r.heardLeader()
	r.clock.quiet = true
	r.out.Changed = true
}

type memberProgress struct {
	id, match uint64
	inStep    bool // entries flow to it
	active    bool // it was heard since the last check of the quorum
}

// progress lists what the leader knows of the members, in the order of their numbers.
func (r *Replica) progress() (out []memberProgress) {
	r.rn.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
		out = append(out, memberProgress{id, p.Match, p.State == tracker.StateReplicate, p.RecentActive})
	})
	slices.SortFunc(out, func(a, b memberProgress) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return out
}

// transfer hands over to another voter.
func (r *Replica) transfer(to uint64) {
	if m, ok := r.book.Get(to); !r.leading() || !ok || m.Learner || to == r.self {
		return
	}
	r.rouse(0)
	r.stir()
	r.rn.TransferLeader(to)
	r.look()
}

// wake says when the next step is due.
func (r *Replica) wake() (at time.Duration, idle bool) {
	if r.err != nil || r.gone {
		return 0, true
	}
	idle = true
	due := func(t time.Duration) {
		if t != 0 && (idle || t < at) {
			at, idle = t, false
		}
	}
	c := &r.clock
	switch {
	case c.quiet:
	case r.leading():
		due(c.tick)
		due(c.hush)
	case r.removed:
		due(c.elect)
	case r.voter():
		due(c.lease)
		due(c.elect)
	}
	due(r.proposals.retry)
	if len(r.proposals.asks) > 0 && r.lead != 0 && !r.leading() {
		due(r.proposals.again)
	}
	if len(r.reads.asking) > 0 && r.lead != 0 && r.inOffice() {
		due(r.reads.asked + readAgain)
	}
	return at, idle
}
