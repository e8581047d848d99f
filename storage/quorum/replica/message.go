package replica

import (
	"encoding/binary"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Message goes from one replica to another. Exactly one of the pointers is set.
type Message struct {
	From, To uint64
	Peer     peer.ID // where To is; not sent

	Raft  *raftpb.Message
	Quiet *Quiet
	Wake  *Wake
	Ask   *Ask
	Told  *Told
	Gone  *Gone
}

// Quiet is the leader's word that nothing is left to be said: no more heartbeats come until something happens.
type Quiet struct{ Term, Index uint64 }

// Wake asks a leader for a sign of life.
type Wake struct{}

// Gone tells a replica that it is no member any more and may be deleted.
type Gone struct{}

// Ask is an entry that a follower wants the leader of Term to append, the Seq-th of its Session in this term.
type Ask struct {
	Term, Session, Seq uint64
	Entry              []byte
}

// Told says up to which ask of a session the leader of Term has appended them.
type Told struct{ Term, Session, Seq uint64 }

// Snapshot returns the index of the snapshot that a message carries; its bytes go with it. Fresh ones have none.
func (m *Message) Snapshot() (index uint64, fresh, ok bool) {
	if m.Raft.GetType() != raftpb.MsgSnap || m.Raft == nil {
		return 0, false, false
	}
	s, err := decodeSnapshot(m.Raft.GetSnapshot())
	return s.Index, s.Fresh, err == nil
}

const (
	// numberMax bounds terms and indexes, so that nothing overflows.
	numberMax = 1 << 60
	// sessionsMax is how many sessions of one follower a leader remembers in a term: each is a start of that peer.
	sessionsMax = 16
	// metMax is how many senders are remembered that the book does not name.
	metMax = 16
)

// receive takes a message of another replica, if it makes sense.
func (r *Replica) receive(from peer.ID, m Message) {
	if m.To != r.self || m.From == 0 || m.From == r.self || !r.mayBe(m.From, from) {
		return
	}
	r.presence.heard(from)
	switch {
	case m.Quiet != nil:
		r.hearQuiet(m.From, m.Quiet)
		return
	case m.Raft != nil && !r.sane(m.From, m.Raft):
		return
	}
	if m.Gone != nil {
		if _, ok := r.book.Get(m.From); ok {
			r.end()
		}
		return
	}
	if slices.Contains(r.book.Removed, m.From) {
		r.part(m.From)
		return
	}
	// The answers to the last heartbeats come when the group has just fallen quiet.
	if m.Raft.GetType() != raftpb.MsgHeartbeatResp || len(m.Raft.GetContext()) > 0 {
		r.rouse(m.From)
	}
	switch {
	case m.Raft != nil:
		r.step1(m.From, m.Raft)
	case m.Ask != nil:
		r.hearAsk(m.From, m.Ask)
	case m.Told != nil:
		r.proposals.told(m.Told, r.term, r.now)
	}
}

// mayBe reports whether a replica may be that peer's. Of one that is not in the book, because this replica is behind or new, it
// remembers whose it said to be.
func (r *Replica) mayBe(id uint64, from peer.ID) bool {
	if m, ok := r.book.Get(id); ok {
		return m.Peer == from
	}
	if was, ok := r.presence.met[id]; ok {
		return was == from
	}
	r.presence.meet(id, from)
	return true
}

// step1 gives Raft one message.
func (r *Replica) step1(from uint64, m *raftpb.Message) {
	if m.GetType() != raftpb.MsgHeartbeat && m.GetType() != raftpb.MsgHeartbeatResp {
		r.stir()
	}
	_ = r.rn.Step(m) // it says only that the sender is no member
	r.look()
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap:
		if r.lead == from && m.GetTerm() == r.term {
			r.heardLeader()
		}
	}
}

// sane holds a message against what Raft takes for granted, and panics without.
func (r *Replica) sane(from uint64, m *raftpb.Message) bool {
	t := m.GetType()
	if !fromOthers(t) || m.GetFrom() != from || m.GetTo() != r.self || len(m.GetResponses()) > 0 ||
		max(m.GetTerm(), m.GetIndex(), m.GetLogTerm(), m.GetCommit(), m.GetRejectHint()) > numberMax {
		return false
	}
	if t != raftpb.MsgReadIndex && m.GetTerm() == 0 || t != raftpb.MsgSnap && m.GetSnapshot() != nil {
		return false
	}
	switch t {
	case raftpb.MsgApp:
		return saneEntries(m)
	case raftpb.MsgHeartbeat:
		if m.GetTerm() >= r.term && m.GetCommit() > r.store.last() {
			panic(errForgot)
		}
		return len(m.GetEntries()) == 0
	case raftpb.MsgTimeoutNow:
		return len(m.GetEntries()) == 0 && from == r.lead
	case raftpb.MsgHeartbeatResp:
		ctx := m.GetContext()
		return len(m.GetEntries()) == 0 && (len(ctx) == 0 || len(ctx) == 8 && littleEndian(ctx) <= r.reads.sentCtx)
	case raftpb.MsgReadIndex:
		return m.GetTerm() == 0 && len(m.GetEntries()) == 1 && len(m.GetEntries()[0].GetData()) == 8 && r.inOffice()
	case raftpb.MsgReadIndexResp:
		return len(m.GetEntries()) == 1 && len(m.GetEntries()[0].GetData()) == 8
	case raftpb.MsgSnap:
		_, err := decodeSnapshot(m.GetSnapshot())
		return err == nil && len(m.GetEntries()) == 0
	}
	return len(m.GetEntries()) == 0
}

func saneEntries(m *raftpb.Message) bool {
	term, index := m.GetLogTerm(), m.GetIndex()
	for _, e := range m.GetEntries() {
		index++
		t := e.GetType()
		if e.GetIndex() != index || e.GetTerm() < term || e.GetTerm() > m.GetTerm() || len(e.GetData()) > entryMax ||
			t != raftpb.EntryNormal && t != raftpb.EntryConfChange {
			return false
		}
		term = e.GetTerm()
	}
	return true
}

func littleEndian(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// quiet is Raft's logger: it says nothing. What matters is in Status.
type quiet struct{}

var _ raft.Logger = quiet{}

func (quiet) Debug(...any)            {}
func (quiet) Debugf(string, ...any)   {}
func (quiet) Error(...any)            {}
func (quiet) Errorf(string, ...any)   {}
func (quiet) Info(...any)             {}
func (quiet) Infof(string, ...any)    {}
func (quiet) Warning(...any)          {}
func (quiet) Warningf(string, ...any) {}
func (quiet) Fatal(v ...any)          { panic(sprint(v...)) }
func (quiet) Fatalf(f string, v ...any) {
	panic(sprintf(f, v...))
}
func (quiet) Panic(v ...any)            { panic(sprint(v...)) }
func (quiet) Panicf(f string, v ...any) { panic(sprintf(f, v...)) }
