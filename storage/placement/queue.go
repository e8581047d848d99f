package placement

import (
	"cmp"
	"container/heap"
	"time"
)

// item is a piece in a queue: the lowest rank first, then the earliest, then the lowest number.
type item struct {
	rank  uint16
	at    time.Duration
	piece int32
}

// queue is a heap of pieces. One that is no longer meant stays in it until it comes up.
type queue struct{ items []item }

func (q *queue) Len() int { return len(q.items) }
func (q *queue) Less(i, j int) bool {
	a, b := &q.items[i], &q.items[j]
	return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.at, b.at), cmp.Compare(a.piece, b.piece)) < 0
}
func (q *queue) Swap(i, j int) { q.items[i], q.items[j] = q.items[j], q.items[i] }
func (q *queue) Push(x any)    { q.items = append(q.items, x.(item)) }
func (q *queue) Pop() any {
	last := len(q.items) - 1
	it := q.items[last]
	q.items = q.items[:last]
	return it
}

func (q *queue) len() int { return len(q.items) }

func (q *queue) put(it item) { heap.Push(q, it) }

func (q *queue) take() item { return heap.Pop(q).(item) }

// first is when the first is due; never if there is none.
func (q *queue) first() time.Duration {
	if len(q.items) == 0 {
		return never
	}
	return q.items[0].at
}

// trim drops those that are not meant any more, when there are many more of them than there can be of others.
func (q *queue) trim(most int, meant func(item) bool) {
	if len(q.items) <= 2*most+64 {
		return
	}
	kept := q.items[:0]
	for _, it := range q.items {
		if meant(it) {
			kept = append(kept, it)
		}
	}
	q.items = kept
	heap.Init(q)
}
