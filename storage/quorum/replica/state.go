package replica

import (
	"encoding/binary"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.etcd.io/raft/v3/raftpb"
)

// Hard is what a replica must never forget.
type Hard struct{ Term, Vote, Commit uint64 }

// Snapshot describes the machine's last snapshot; its bytes are the shell's.
type Snapshot struct {
	Index, Term uint64 // of Raft's log; 0 when there is none
	Fresh       bool   // there are no bytes: the machine is as it was made
	Book        *Book  // as of Index
	Size        int    // of the bytes
}

// State is all that a replica keeps on disk but for the machine's snapshot.
type State struct {
	Self     uint64
	Kind     string
	Hard     Hard
	Snapshot Snapshot

	prevIndex, prevTerm uint64 // of the entry before the first
	entries             []*raftpb.Entry
}

// FoundedIndex is that of the last entry that a group is founded with, which is in no log.
const FoundedIndex = 1

const (
	foundedTerm = 1 // of it
	// firstOffice is the term in which the founder leads.
	firstOffice = foundedTerm + 1
)

// Founded is the state of a replica that a group is founded with, by the replica founder. All of them know all members from
// the beginning, and have voted for the founder in the first term that there may be a leader in: that they exist is
// their vote, which Campaign then tells the founder of, and no election is needed. Replicas that come later are Offered ones.
func Founded(kind string, self, founder uint64, members []Member) *State {
	book := &Book{}
	for _, m := range members {
		book, _ = book.with(AddLearner, m)
		book, _ = book.with(Promote, m)
	}
	return &State{
		Self: self, Kind: kind, Hard: Hard{Term: firstOffice, Vote: founder, Commit: FoundedIndex}, prevIndex: FoundedIndex, prevTerm: foundedTerm,
		Snapshot: Snapshot{Index: FoundedIndex, Term: foundedTerm, Fresh: true, Book: book},
	}
}

// Stand lets the founder stand for election in the first term that there may be a leader in, where its vote for itself is on
// disk already. It may be called once in the life of the group, before the replica is made for the first time: one that
// stood a second time in that term might give an index of the log a second meaning.
func (st *State) Stand() { st.Hard = Hard{Term: foundedTerm, Commit: FoundedIndex} }

// Offered is the state of a replica that joins: it knows nothing but its number.
func Offered(kind string, self uint64) *State {
	return &State{Self: self, Kind: kind, Snapshot: Snapshot{Fresh: true, Book: &Book{}}}
}

func (st *State) check() error {
	switch {
	case st.Self == 0 || st.Snapshot.Book == nil:
		return errUseless
	case st.Snapshot.Index < st.prevIndex || st.Snapshot.Index > st.prevIndex+uint64(len(st.entries)):
		return fmt.Errorf("%w: the snapshot is at %d, the log goes from %d for %d", errUseless, st.Snapshot.Index, st.prevIndex, len(st.entries))
	}
	last := st.prevIndex + uint64(len(st.entries))
	// A commit index is saved without waiting for the disk; one that is too low is mended by any leader.
	st.Hard.Commit = min(max(st.Hard.Commit, st.Snapshot.Index), last)
	return nil
}

// The kinds of records.
const (
	recordWhole byte = 1
	recordMore  byte = 2
)

// Bounds of what is read from disk.
const (
	entriesMax = 1 << 20
	entryMax   = CommandMax + batchMax + 64
	kindMax    = 64
)

// Record returns a record that holds all of the state.
func (st *State) Record() []byte {
	buf := []byte{recordWhole}
	buf = binary.BigEndian.AppendUint64(buf, st.Self)
	buf = appendBytes(buf, []byte(st.Kind))
	buf = appendHard(buf, st.Hard)
	buf = appendSnapshot(buf, st.Snapshot)
	buf = binary.AppendUvarint(buf, st.prevIndex)
	buf = binary.AppendUvarint(buf, st.prevTerm)
	return appendEntries(buf, st.entries)
}

