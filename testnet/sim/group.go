package sim

import (
	"bytes"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/quorum/replica"
	"github.com/shoal-os/shoal/tasks/market"
)

// group is a steward's part in the job's quorum group: the real replica and ledger on a simulated disk, and the real
// steward beside them.
type group struct {
	self    uint64 // the replica's number
	log     [][]byte
	durable int // records of log that a loss of power leaves
	saved   uint64
	snaps   map[uint64][]byte // of the ledger
	pages   map[chunk.CID][]byte

	r       *replica.Replica
	rWake   time.Duration
	ledger  *market.Ledger
	outcome []market.Applied
	batches []replica.Batch
	founds  bool
	busy    bool
	want    bool
	at      replica.Batch

	steward *market.Steward
	sWake   market.Moment
	lead    uint64 // the term in which the steward was told that it leads; 0: it was told that it does not
	leader  uint64 // whom it was told of
	asked   map[uint64]func(replica.Reason)
	adAt    time.Duration // true time of the last announcement, or since when none was due
}

// found makes the group of the first nodes.
func (w *world) found() {
	var members []replica.Member
	for _, x := range w.nodes[:w.plan.stewards] {
		x.group = &group{self: w.rng.Uint64()>>1 + 1, snaps: map[uint64][]byte{}, pages: map[chunk.CID][]byte{}}
		members = append(members, replica.Member{ID: x.self, Peer: x.id})
	}
	for i, x := range w.nodes[:w.plan.stewards] {
		st := replica.Founded("job", x.self, members[0].ID, members)
		x.log, x.durable, x.founds = [][]byte{st.Record()}, 1, i == 0
	}
}

// startGroup begins a life from what is on the disk.
func (x *node) startGroup() {
	st := new(replica.State)
	for _, rec := range x.log {
		if err := st.Load(rec); err != nil {
			x.w.fail("%s: load: %v", x.id, err)
			return
		}
	}
	if x.founds { // for the first time
		st.Stand()
		x.founds = false
	}
	x.saved, x.busy, x.want, x.batches, x.at = 0, false, false, nil, replica.Batch{}
	x.asked, x.lead, x.leader, x.outcome = map[uint64]func(replica.Reason){}, 0, 0, nil
	x.ledger = market.NewLedgerWith(x.w.guards(), x.w.job.ID, func(a market.Applied) { x.outcome = append(x.outcome, a) })
	x.steward = market.NewStewardWith(x.w.guards(), x.w.job.ID, x.id)
	if !st.Snapshot.Fresh {
		x.restore(st.Snapshot.Index)
	}
	r, err := replica.New(replica.Config{Seed: x.w.rng.Uint64()}, st, time.Duration(x.boot()))
	if err != nil {
		x.w.fail("%s: %v", x.id, err)
		return
	}
	x.r = r
	x.stepReplica()
}

func (x *node) restore(index uint64) {
	if err := x.ledger.Restore(x.snaps[index]); err != nil {
		x.w.fail("%s: restore of %d: %v", x.id, index, err)
		return
	}
	x.fetchPages()
}

// fetchPages gets what a snapshot left out, from itself or from another steward, now or later.
func (x *node) fetchPages() {
	for _, p := range x.ledger.Missing() {
		for _, y := range x.w.nodes[:x.w.plan.stewards] {
			if data, ok := y.pages[p.CID]; ok && (y == x || y.up && !x.w.apart(x, y)) {
				x.pages[p.CID] = data
				x.ledger.Stored(p.CID)
				break
			}
		}
	}
	if len(x.ledger.Missing()) > 0 {
		x.later(time.Second, x.fetchPages)
	}
}

// crashGroup loses what was not durable, or not.
func (x *node) crashGroup() {
	x.r, x.steward = nil, nil
	if loose := len(x.log) - x.durable; loose > 0 {
		x.log = x.log[:x.durable+x.w.rng.IntN(loose+1)]
	}
	x.durable = len(x.log)
}

