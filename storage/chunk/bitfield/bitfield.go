// Package bitfield owns a fixed-length set of leaf indexes, as swarms exchange
// it and partial downloads persist it. It is not safe for concurrent use; the
// owner locks.
package bitfield

import (
	"errors"
	"math/bits"
)

// Bitfield is a set of the integers [0, Len). The zero value is an empty set
// of length 0.
type Bitfield struct {
	words []uint64
	n     int
	count int
}

// Run is a run of consecutive leaves: [First, First+Count).
type Run struct{ First, Count int }

// ErrLength reports encoded bits that do not fit the length expected.
var ErrLength = errors.New("bitfield: wrong length")

// New returns an empty set of length n.
func New(n int) *Bitfield {
	return &Bitfield{words: make([]uint64, (n+63)/64), n: n}
}

// Full returns the set of all of [0, n).
func Full(n int) *Bitfield {
	b := New(n)
	b.SetRun(Run{0, n})
	return b
}

// Len is the length of the set's universe; Count is how many are in it.
func (b *Bitfield) Len() int { return b.n }

// Count returns how many integers are in the set.
func (b *Bitfield) Count() int { return b.count }

// All reports whether the set is full.
func (b *Bitfield) All() bool { return b.count == b.n }

// Has reports whether i is in the set; it is false outside [0, Len).
func (b *Bitfield) Has(i int) bool {
	return i >= 0 && i < b.n && b.words[i>>6]&(1<<(i&63)) != 0
}

// Set adds i and reports whether it was absent.
func (b *Bitfield) Set(i int) bool {
	if b.Has(i) {
		return false
	}
	b.words[i>>6] |= 1 << (i & 63)
	b.count++
	return true
}

// Clear removes i and reports whether it was present.
func (b *Bitfield) Clear(i int) bool {
	if !b.Has(i) {
		return false
	}
	b.words[i>>6] &^= 1 << (i & 63)
	b.count--
	return true
}

// SetRun adds a run, which must lie inside [0, Len).
func (b *Bitfield) SetRun(r Run) {
	for i := r.First; i < r.First+r.Count; {
		if i&63 == 0 && i+64 <= r.First+r.Count {
			b.count += 64 - bits.OnesCount64(b.words[i>>6])
			b.words[i>>6] = ^uint64(0)
			i += 64
			continue
		}
		b.Set(i)
		i++
	}
}

// Clone returns an independent copy.
func (b *Bitfield) Clone() *Bitfield {
	return &Bitfield{words: append([]uint64(nil), b.words...), n: b.n, count: b.count}
}

// Word returns bits [64w, 64w+64) with bit 64w lowest, and 0 past the end.
func (b *Bitfield) Word(w int) uint64 {
	if w >= len(b.words) {
		return 0
	}
	return b.words[w]
}

// Words is how many 64-bit words the set spans.
func (b *Bitfield) Words() int { return len(b.words) }

// RunsSince returns, as runs, what is in b and not in old, at most max runs,
// and adds what it returned to old. Both must have the same length.
func (b *Bitfield) RunsSince(old *Bitfield, max int) []Run {
	var runs []Run
	for w, word := range b.words {
		for fresh := word &^ old.words[w]; fresh != 0; {
			i := w<<6 + bits.TrailingZeros64(fresh)
			if k := len(runs) - 1; k >= 0 && runs[k].First+runs[k].Count == i {
				runs[k].Count++
			} else if len(runs) == max {
				return runs
			} else {
				runs = append(runs, Run{i, 1})
			}
			old.Set(i)
			fresh &= fresh - 1
		}
	}
	return runs
}

// Bytes encodes the set, eight integers a byte, the lowest in the lowest bit,
// spare bits zero. It takes (Len+7)/8 bytes.
func (b *Bitfield) Bytes() []byte { return b.Slice(0, (b.n+7)/8) }

// Slice is bytes [from, to) of what Bytes returns.
func (b *Bitfield) Slice(from, to int) []byte {
	out := make([]byte, to-from)
	for i := range out {
		out[i] = byte(b.words[(from+i)/8] >> (8 * ((from + i) % 8)))
	}
	return out
}

// Parse decodes what Bytes made, for a set of length n. It refuses another
// length and set spare bits, so that there is one encoding of each set.
func Parse(data []byte, n int) (*Bitfield, error) {
	if n < 0 || len(data) != (n+7)/8 {
		return nil, ErrLength
	}
	b := New(n)
	for i, x := range data {
		b.words[i/8] |= uint64(x) << (8 * (i % 8))
	}
	for _, w := range b.words {
		b.count += bits.OnesCount64(w)
	}
	if n%64 != 0 && b.words[len(b.words)-1]>>(n%64) != 0 {
		return nil, ErrLength
	}
	return b, nil
}
