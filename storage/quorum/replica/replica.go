// Package replica decides for one member of one quorum group: it drives the Raft of go.etcd.io/raft with explicit time and
// chance, and adds what that leaves open. When to stand for election, whom to believe present, when a group is quiet and needs
// no heartbeats, how a command that a follower was given reaches the leader and is applied once, and what is kept on disk.
//
// It is pure: events in, orders out, no clock, disk, network or goroutine. The same events give the same orders. It refuses
// to know what the commands mean, and holds no machine: the shell applies what it is told to and says so.
package replica

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

const (
	// CommandMax is the largest command, in bytes.
	CommandMax = 1 << 20
	// VotersMax is the most voters of a group, MembersMax the most members, learners included.
	VotersMax  = 5
	MembersMax = 8

	batchMax       = 256 << 10 // bytes of commands that share one entry of the log; a larger command is alone in one
	msgMax         = 512 << 10 // bytes of entries in one message, unless one entry is larger
	inflightMax    = 64        // messages with entries that a follower has not acknowledged
	inflightBytes  = 8 << 20
	uncommittedMax = 16 << 20 // bytes of entries that are not committed; what is proposed beyond waits
	applyingMax    = 4 << 20  // bytes of entries handed out to be applied

	// A snapshot is worth making when the log is longer than Config.LogMax and than logRatio times the last snapshot. A group
	// that falls quiet keeps only a quietShare of that without one, and one that has made a snapshot keeps a trailShare for
	// followers that are a little behind.
	logMax     = 256 << 10
	logRatio   = 2
	logCap     = 16 << 20 // and whatever the last snapshot took, this is enough log
	quietShare = 16
	trailShare = 4

	catchUpTicks = 2 // heartbeats that are made up for when time jumped
)

// Timing holds the waits of Raft; a zero field is its default.
type Timing struct {
	Heartbeat time.Duration // between two of the leader's signs of life in a group that is not quiet; 300 ms
	Election  time.Duration // of silence after which followers look for a new leader, within once to twice this; 1.5 s
	Quiet     time.Duration // without anything happening after which a group falls silent; 1 s
}

func (t Timing) withDefaults() Timing {
	if t.Heartbeat <= 0 {
		t.Heartbeat = 300 * time.Millisecond
	}
	if t.Election <= 0 {
		t.Election = 5 * t.Heartbeat
	}
	if t.Quiet <= 0 {
		t.Quiet = time.Second
	}
	t.Election = max(t.Election, 2*t.Heartbeat)
	return t
}

// Config is what a replica needs beside its state.
type Config struct {
	Seed   uint64 // of all its chances; two lives of a replica need two
	Timing Timing
	// LogMax is how many bytes of log are worth a snapshot of the machine; 0: 256 KiB.
	LogMax int
}

// Replica is one member of one group. One goroutine at a time may call its methods.
type Replica struct {
	cfg   Config
	self  uint64
	kind  string
	rng   *rand.Rand
	rn    *raft.RawNode
	store *store
	now   time.Duration
	out   Out
	err   error // why it stopped

	greet      bool     // the other members are to be told that it is here
	promised   []uint64 // replicas that voted for this one by being made, in its first term
	acquainted bool     // they were made known to Raft
	leaving    bool     // it leads, and its own removal is in the log
	doubt      bool     // it leads as far as it knows, but it slept
	removed    bool     // it was taken out of the group, and stays only to vote until it may go
	gone       bool     // it may go

	// What Raft says, as of the last look.
	term, lead, commit, applied uint64
	state                       raft.StateType
	transferring                bool

	book      *Book
	lastConf  uint64 // index of the last change of the members that was handed out
	confAfter uint64 // no change may be proposed before this index is applied
	office    uint64 // the first entry of this leader's term

	saves     saves
	batches   batches
	proposals proposals
	reads     reads
	clock     clock
	presence  presence
	snapshot  snapshotting
	parting   parting
}

// New makes a replica from its state, as founded, offered or found on disk.
func New(cfg Config, st *State, now time.Duration) (*Replica, error) {
	if err := st.check(); err != nil {
		return nil, fmt.Errorf("quorum replica: %w", err)
	}
	cfg.Timing = cfg.Timing.withDefaults()
	if cfg.LogMax <= 0 {
		cfg.LogMax = logMax
	}
	r := &Replica{
		cfg: cfg, self: st.Self, kind: st.Kind, now: now,
		rng:   rand.New(rand.NewPCG(cfg.Seed, st.Self)),
		store: newStore(st),
		book:  st.Snapshot.Book,
	}
	r.store.conf = &r.lastConf
	r.proposals.init(r.rng.Uint64())
	r.presence.init()
	if err := r.start(); err != nil {
		return nil, fmt.Errorf("quorum replica: %w", err)
	}
	r.batches.applied = st.Snapshot.Index
	r.batches.term = st.Snapshot.Term
	r.look()
	r.deferElection()
	if r.alone() {
		r.clock.elect = now
	}
	r.greet = r.store.last() > FoundedIndex // one that was just made has missed nothing, and the others may not be there yet
	return r, nil
}