func (x *node) stepReplica(events ...replica.Event) {
	out := x.r.Step(time.Duration(x.boot()), events...)
	if err := x.r.Status().Err; err != nil {
		x.w.fail("%s: %v", x.id, err)
		return
	}
	for _, s := range out.Saves {
		x.save(s)
	}
	for _, m := range out.Send {
		x.sendRaft(m)
	}
	x.batches = append(x.batches, out.Apply...)
	x.want = x.want || out.Snapshot
	x.work()
	for _, d := range out.Done {
		if f := x.asked[d.ID]; f != nil {
			delete(x.asked, d.ID)
			x.later(0, func() { f(d.Reason) })
		}
	}
	x.rWake = 0
	if !out.Idle {
		at := x.w.Now + max(x.real(market.Moment(out.Wake)), 0)
		x.rWake = at
		x.later(at-x.w.Now, func() {
			if x.rWake == at {
				x.stepReplica()
			}
		})
	}
	x.lookAtLead()
}

func (x *node) save(s replica.Save) {
	if s.Seq != x.saved+1 {
		x.w.fail("%s: save %d after %d", x.id, s.Seq, x.saved)
	}
	x.saved = s.Seq
	x.log = append(x.log, s.Record)
	if !s.Sync {
		return
	}
	upTo := len(x.log)
	x.later(x.w.upTo(x.w.plan.disk), func() {
		if x.w.without != Fsync {
			x.durable = max(x.durable, min(upTo, len(x.log)))
		} else { // the disk says so, and does it when it likes
			x.later(time.Second, func() { x.durable = max(x.durable, min(upTo, len(x.log))) })
		}
		x.stepReplica(replica.Saved{Seq: s.Seq})
	})
}

// work gives the ledger its next batch, or makes a snapshot of it.
func (x *node) work() {
	if x.busy {
		return
	}
	switch {
	case len(x.batches) > 0:
		b := x.batches[0]
		x.batches = x.batches[1:]
		x.busy = true
		x.later(x.w.upTo(200*time.Microsecond), func() {
			x.busy = false
			x.apply(b)
			x.stepReplica(replica.Applied{Seq: b.Seq})
			x.work()
		})
	case x.want:
		x.want = false
		x.snapshot()
	}
}

func (x *node) apply(b replica.Batch) {
	x.at = b
	if b.Restore {
		if b.Fresh {
			x.ledger = market.NewLedgerWith(x.w.guards(), x.w.job.ID, func(a market.Applied) { x.outcome = append(x.outcome, a) })
		} else {
			x.restore(b.Index)
		}
		return
	}
	for _, c := range b.Commands {
		reply := x.ledger.Apply(c.Index, c.Term, c.Data)
		x.w.agree(x, c, reply)
		for _, a := range x.outcome {
			x.w.decided(x, a)
			x.stepSteward(market.StewardEvent{Kind: market.Result, Applied: a})
		}
		x.outcome = nil
		if f := x.asked[c.ID]; f != nil {
			delete(x.asked, c.ID)
			x.later(0, func() { f(replica.OK) })
		}
	}
	for _, p := range x.ledger.Sealed() {
		x.later(x.w.upTo(50*time.Millisecond), func() {
			x.pages[p.CID] = p.Data
			x.ledger.Stored(p.CID)
		})
	}
}

func (x *node) snapshot() {
	b := x.at
	data, err := x.ledger.Snapshot()
	if b.Seq == 0 || err != nil {
		x.stepReplica(replica.Snapshotted{})
		return
	}
	x.snaps[b.Index] = data
	x.later(x.w.upTo(5*time.Millisecond), func() {
		x.stepReplica(replica.Snapshotted{OK: true, Index: b.Index, Term: b.Term, Book: b.Book, Size: len(data)})
	})
}

// ask gives the replica a request that ends in done.
func (x *node) ask(make func(id uint64) replica.Event, patience time.Duration, done func(replica.Reason)) {
	x.w.nextID++
	id := x.w.nextID<<8 | uint64(x.n)
	x.asked[id] = done
	x.stepReplica(make(id))
	x.later(patience, func() {
		if x.asked[id] != nil {
			x.stepReplica(replica.Cancel{ID: id})
		}
	})
}

