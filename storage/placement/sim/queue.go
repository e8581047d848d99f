package sim

import "time"

// kind is what an event is about.
type kind uint8

const (
	wakes   kind = iota // a wakes up
	sleeps              // a's lid is closed
	ticks               // a's planner wished for a tick
	meets               // a hears of b: whether it is there, and if so what it holds
	hears               // a hears b's takings
	retells             // a tells all again when it last saw the others; n is how often it had woken
	names               // a learns the news of the directory
	arrives             // a's fetch number n ends
	proves              // b is asked for a promise to a's trim number n
	trims               // a decides on its trim number n
	nudged              // a is asked by b to hold piece n
	dies                // some laptop dies
	evicts              // a, which is dead, is no longer a member
	joins               // a new laptop takes the place of b
	writes              // some laptop writes a file
	looks               // the world looks around
)

// event is something that happens at a time. What a, b and n mean depends on the kind.
type event struct {
	at   time.Duration
	seq  uint32
	kind kind
	a, b uint8
	n    int32
}

func (e event) before(o event) bool { return e.at < o.at || e.at == o.at && e.seq < o.seq }

// queue is a heap of events.
type queue struct {
	items []event
	seq   uint32
}

func (q *queue) put(e event) {
	q.seq++
	e.seq = q.seq
	q.items = append(q.items, e)
	for i := len(q.items) - 1; i > 0; {
		up := (i - 1) / 2
		if !q.items[i].before(q.items[up]) {
			break
		}
		q.items[i], q.items[up] = q.items[up], q.items[i]
		i = up
	}
}

func (q *queue) take() event {
	first, last := q.items[0], len(q.items)-1
	q.items[0] = q.items[last]
	q.items = q.items[:last]
	for i := 0; ; {
		low := i
		for _, c := range [2]int{2*i + 1, 2*i + 2} {
			if c < last && q.items[c].before(q.items[low]) {
				low = c
			}
		}
		if low == i {
			return first
		}
		q.items[i], q.items[low] = q.items[low], q.items[i]
		i = low
	}
}