// start makes the Raft node. What it panics with is damage on disk.
func (r *Replica) start() (err error) {
	defer caught(&err)
	r.rn, err = raft.NewRawNode(&raft.Config{
		ID:                        r.self,
		ElectionTick:              int(r.cfg.Timing.Election / r.cfg.Timing.Heartbeat),
		HeartbeatTick:             1,
		Storage:                   r.store,
		Applied:                   r.store.snap.Index,
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             msgMax,
		MaxCommittedSizePerReady:  applyingMax,
		MaxUncommittedEntriesSize: uncommittedMax,
		MaxInflightMsgs:           inflightMax,
		MaxInflightBytes:          inflightBytes,
		CheckQuorum:               true,
		PreVote:                   true,
		DisableProposalForwarding: true,
		StepDownOnRemoval:         true,
		Logger:                    quiet{},
	})
	return err
}

// Step takes events, in order, that happened up to now. now never goes back. Without events it does what has become due.
func (r *Replica) Step(now time.Duration, events ...Event) Out {
	r.now = max(r.now, now)
	over := r.err != nil || r.gone
	if !over {
		r.err = r.step(events)
		if r.err != nil {
			r.out.Changed = true
			r.endAll()
		}
	}
	if over || r.err != nil {
		for _, ev := range events {
			r.refuse(ev) // once more for those that were begun; the first end counts
		}
	}
	out := r.out
	r.out = Out{}
	out.Wake, out.Idle = r.wake()
	return out
}

func (r *Replica) step(events []Event) (err error) {
	defer caught(&err)
	if r.greet {
		r.greet = false
		r.wakeAll() // if there is a leader it need not be waited for
	}
	r.tick()
	for _, ev := range events {
		if r.ended() && r.refuse(ev) || r.gone {
			continue
		}
		r.handle(ev)
		r.collect()
	}
	if !r.gone {
		r.flush()
		r.acquaint()
		r.collect()
		r.settle()
	}
	return nil
}

func (r *Replica) handle(ev Event) {
	switch ev := ev.(type) {
	case Receive:
		r.receive(ev.From, ev.Message)
	case Saved:
		r.saved(ev.Seq)
	case Applied:
		r.machineApplied(ev.Seq)
	case Snapshotted:
		r.snapshotted(ev)
	case SnapshotSent:
		r.reportSnapshot(ev)
	case Propose:
		r.propose(&proposal{id: ev.ID, kind: entryCommands, data: ev.Data})
	case Dissolve:
		r.propose(&proposal{id: ev.ID, kind: entryDissolve})
	case Cancel:
		r.cancel(ev.ID)
	case Read:
		r.read(ev.ID)
	case Change:
		r.change(ev)
	case Transfer:
		r.transfer(ev.To)
	case Campaign:
		r.promised = ev.Votes
		r.campaign()
	case Presence:
		r.peerPresent(ev.Peer, ev.Present)
	case Lost:
		r.lost(ev.ID)
	case Woke:
		r.woke()
	case Checkpoint:
		r.checkpoint(false)
	}
}

// refuse ends a request that comes too late, and reports whether the event is one.
func (r *Replica) refuse(ev Event) bool {
	switch ev := ev.(type) {
	case Propose:
		r.done(ev.ID, Ended)
	case Dissolve:
		r.done(ev.ID, Ended)
	case Read:
		r.done(ev.ID, Ended)
	case Change:
		r.done(ev.ID, Ended)
	default:
		return false
	}
	return true
}

// endAll ends what waits when the replica does.
func (r *Replica) endAll() {
	for _, p := range r.proposals.all() {
		r.endProposal(p, Ended)
	}
	for _, id := range r.reads.all() {
		r.done(id, Ended)
	}
	r.reads = reads{}
}

func (r *Replica) done(id uint64, why Reason) { r.out.Done = append(r.out.Done, Done{id, why}) }

