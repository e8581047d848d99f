// Package inventory owns the book of who holds which piece: what members say of themselves, kept so that a hundred
// thousand pieces on twenty members cost a few megabytes, and compared so that two peers which agree find that out in
// two kilobytes. It is pure: no clock, disk or network. It refuses to know what a piece is for, and whether a member's
// word is true.
package inventory

import (
	"errors"
	"hash/maphash"
	"iter"
	"math/bits"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	// Buckets is how many parts a member's inventory is compared in: a piece is in the one that its hash's first byte
	// names.
	Buckets = 256
	// MembersMax bounds the members of a book.
	MembersMax = 256
	// PiecesMax bounds the pieces that the book takes from one member, and so the memory that a liar can fill: about
	// 120 MB. A member with more holds the rest unseen.
	PiecesMax = 1 << 21
)

var (
	// ErrMembers is returned when a book has no room for another member.
	ErrMembers = errors.New("inventory: too many members")
	// ErrPieces is returned when a member says that it holds more than PiecesMax pieces.
	ErrPieces = errors.New("inventory: a member claims too many pieces")
)

// Slot numbers a member within a book. It is used again once the member was forgotten.
type Slot int

// Sums stand for what a member holds: of each bucket, a sum over the names in it. The order in which pieces came does
// not matter, and taking one out is as cheap as putting one in.
type Sums [Buckets]uint64

// Book is the book. It is not safe for concurrent use.
type Book struct {
	shards  [Buckets]shard
	slots   map[peer.ID]Slot
	members []member     // by slot
	stride  int          // words of holders of each piece
	pieces  int          // that somebody holds
	seed    maphash.Seed // decides where pieces lie in memory, and nothing that shows
}

type member struct {
	id    peer.ID // "": the slot is free
	count int
	sums  Sums
}

// New returns an empty book.
func New() *Book {
	return &Book{slots: map[peer.ID]Slot{}, stride: 1, seed: maphash.MakeSeed()}
}

// Member returns the slot of a member, making one if it has none. It fails with ErrMembers.
func (b *Book) Member(id peer.ID) (Slot, error) {
	if s, ok := b.slots[id]; ok {
		return s, nil
	}
	s := Slot(len(b.members))
	for i := range b.members {
		if b.members[i].id == "" {
			s = Slot(i)
			break
		}
	}
	if int(s) >= MembersMax {
		return 0, ErrMembers
	}
	if int(s) == len(b.members) {
		b.members = append(b.members, member{})
		b.widen()
	}
	b.members[s] = member{id: id}
	b.slots[id] = s
	return s, nil
}

// Slot returns the slot of a member that the book knows.
func (b *Book) Slot(id peer.ID) (Slot, bool) {
	s, ok := b.slots[id]
	return s, ok
}

// ID returns the member of a slot, "" if it is free.
func (b *Book) ID(s Slot) peer.ID {
	if int(s) >= len(b.members) {
		return ""
	}
	return b.members[s].id
}

// Slots returns how many slots there are, free ones included.
func (b *Book) Slots() int { return len(b.members) }

// Forget takes a member out, with all that it holds.
func (b *Book) Forget(id peer.ID) {
	s, ok := b.slots[id]
	if !ok {
		return
	}
	for i := range b.shards {
		for _, c := range b.Bucket(s, i) {
			b.remove(s, c)
		}
	}
	delete(b.slots, id)
	b.members[s] = member{}
}

// Set notes that a member holds a piece, or does not any more. It reports whether that was news; ErrPieces says that
// the member has too many.
func (b *Book) Set(s Slot, c chunk.CID, held bool) (changed bool, err error) {
	if !held {
		return b.remove(s, c), nil
	}
	m := &b.members[s]
	sh := &b.shards[c.Sum[0]]
	row, ok := sh.find(c, b.seed)
	if ok && has(sh.holders(row, b.stride), s) {
		return false, nil
	}
	if m.count >= PiecesMax {
		return false, ErrPieces
	}
	if !ok {
		row = sh.insert(c, b.seed, b.stride)
		b.pieces++
	}
	sh.holders(row, b.stride)[s/64] |= 1 << (s % 64)
	m.count++
	m.sums[c.Sum[0]] += mix(c)
	return true, nil
}

