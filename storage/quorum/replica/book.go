package replica

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.etcd.io/raft/v3/raftpb"
)

// removedMax is how many removed members a book remembers, to tell them so.
const removedMax = 32

// Member is one replica of a group. A peer that is removed and added again, or that lost its disk, is another member: a number
// is used once, so no replica ever votes that may have forgotten how it voted.
type Member struct {
	ID      uint64
	Peer    peer.ID
	Learner bool
}

// Book is what the group itself has agreed on beside its commands. It is immutable.
type Book struct {
	Members   []Member // in the order of their numbers
	Removed   []uint64 // the latest ones
	Commands  uint64   // how many there have been
	Dissolved bool
}

// Get returns a member.
func (b *Book) Get(id uint64) (Member, bool) {
	for _, m := range b.Members {
		if m.ID == id {
			return m, true
		}
	}
	return Member{}, false
}

// Of returns the member that a peer is.
func (b *Book) Of(id peer.ID) (Member, bool) {
	for _, m := range b.Members {
		if m.Peer == id {
			return m, true
		}
	}
	return Member{}, false
}

func (b *Book) voters() (n int) {
	for _, m := range b.Members {
		if !m.Learner {
			n++
		}
	}
	return n
}

// confState is the book as Raft wants it.
func (b *Book) confState() *raftpb.ConfState {
	cs := &raftpb.ConfState{AutoLeave: new(bool)}
	for _, m := range b.Members {
		if m.Learner {
			cs.Learners = append(cs.Learners, m.ID)
		} else {
			cs.Voters = append(cs.Voters, m.ID)
		}
	}
	return cs
}

func (b *Book) clone() *Book {
	c := *b
	c.Members = slices.Clone(b.Members)
	c.Removed = slices.Clone(b.Removed)
	return &c
}

// with returns the book after a change, or false if that makes no sense.
func (b *Book) with(op Op, m Member) (*Book, bool) {
	c := b.clone()
	i := slices.IndexFunc(c.Members, func(o Member) bool { return o.ID == m.ID })
	switch {
	case op == AddLearner && i < 0 && len(c.Members) < MembersMax && m.ID != 0 && !slices.Contains(c.Removed, m.ID):
		m.Learner = true
		c.Members = append(c.Members, m)
		slices.SortFunc(c.Members, func(a, b Member) int {
			if a.ID < b.ID {
				return -1
			}
			return 1
		})
	case op == Promote && i >= 0 && c.Members[i].Learner && c.voters() < VotersMax:
		c.Members[i].Learner = false
	case op == Remove && i >= 0 && (c.Members[i].Learner || c.voters() > 1):
		c.Members = slices.Delete(c.Members, i, i+1)
		c.Removed = append(c.Removed, m.ID)
		c.Removed = c.Removed[max(0, len(c.Removed)-removedMax):]
	default:
		return b, false
	}
	return c, true
}

// append encodes the book.
func (b *Book) append(buf []byte) []byte {
	buf = binary.AppendUvarint(buf, b.Commands)
	flag := byte(0)
	if b.Dissolved {
		flag = 1
	}
	buf = append(buf, flag)
	buf = binary.AppendUvarint(buf, uint64(len(b.Members)))
	for _, m := range b.Members {
		buf = binary.BigEndian.AppendUint64(buf, m.ID)
		flag = 0
		if m.Learner {
			flag = 1
		}
		buf = append(buf, flag)
		buf = appendBytes(buf, []byte(m.Peer))
	}
	buf = binary.AppendUvarint(buf, uint64(len(b.Removed)))
	for _, id := range b.Removed {
		buf = binary.BigEndian.AppendUint64(buf, id)
	}
	return buf
}

var errMalformed = errors.New("malformed")

// readBook decodes a book.
func readBook(d *decoder) *Book {
	b := &Book{Commands: d.uvarint(), Dissolved: d.flag()}
	n := d.count(MembersMax)
	for range n {
		m := Member{ID: d.uint64(), Learner: d.flag(), Peer: peer.ID(d.bytes(peerMax))}
		if k := len(b.Members); m.ID == 0 || k > 0 && b.Members[k-1].ID >= m.ID {
			d.fail()
		}
		b.Members = append(b.Members, m)
	}
	n = d.count(removedMax)
	for range n {
		b.Removed = append(b.Removed, d.uint64())
	}
	return b
}

// peerMax is the longest peer id, in bytes.
const peerMax = 128

// decoder reads the encodings of this package. After the first error it returns zeros.
type decoder struct {
	data []byte
	err  error
}

func (d *decoder) fail() {
	d.err, d.data = errMalformed, nil
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.data)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.data = d.data[n:]
	return v
}

func (d *decoder) byte() byte {
	if len(d.data) == 0 {
		d.fail()
		return 0
	}
	b := d.data[0]
	d.data = d.data[1:]
	return b
}

func (d *decoder) flag() bool {
	b := d.byte()
	if b > 1 {
		d.fail()
	}
	return b == 1
}

func (d *decoder) uint64() uint64 {
	if len(d.data) < 8 {
		d.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(d.data)
	d.data = d.data[8:]
	return v
}

// count reads the length of a list.
func (d *decoder) count(most int) int {
	n := d.uvarint()
	if n > uint64(most) {
		d.fail()
		return 0
	}
	return int(n)
}

// bytes reads a byte string, which shares the input's memory.
func (d *decoder) bytes(most int) []byte {
	n := d.uvarint()
	if n > uint64(most) || n > uint64(len(d.data)) {
		d.fail()
		return nil
	}
	b := d.data[:n:n]
	d.data = d.data[n:]
	return b
}

// end returns the error, which bytes that are left over are too.
func (d *decoder) end() error {
	if d.err == nil && len(d.data) > 0 {
		d.fail()
	}
	return d.err
}

func appendBytes(buf, b []byte) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(b)))
	return append(buf, b...)
}
