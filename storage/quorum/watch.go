package quorum

import (
	"context"
	"sync"
)

// statusBoard holds a group's last status and tells those who watch it.
type statusBoard struct {
	mu       sync.Mutex
	last     Status
	version  int
	watchers map[int]*watcher
	next     int
	moved    chan struct{} // closed at the next change
}

// watcher is told on a goroutine that lives only while there is something to tell.
type watcher struct {
	f       func(Status)
	told    int
	telling bool
	stopped bool
}

func (b *statusBoard) init() {
	b.watchers = make(map[int]*watcher)
	b.moved = make(chan struct{})
}

func (b *statusBoard) get() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

func (b *statusBoard) set(st Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = st
	b.version++
	close(b.moved)
	b.moved = make(chan struct{})
	for _, w := range b.watchers {
		b.tell(w)
	}
}

// tell starts the telling, if it does not go on already.
func (b *statusBoard) tell(w *watcher) {
	if w.telling {
		return
	}
	w.telling = true
	go func() {
		for {
			b.mu.Lock()
			if w.told == b.version || w.stopped {
				w.telling = false
				b.mu.Unlock()
				return
			}
			w.told = b.version
			st := b.last
			b.mu.Unlock()
			w.f(st)
		}
	}()
}

// Watch has f called with the status as it is now and after each change of leader, term, members, Leading or end, until stop is
// called; one call at a time. Changes that follow each other fast may be told as one. f may call methods of the group.
func (g *Group) Watch(f func(Status)) (stop func()) {
	b := &g.status
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	key := b.next
	w := &watcher{f: f, told: -1}
	b.watchers[key] = w
	b.tell(w)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		w.stopped = true
		delete(b.watchers, key)
	}
}

// until waits for a status.
func (g *Group) until(ctx context.Context, ok func(Status) bool) error {
	for {
		g.status.mu.Lock()
		st, moved := g.status.last, g.status.moved
		g.status.mu.Unlock()
		if ok(st) {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
