// Package agenda owns virtual time: what is to happen, in order. It is for simulations.
package agenda

import (
	"container/heap"
	"time"
)

// Agenda is a clock and what is planned on it. The zero value begins at 0. It is for one goroutine.
type Agenda struct {
	Now   time.Duration // the time that has passed; to be set by others only while nothing is planned
	seq   uint64
	queue entries
}

type entry struct {
	at  time.Duration
	seq uint64
	f   func()
}

type entries []entry

func (q entries) Len() int { return len(q) }
func (q entries) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q entries) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *entries) Push(x any)   { *q = append(*q, x.(entry)) }
func (q *entries) Pop() any {
	old := *q
	x := old[len(old)-1]
	old[len(old)-1] = entry{}
	*q = old[:len(old)-1]
	return x
}

// After plans f. Of two things at the same time the one that was planned first comes first.
func (a *Agenda) After(d time.Duration, f func()) {
	a.seq++
	heap.Push(&a.queue, entry{a.Now + max(d, 0), a.seq, f})
}

// Len is how many things are planned.
func (a *Agenda) Len() int { return len(a.queue) }

// Next lets time pass until the next thing, does it, and reports whether there was one up to end.
func (a *Agenda) Next(end time.Duration) bool {
	if len(a.queue) == 0 || a.queue[0].at > end {
		return false
	}
	x := heap.Pop(&a.queue).(entry)
	a.Now = x.at
	x.f()
	return true
}

// Run does all that is planned up to end, which is the time then.
func (a *Agenda) Run(end time.Duration) {
	for a.Next(end) {
	}
	a.Now = max(a.Now, end)
}
