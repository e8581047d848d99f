package replica

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// entryCost is what an entry takes in memory beside its data, in bytes.
const entryCost = 96

// store is Raft's log in memory, as it was handed out to be saved: it is what the disk will hold when all saves are done.
// It implements raft.Storage.
type store struct {
	self                uint64
	kind                string
	hard                Hard
	snap                Snapshot
	prevIndex, prevTerm uint64
	entries             []*raftpb.Entry
	bytes               int     // of the entries
	conf                *uint64 // index of the last change of members
	wanted              bool    // Raft asked for a newer snapshot
}

func newStore(st *State) *store {
	s := &store{
		self: st.Self, kind: st.Kind, hard: st.Hard, snap: st.Snapshot,
		prevIndex: st.prevIndex, prevTerm: st.prevTerm, entries: st.entries,
	}
	for _, e := range s.entries {
		s.bytes += entryCost + len(e.GetData())
	}
	return s
}

func (s *store) state() *State {
	return &State{
		Self: s.self, Kind: s.kind, Hard: s.hard, Snapshot: s.snap,
		prevIndex: s.prevIndex, prevTerm: s.prevTerm, entries: s.entries,
	}
}

func (s *store) last() uint64 { return s.prevIndex + uint64(len(s.entries)) }

// add appends entries; they replace what there was from their index on.
func (s *store) add(entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	at := entries[0].GetIndex() - s.prevIndex - 1
	for _, e := range s.entries[at:] {
		s.bytes -= entryCost + len(e.GetData())
	}
	kept := s.entries
	if int(at) < len(kept) {
		kept = kept[:at:at] // Raft may still read the array behind what is replaced
	}
	s.entries = append(kept, entries...)
	for _, e := range entries {
		s.bytes += entryCost + len(e.GetData())
	}
}

// reset replaces all by a snapshot.
func (s *store) reset(snap Snapshot) {
	s.snap, s.prevIndex, s.prevTerm = snap, snap.Index, snap.Term
	s.entries, s.bytes = nil, 0
}

// compact notes a newer snapshot and drops what it makes needless, but for the last trail bytes.
func (s *store) compact(snap Snapshot, trail int) {
	s.snap = snap
	n := int(snap.Index - s.prevIndex) // entries that the snapshot covers
	keep := 0
	for keep < n {
		if trail -= entryCost + len(s.entries[n-1-keep].GetData()); trail < 0 {
			break
		}
		keep++
	}
	drop := n - keep
	if drop == 0 {
		return
	}
	for _, e := range s.entries[:drop] {
		s.bytes -= entryCost + len(e.GetData())
	}
	s.prevIndex, s.prevTerm = s.entries[drop-1].GetIndex(), s.entries[drop-1].GetTerm()
	s.entries = append([]*raftpb.Entry(nil), s.entries[drop:]...)
}

// InitialState implements raft.Storage.
func (s *store) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	h := s.hard
	return &raftpb.HardState{Term: &h.Term, Vote: &h.Vote, Commit: &h.Commit}, s.snap.Book.confState(), nil
}

// Entries implements raft.Storage.
func (s *store) Entries(lo, hi, most uint64) ([]*raftpb.Entry, error) {
	switch {
	case lo <= s.prevIndex:
		return nil, raft.ErrCompacted
	case hi > s.last()+1:
		return nil, raft.ErrUnavailable
	}
	out := s.entries[lo-s.prevIndex-1 : hi-s.prevIndex-1]
	size := uint64(0)
	for i, e := range out {
		if size += uint64(len(e.GetData())) + 16; size > most && i > 0 {
			out = out[:i]
			break
		}
	}
	return out[:len(out):len(out)], nil
}

// Term implements raft.Storage.
func (s *store) Term(i uint64) (uint64, error) {
	switch {
	case i == s.prevIndex:
		return s.prevTerm, nil
	case i < s.prevIndex:
		return 0, raft.ErrCompacted
	case i > s.last():
		return 0, raft.ErrUnavailable
	}
	return s.entries[i-s.prevIndex-1].GetTerm(), nil
}

// LastIndex implements raft.Storage.
func (s *store) LastIndex() (uint64, error) { return s.last(), nil }

// FirstIndex implements raft.Storage.
func (s *store) FirstIndex() (uint64, error) { return s.prevIndex + 1, nil }

// Snapshot implements raft.Storage. A snapshot from before the last change of the members would not name the one that needs it.
func (s *store) Snapshot() (*raftpb.Snapshot, error) {
	if s.snap.Index == 0 || s.snap.Index < *s.conf {
		s.wanted = true
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return encodeSnapshot(s.snap), nil
}

// encodeSnapshot is a snapshot as it travels: Raft's metadata, and the book as data. The machine's bytes go beside it.
func encodeSnapshot(s Snapshot) *raftpb.Snapshot {
	return &raftpb.Snapshot{
		Data:     appendSnapshot(nil, s),
		Metadata: &raftpb.SnapshotMetadata{Index: &s.Index, Term: &s.Term, ConfState: s.Book.confState()},
	}
}

// decodeSnapshot checks and reads one.
func decodeSnapshot(p *raftpb.Snapshot) (Snapshot, error) {
	d := &decoder{data: p.GetData()}
	s := readSnapshot(d)
	if err := d.end(); err != nil {
		return s, err
	}
	meta := p.GetMetadata()
	if meta.GetIndex() != s.Index || meta.GetTerm() != s.Term || s.Index == 0 || s.Term == 0 || !sameConf(meta.GetConfState(), s.Book.confState()) {
		return s, errMalformed
	}
	return s, nil
}
