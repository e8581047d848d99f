package scale

import (
	"container/heap"
	"time"
)

// clock is virtual time: what is to happen, in order. Of two things at the same time the first that was planned comes first.
type clock struct {
	now   time.Duration
	seq   uint64
	queue timers
}

type timer struct {
	at  time.Duration
	seq uint64
	f   func()
}

type timers []timer

func (q timers) Len() int { return len(q) }
func (q timers) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q timers) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *timers) Push(x any)   { *q = append(*q, x.(timer)) }
func (q *timers) Pop() any {
	old := *q
	x := old[len(old)-1]
	old[len(old)-1] = timer{}
	*q = old[:len(old)-1]
	return x
}

func (c *clock) after(d time.Duration, f func()) {
	c.seq++
	heap.Push(&c.queue, timer{c.now + max(d, 0), c.seq, f})
}

// run lets time pass until the end.
func (c *clock) run(end time.Duration) {
	for len(c.queue) > 0 && c.queue[0].at <= end {
		t := heap.Pop(&c.queue).(timer)
		c.now = t.at
		t.f()
	}
	c.now = end
}
