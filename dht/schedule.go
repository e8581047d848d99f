package dht

import (
	"container/heap"
	"time"
)

const (
	// reprovideEvery is how often a record is renewed: twice in its life and some, so that one failure is no gap.
	reprovideEvery = 25 * time.Minute
	// retryFirst and retryMax bound the wait after a failed announcement; it doubles in between.
	retryFirst = 5 * time.Second
	retryMax   = 5 * time.Minute
)

// schedule decides when which key is announced. It is pure: time is handed in, and nothing happens by itself.
//
// A key is in one of three states: waiting for its time, in flight (taken by next and not yet done), or gone.
type schedule struct {
	items map[Key]*item
	queue itemQueue
	open  bool // whether there is anyone to announce to
}

// item is one key that is to be announced.
type item struct {
	key      Key
	due      time.Time
	provided time.Time     // the last success; zero for none
	retry    time.Duration // the wait after the next failure
	again    bool          // due again as soon as it lands
	index    int           // in the queue; -1 in flight
}

func newSchedule() *schedule { return &schedule{items: make(map[Key]*item)} }

// add puts a key on the schedule, due at once. A key that is there already keeps its time.
func (s *schedule) add(k Key, now time.Time) {
	if s.items[k] != nil {
		return
	}
	it := &item{key: k, due: now, retry: retryFirst}
	s.items[k] = it
	heap.Push(&s.queue, it)
}

// remove takes a key off. One in flight is forgotten when it lands.
func (s *schedule) remove(k Key) {
	it := s.items[k]
	if it == nil {
		return
	}
	delete(s.items, k)
	if it.index >= 0 {
		heap.Remove(&s.queue, it.index)
	}
}

// setOpen says whether there is anyone to announce to. While not, nothing is due.
func (s *schedule) setOpen(open bool) { s.open = open }

// again makes every key due at now, those in flight as soon as they land. Failures before are forgiven: they came of a
// table that has changed since.
func (s *schedule) again(now time.Time) {
	for _, it := range s.items {
		it.retry = retryFirst
		it.due = now
		it.again = it.index < 0
	}
	heap.Init(&s.queue)
}

// next takes one key that is due, if there is any.
func (s *schedule) next(now time.Time) (Key, bool) {
	if !s.open || len(s.queue) == 0 || s.queue[0].due.After(now) {
		return Key{}, false
	}
	it := heap.Pop(&s.queue).(*item)
	return it.key, true
}

// done says how the announcement of a key that next gave out went.
func (s *schedule) done(k Key, ok bool, now time.Time) {
	it := s.items[k]
	if it == nil || it.index >= 0 { // removed meanwhile, or removed and added anew
		return
	}
	switch {
	case ok:
		it.provided, it.retry, it.due = now, retryFirst, now.Add(reprovideEvery)
	default:
		it.due = now.Add(it.retry)
		it.retry = min(2*it.retry, retryMax)
	}
	if it.again {
		it.again, it.due = false, now
	}
	heap.Push(&s.queue, it)
}

// wake returns when the next key is due, and false when none will be without a change.
func (s *schedule) wake() (time.Time, bool) {
	if !s.open || len(s.queue) == 0 {
		return time.Time{}, false
	}
	return s.queue[0].due, true
}

// provided returns when a key was last announced; zero for never.
func (s *schedule) provided(k Key) time.Time {
	if it := s.items[k]; it != nil {
		return it.provided
	}
	return time.Time{}
}

// itemQueue is a heap of items by due time.
type itemQueue []*item

func (q itemQueue) Len() int           { return len(q) }
func (q itemQueue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q itemQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *itemQueue) Push(x any) {
	it := x.(*item)
	it.index = len(*q)
	*q = append(*q, it)
}

func (q *itemQueue) Pop() any {
	old := *q
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	it.index = -1
	return it
}