func moreRecord(h Hard, entries []*raftpb.Entry) []byte {
	size := 64
	for _, e := range entries {
		size += 24 + len(e.GetData())
	}
	buf := append(make([]byte, 0, size), recordMore)
	buf = appendHard(buf, h)
	return appendEntries(buf, entries)
}

func appendHard(buf []byte, h Hard) []byte {
	buf = binary.AppendUvarint(buf, h.Term)
	buf = binary.BigEndian.AppendUint64(buf, h.Vote)
	return binary.AppendUvarint(buf, h.Commit)
}

func appendSnapshot(buf []byte, s Snapshot) []byte {
	buf = binary.AppendUvarint(buf, s.Index)
	buf = binary.AppendUvarint(buf, s.Term)
	flag := byte(0)
	if s.Fresh {
		flag = 1
	}
	buf = append(buf, flag)
	buf = binary.AppendUvarint(buf, uint64(s.Size))
	return s.Book.append(buf)
}

func appendEntries(buf []byte, entries []*raftpb.Entry) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(entries)))
	for i, e := range entries {
		if i == 0 {
			buf = binary.AppendUvarint(buf, e.GetIndex())
		}
		buf = append(buf, byte(e.GetType()))
		buf = binary.AppendUvarint(buf, e.GetTerm())
		buf = appendBytes(buf, e.GetData())
	}
	return buf
}

// Load takes in the next record of a replica. The zero State is where it begins. It keeps nothing of record.
func (st *State) Load(record []byte) error {
	if len(record) == 0 {
		return errMalformed
	}
	d := &decoder{data: record[1:]}
	switch record[0] {
	case recordWhole:
		*st = State{Self: d.uint64(), Kind: string(d.bytes(kindMax)), Hard: readHard(d), Snapshot: readSnapshot(d)}
		st.prevIndex, st.prevTerm = d.uvarint(), d.uvarint()
	case recordMore:
		if st.Self == 0 {
			return errUseless
		}
		st.Hard = readHard(d)
	default:
		d.fail()
	}
	entries := readEntries(d)
	if err := d.end(); err != nil {
		return err
	}
	return st.add(entries)
}

// add appends entries as Raft does: they replace what there was from their index on.
func (st *State) add(entries []*raftpb.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	first := entries[0].GetIndex()
	if first <= st.prevIndex || first > st.prevIndex+uint64(len(st.entries))+1 {
		return fmt.Errorf("%w: entry %d after %d and %d", errUseless, first, st.prevIndex, len(st.entries))
	}
	st.entries = append(st.entries[:first-st.prevIndex-1], entries...)
	return nil
}

func readHard(d *decoder) Hard {
	return Hard{Term: d.uvarint(), Vote: d.uint64(), Commit: d.uvarint()}
}

func readSnapshot(d *decoder) Snapshot {
	s := Snapshot{Index: d.uvarint(), Term: d.uvarint(), Fresh: d.flag()}
	s.Size = d.count(1 << 30)
	s.Book = readBook(d)
	return s
}

func readEntries(d *decoder) (out []*raftpb.Entry) {
	n := d.count(entriesMax)
	index := uint64(0)
	if n > 0 {
		index = d.uvarint()
	}
	for i := range n {
		t := raftpb.EntryType(d.byte())
		term := d.uvarint()
		data := d.bytes(entryMax)
		if d.err != nil {
			return nil
		}
		out = append(out, newEntry(t, index+uint64(i), term, data))
	}
	return out
}

func newEntry(t raftpb.EntryType, index, term uint64, data []byte) *raftpb.Entry {
	e := &raftpb.Entry{Type: &t, Index: &index, Term: &term}
	if len(data) > 0 {
		e.Data = append([]byte(nil), data...)
	}
	return e
}

// Peers lists the peers of the members, of the last snapshot.
func (st *State) Peers() (out []peer.ID) {
	for _, m := range st.Snapshot.Book.Members {
		out = append(out, m.Peer)
	}
	return out
}
