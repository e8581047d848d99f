package placement

import (
	"iter"
	"math/bits"
)

// set is a set of small numbers: members by slot. Sets that are used together have the same length.
type set []uint64

func setWords(n int) int { return (n + 63) / 64 }

func newSet(n int) set { return make(set, setWords(n)) }

func (s set) has(i int) bool { return s[i/64]>>(i%64)&1 != 0 }
func (s set) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s set) clear(i int)    { s[i/64] &^= 1 << (i % 64) }

func (s set) put(i int, in bool) {
	if in {
		s.add(i)
	} else {
		s.clear(i)
	}
}

func (s set) empty() bool {
	for _, w := range s {
		if w != 0 {
			return false
		}
	}
	return true
}

func (s set) count() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// shared counts what is in both.
func (s set) shared(t set) (n int) {
	for k, w := range s {
		n += bits.OnesCount64(w & t[k])
	}
	return n
}

// meets reports whether anything is in both.
func (s set) meets(t set) bool {
	for k, w := range s {
		if w&t[k] != 0 {
			return true
		}
	}
	return false
}

// all yields the numbers in order. The set may lose those already yielded.
func (s set) all() iter.Seq[int] {
	return func(yield func(int) bool) {
		for k, w := range s {
			for ; w != 0; w &= w - 1 {
				if !yield(k*64 + bits.TrailingZeros64(w)) {
					return
				}
			}
		}
	}
}
