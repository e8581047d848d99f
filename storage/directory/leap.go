package directory

import (
	"sync"
	"time"
)

// leapMin is by how much this machine's clock must move against the time that really went by to count as set.
const leapMin = 30 * time.Second

// leaping is this machine's clock without its leaps: when somebody sets it, it goes on as it was until the names have taken that
// up. Otherwise what is written in that moment would have a time that is older than what it replaces, or one that all others
// refuse. Its methods may be called from any goroutine.
type leaping struct {
	wall func() time.Time
	boot func() time.Duration // counts sleep and never leaps
	wake chan struct{}        // capacity 1: it leapt

	mu   sync.Mutex
	last time.Time // by wall, at since
	at   time.Duration
	by   time.Duration // leaps that were not taken up yet
}

func (l *leaping) init(wall func() time.Time, boot func() time.Duration) {
	l.wall, l.boot, l.wake = wall, boot, make(chan struct{}, 1)
	l.last, l.at = wall().Round(0), boot()
}

// now is what the clock would say without the leaps that were not taken up.
func (l *leaping) now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Round strips the monotonic reading, which would hide that the clock was set.
	wall, at := l.wall().Round(0), l.boot()
	if step := wall.Sub(l.last) - (at - l.at); step.Abs() > leapMin {
		l.by += step
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	l.last, l.at = wall, at
	return wall.Add(-l.by)
}

// leapt is by how much now is behind the clock.
func (l *leaping) leapt() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.by
}

// takeUp is leapt, which is over by that: now and the clock are the same again.
func (l *leaping) takeUp() (by time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	by, l.by = l.by, 0
	return by
}

// clockSet is for when this machine's clock was set: the pool's time has not changed by that, unless nobody else tells it.
func (d *Directory) clockSet() {
	shift := time.Duration(0)
	_ = d.submit(d.ctx, &job{news: true, decide: func(b *batch) error {
		by := d.clock.takeUp()
		now := d.clock.now()
		shift += d.replica.Clock.Leapt(by, now)
		return d.moved(b, shift, now)
	}})
	d.contacts.hurry()
}