func (b *Book) remove(s Slot, c chunk.CID) bool {
	sh := &b.shards[c.Sum[0]]
	row, ok := sh.find(c, b.seed)
	if !ok || !has(sh.holders(row, b.stride), s) {
		return false
	}
	h := sh.holders(row, b.stride)
	h[s/64] &^= 1 << (s % 64)
	b.members[s].count--
	b.members[s].sums[c.Sum[0]] -= mix(c)
	if none(h) {
		sh.delete(c, b.seed)
		b.pieces--
	}
	return true
}

// Replace makes a member's bucket what it says now, and returns the difference. Pieces of another bucket are left out.
func (b *Book) Replace(s Slot, bucket int, now []chunk.CID) (added, removed []chunk.CID, err error) {
	keep := make(map[chunk.CID]bool, len(now))
	for _, c := range now {
		if int(c.Sum[0]) == bucket {
			keep[c] = true
		}
	}
	for _, c := range b.Bucket(s, bucket) {
		if !keep[c] && b.remove(s, c) {
			removed = append(removed, c)
		}
	}
	for _, c := range now {
		if !keep[c] {
			continue
		}
		changed, err := b.Set(s, c, true)
		if err != nil {
			return added, removed, err
		}
		if changed {
			added = append(added, c)
		}
	}
	return added, removed, nil
}

// Has reports whether a member holds a piece.
func (b *Book) Has(s Slot, c chunk.CID) bool {
	sh := &b.shards[c.Sum[0]]
	row, ok := sh.find(c, b.seed)
	return ok && has(sh.holders(row, b.stride), s)
}

// Holders yields those who hold a piece, by slot. The book must not be changed meanwhile.
func (b *Book) Holders(c chunk.CID) iter.Seq[Slot] {
	return func(yield func(Slot) bool) {
		sh := &b.shards[c.Sum[0]]
		row, ok := sh.find(c, b.seed)
		if !ok {
			return
		}
		for i, word := range sh.holders(row, b.stride) {
			for ; word != 0; word &= word - 1 {
				if !yield(Slot(64*i + bits.TrailingZeros64(word))) {
					return
				}
			}
		}
	}
}

// Bucket lists what a member holds of one bucket, in no order.
func (b *Book) Bucket(s Slot, bucket int) (out []chunk.CID) {
	sh := &b.shards[bucket]
	for row, c := range sh.ids {
		if c.Defined() && has(sh.holders(uint32(row), b.stride), s) {
			out = append(out, c)
		}
	}
	return out
}

// Rows yields all pieces of a bucket and who holds them: one bit for each slot, the lowest first, in Stride words. They
// are the book's own, and it must not be changed meanwhile.
func (b *Book) Rows(bucket int) iter.Seq2[chunk.CID, []uint64] {
	return func(yield func(chunk.CID, []uint64) bool) {
		sh := &b.shards[bucket]
		for row, c := range sh.ids {
			if c.Defined() && !yield(c, sh.holders(uint32(row), b.stride)) {
				return
			}
		}
	}
}

// Stride is how many words Rows yields for each piece.
func (b *Book) Stride() int { return b.stride }

// Sums returns what stands for all that a member holds; it must not be changed.
func (b *Book) Sums(s Slot) *Sums { return &b.members[s].sums }

// Count is how many pieces a member holds.
func (b *Book) Count(s Slot) int { return b.members[s].count }

// Pieces is how many different pieces are held at all.
func (b *Book) Pieces() int { return b.pieces }

// widen makes room for as many holders as there are slots.
func (b *Book) widen() {
	stride := (len(b.members) + 63) / 64
	if stride <= b.stride {
		return
	}
	for i := range b.shards {
		b.shards[i].widen(b.stride, stride)
	}
	b.stride = stride
}

func has(holders []uint64, s Slot) bool { return holders[s/64]>>(s%64)&1 == 1 }

func none(holders []uint64) bool {
	for _, w := range holders {
		if w != 0 {
			return false
		}
	}
	return true
}