// lookAtLead tells the steward who leads.
func (x *node) lookAtLead() {
	st := x.r.Status()
	switch {
	case st.Leading && x.lead == st.Term:
	case st.Leading:
		v, ok := x.ledger.View()
		if !ok {
			return // the submission is on its way
		}
		x.lead, x.leader, x.adAt = st.Term, st.Self, x.w.Now
		x.w.note("%s leads term %d", x.id, st.Term)
		x.w.leads(x, &v, st.Term)
		x.stepSteward(market.StewardEvent{Kind: market.Lead, Term: st.Term, View: v, Stewards: x.w.stewardIDs()})
	case st.Leader == st.Self: // not yet
	case x.lead != 0 || x.leader != st.Leader:
		x.lead, x.leader = 0, st.Leader
		ev := market.StewardEvent{Kind: market.Follow, Term: st.Term}
		for _, y := range x.w.nodes[:x.w.plan.stewards] {
			if y.self == st.Leader {
				ev.Peer = y.id
			}
		}
		x.stepSteward(ev)
	}
}

// sendRaft moves a message between replicas, or not.
func (x *node) sendRaft(m replica.Message) {
	w := x.w
	var to *node
	for _, y := range w.nodes[:w.plan.stewards] {
		if y.self == m.To {
			to = y
		}
	}
	index, fresh, isSnap := m.Snapshot()
	var snap []byte
	if isSnap && !fresh {
		snap = x.snaps[index]
	}
	copies := 1
	if w.chaos && w.chance(w.plan.double) {
		copies = 2
	}
	lost := true
	for range copies {
		if w.chaos && w.chance(w.plan.loss) {
			continue
		}
		lost = false
		mm := m
		if m.Raft != nil && copies > 1 {
			mm.Raft = proto.CloneOf(m.Raft)
		}
		w.After(w.latency(), func() {
			if !w.apart(x, to) {
				to.hear(func() { to.receive(x, mm, snap, index) })
			}
		})
	}
	if isSnap {
		x.later(w.plan.delay, func() { x.stepReplica(replica.SnapshotSent{To: m.To, OK: !lost}) })
	}
}

func (x *node) receive(from *node, m replica.Message, snap []byte, index uint64) {
	if snap != nil {
		x.snaps[index] = bytes.Clone(snap)
	}
	if x.w.without == Vote && x.forgeVote(from, m) {
		return
	}
	x.stepReplica(replica.Receive{From: from.id, Message: m})
}

// The numbers of Raft's messages about votes, in its schema.
const (
	raftVote, raftVoteResp       = 5, 6
	raftPreVote, raftPreVoteResp = 17, 18
)

// forgeVote gives whoever asks a vote, without a look at what was promised to whom. Raft's schema is quorum's alone, so
// the answer is written by the names of its fields.
func (x *node) forgeVote(from *node, m replica.Message) bool {
	if m.Raft == nil {
		return false
	}
	var resp protoreflect.EnumNumber
	switch m.Raft.GetType() {
	case raftVote:
		resp = raftVoteResp
	case raftPreVote:
		resp = raftPreVoteResp
	default:
		return false
	}
	yes := proto.CloneOf(m.Raft)
	proto.Reset(yes)
	fields := yes.ProtoReflect().Descriptor().Fields()
	set := func(name protoreflect.Name, v protoreflect.Value) { yes.ProtoReflect().Set(fields.ByName(name), v) }
	set("type", protoreflect.ValueOfEnum(resp))
	set("from", protoreflect.ValueOfUint64(x.self))
	set("to", protoreflect.ValueOfUint64(from.self))
	set("term", protoreflect.ValueOfUint64(m.Raft.GetTerm()))
	x.sendRaft(replica.Message{From: x.self, To: from.self, Peer: from.id, Raft: yes})
	return true
}
