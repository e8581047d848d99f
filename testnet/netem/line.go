package netem

import (
	"math/rand/v2"
	"sync"
	"time"
)

// flightMax bounds the bytes that one line holds, waiting and on their way: ten gigabit for 100 ms is twice that, which is
// beyond what this emulator carries.
const flightMax = 64 << 20

// packet is on its way; due never decreases along a line.
type packet struct {
	data []byte
	due  time.Time
}

// line is one direction between two hosts. It decides, and holds packets until they are due; whoever owns the clock asks it.
// Safe for concurrent use.
type line struct {
	mu     sync.Mutex
	link   Link
	random *rand.Rand
	free   time.Time // when the sender will have sent everything so far
	last   time.Time // due of the newest packet
	queue  []packet  // from head on
	head   int
	bytes  int // in queue
	stats  Stats
}

func newLine(l Link, seed, id uint64) *line {
	return &line{link: l, random: rand.New(rand.NewPCG(seed, id))}
}

// push takes a packet that arrived at now and says whether it keeps it.
func (l *line) push(now time.Time, data []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Sent++
	l.stats.Bytes += int64(len(data))
	// One draw for each packet, whatever becomes of it, so that a seed always loses the same ones.
	if l.random.Float64() < l.link.Loss || l.link.Down {
		l.stats.Lost++
		return false
	}
	if l.bytes+len(data) > flightMax {
		l.stats.Dropped++
		return false
	}
	due := now
	if l.link.Rate > 0 {
		if l.free.Before(now) {
			l.free = now
		}
		if l.waiting(now)+len(data) > l.link.Queue {
			l.stats.Dropped++
			return false
		}
		l.free = l.free.Add(time.Duration(float64(len(data)) * 8 / float64(l.link.Rate) * float64(time.Second)))
		due = l.free
	}
	due = due.Add(l.link.Delay)
	if l.link.Jitter > 0 {
		due = due.Add(time.Duration(l.random.Int64N(int64(l.link.Jitter))))
	}
	if due.Before(l.last) {
		due = l.last // it was luckier than the one before it, or the delay has just been made shorter: still no overtaking
	}
	l.last = due
	l.queue = append(l.queue, packet{data, due})
	l.bytes += len(data)
	return true
}

// waiting is the number of bytes that the sender has accepted and not yet sent.
func (l *line) waiting(now time.Time) int {
	return int(l.free.Sub(now).Seconds() * float64(l.link.Rate) / 8)
}

// pop returns the next packet if it is due at now. Otherwise data is nil and due is when to ask again, zero if the line is
// empty.
func (l *line) pop(now time.Time) (data []byte, due time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.head == len(l.queue) {
		return nil, time.Time{}
	}
	p := &l.queue[l.head]
	if p.due.After(now) {
		return nil, p.due
	}
	data, p.data = p.data, nil
	l.bytes -= len(data)
	l.stats.Delivered++
	if l.head++; l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	} else if l.head >= 1024 && l.head*2 > len(l.queue) {
		n := copy(l.queue, l.queue[l.head:])
		clear(l.queue[n:])
		l.queue, l.head = l.queue[:n], 0
	}
	return data, time.Time{}
}

func (l *line) set(link Link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link = link
}

func (l *line) setDown(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link.Down = down
}

func (l *line) counts() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}
