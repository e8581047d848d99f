package market

import "math/bits"

// taskSet is a set of tasks below a bound.
type taskSet struct {
	words []uint64
	size  int // bound
	count int // members
}

func newTaskSet(size int) taskSet {
	return taskSet{words: make([]uint64, (size+63)/64), size: size}
}

func (s *taskSet) has(t uint32) bool { return s.words[t/64]&(1<<(t%64)) != 0 }

// add puts t in and reports whether it was not there.
func (s *taskSet) add(t uint32) bool {
	if s.has(t) {
		return false
	}
	s.words[t/64] |= 1 << (t % 64)
	s.count++
	return true
}

// remove takes t out.
func (s *taskSet) remove(t uint32) {
	if s.has(t) {
		s.words[t/64] &^= 1 << (t % 64)
		s.count--
	}
}

// prev returns the last task before end, not below first, that is not in the set; ok is false if there is none.
func (s *taskSet) prev(first, end uint32) (t uint32, ok bool) {
	for end > first {
		t := end - 1
		w := ^s.words[t/64] << (63 - t%64)
		if w == 0 {
			end = t / 64 * 64
			continue
		}
		t -= uint32(bits.LeadingZeros64(w))
		return t, t >= first
	}
	return 0, false
}

func (s *taskSet) clone() taskSet {
	return taskSet{append([]uint64(nil), s.words...), s.size, s.count}
}

// next returns the first task from t on, below end, that is not in the set; end if there is none.
func (s *taskSet) next(t, end uint32) uint32 {
	for t < end {
		w := ^s.words[t/64] >> (t % 64)
		if w != 0 {
			return min(end, t+uint32(bits.TrailingZeros64(w)))
		}
		t = (t/64 + 1) * 64
	}
	return end
}

// runs calls f for each run of tasks in the set, in order, with the number of tasks outside before it.
func (s *taskSet) runs(f func(gap, length uint32)) {
	end := uint32(s.size)
	for t := uint32(0); t < end; {
		first := s.nextIn(t, end)
		if first == end {
			return
		}
		last := s.next(first, end)
		f(first-t, last-first)
		t = last
	}
}

// nextIn is the first task from t on, below end, that is in the set; end if there is none.
func (s *taskSet) nextIn(t, end uint32) uint32 {
	for t < end {
		w := s.words[t/64] >> (t % 64)
		if w != 0 {
			return min(end, t+uint32(bits.TrailingZeros64(w)))
		}
		t = (t/64 + 1) * 64
	}
	return end
}
