package names

import (
	"iter"
	"slices"
)

// chunkMax is how many elements one chunk of a sorted list holds before it is split. Inserting moves half a chunk
// (2 kB of pointers on average), finding compares log2 of the chunks and of one chunk.
const chunkMax = 512

// sorted is an ordered list without duplicates, kept as chunks: a B-tree of two levels. The zero value with less set
// is an empty list.
type sorted[T any] struct {
	compare func(a, b T) int
	chunks  [][]T
	count   int
}

// find returns where x is or belongs.
func (s *sorted[T]) find(x T) (chunk, index int, found bool) {
	// The chunk is the last one whose first element is not greater than x.
	chunk, found = slices.BinarySearchFunc(s.chunks, x, func(c []T, x T) int { return s.compare(c[0], x) })
	if found {
		return chunk, 0, true
	}
	if chunk == 0 {
		return 0, 0, false
	}
	chunk--
	index, found = slices.BinarySearchFunc(s.chunks[chunk], x, s.compare)
	return chunk, index, found
}

// insert adds x; it does nothing if it is there.
func (s *sorted[T]) insert(x T) {
	chunk, index, found := s.find(x)
	if found {
		return
	}
	s.count++
	if len(s.chunks) == 0 {
		s.chunks = [][]T{{x}}
		return
	}
	c := slices.Insert(s.chunks[chunk], index, x)
	s.chunks[chunk] = c
	if len(c) <= chunkMax {
		return
	}
	// A list that grows at its end, as times do, leaves full chunks behind instead of half-full ones.
	at := len(c) / 2
	if index == len(c)-1 {
		at = len(c) - 1
	}
	tail := slices.Clone(c[at:])
	clear(c[at:])
	s.chunks[chunk] = c[:at]
	s.chunks = slices.Insert(s.chunks, chunk+1, tail)
}

// remove takes x out; it does nothing if it is not there.
func (s *sorted[T]) remove(x T) {
	chunk, index, found := s.find(x)
	if !found {
		return
	}
	s.count--
	c := slices.Delete(s.chunks[chunk], index, index+1)
	s.chunks[chunk] = c
	if len(c) == 0 {
		s.chunks = slices.Delete(s.chunks, chunk, chunk+1)
	}
}

// from yields the elements that are not less than x, in order. The list must not change meanwhile.
func (s *sorted[T]) from(x T) iter.Seq[T] {
	return func(yield func(T) bool) {
		chunk, index, _ := s.find(x)
		for ; chunk < len(s.chunks); chunk, index = chunk+1, 0 {
			for _, e := range s.chunks[chunk][index:] {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// backward yields all elements from the greatest on. The list must not change meanwhile.
func (s *sorted[T]) backward() iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, c := range slices.Backward(s.chunks) {
			for _, e := range slices.Backward(c) {
				if !yield(e) {
					return
				}
			}
		}
	}
}