// look takes over what Raft says now.
func (r *Replica) look() {
	st := r.rn.BasicStatus()
	was, wasTerm, wasLead := r.state, r.term, r.lead
	r.term, r.commit, r.applied = st.GetTerm(), st.GetCommit(), st.Applied
	r.lead, r.state, r.transferring = st.Lead, st.RaftState, st.LeadTransferee != 0
	if r.term != wasTerm {
		r.proposals.newTerm()
		r.reads.sentCtx = 0
	}
	if r.state != was || r.term != wasTerm || r.lead != wasLead {
		r.out.Changed = true
		r.reads.asked = 0 // whoever was asked may not answer any more
	}
	r.doubt, r.leaving = r.doubt && r.leading(), r.leaving && r.leading()
	switch {
	case r.state == raft.StateLeader && (was != raft.StateLeader || r.term != wasTerm):
		r.tookOffice()
	case r.state != raft.StateLeader && was == raft.StateLeader:
		r.deferElection()
	}
}

// tookOffice begins a time as leader.
func (r *Replica) tookOffice() {
	r.confAfter = r.store.last()
	r.office = r.store.last()
	r.leaving = r.removalPending()
	r.clock.hurry, r.clock.slow = 0, 1
	r.clock.tick = r.now + r.cfg.Timing.Heartbeat
	r.stir()
}

func (r *Replica) leading() bool { return r.state == raft.StateLeader }

// alone reports whether this replica is the only voter.
func (r *Replica) alone() bool {
	self, ok := r.book.Get(r.self)
	return ok && !self.Learner && r.book.voters() == 1
}

// voter reports whether this replica has a vote, as far as it knows.
func (r *Replica) voter() bool {
	self, ok := r.book.Get(r.self)
	return ok && !self.Learner
}

// ended reports whether the replica takes no requests any more.
func (r *Replica) ended() bool { return r.err != nil || r.gone || r.removed }

// end makes the replica useless: it was removed and that is settled, or the group was dissolved.
func (r *Replica) end() {
	r.gone = true
	r.out.Changed = true
	r.endAll()
}

// Status describes a replica.
type Status struct {
	Self     uint64
	Leader   uint64 // 0: none
	Term     uint64
	Leading  bool // it leads, and its machine has applied all that was agreed on before its term
	Voter    bool
	Quiet    bool
	Removed  bool // it was taken out of the group, or the group was dissolved
	Gone     bool // and nobody needs it any more: it can be deleted
	Err      error
	Book     *Book
	Commands uint64 // applied by the machine
	Applied  uint64 // index of Raft's log, applied by the machine
	LogBytes int
}

// Status describes the replica as it is now.
func (r *Replica) Status() Status {
	return Status{
		Self: r.self, Leader: r.lead, Term: r.term, Voter: r.voter(), Quiet: r.clock.quiet, Removed: r.removed || r.gone, Gone: r.gone, Err: r.err, Book: r.book,
		Leading:  r.leading() && r.batches.term == r.term && !r.doubt && !r.ended(),
		Commands: r.batches.commands, Applied: r.batches.applied, LogBytes: r.store.bytes,
	}
}

// Progress is what a leader knows of another member.
type Progress struct {
	Match uint64
	Lost  bool
}

// Progress calls f for each member that the leader knows the progress of. On others it does nothing.
func (r *Replica) Progress(f func(id uint64, p Progress)) {
	if !r.leading() || r.err != nil {
		return
	}
	for _, m := range r.progress() {
		f(m.id, Progress{Match: m.match, Lost: r.presence.lost[m.id]})
	}
}

// Present reports whether a peer was not said to be absent.
func (r *Replica) Present(id peer.ID) bool { return !r.presence.absent[id] }

var (
	errUseless = errors.New("the state on disk is not that of a replica")
	errForgot  = errors.New("the leader knows of entries that this replica acknowledged and does not have: its disk lost them")
)

// caught turns a panic of Raft into an error. Its assumptions fail when a disk forgot what it had said to be durable, or when
// another member breaks the rules: then this replica stops, and not the peer.
func caught(err *error) {
	switch p := recover().(type) {
	case nil:
	case error:
		*err = fmt.Errorf("raft: %w", p)
	default:
		*err = fmt.Errorf("raft: %v", p)
	}
}

// fromOthers reports whether a kind of Raft message goes between replicas. All others are for one node only.
func fromOthers(t raftpb.MessageType) bool {
	switch t {
	case raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp,
		raftpb.MsgSnap, raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp, raftpb.MsgTimeoutNow, raftpb.MsgReadIndex, raftpb.MsgReadIndexResp:
		return true
	}
	return false
}
