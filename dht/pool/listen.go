package pool

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/roster"
)

// listeners holds those who want to be told.
type listeners struct {
	mu        sync.Mutex
	next      int
	changes   map[int]func(roster.Change)
	connected map[int]func(peer.ID)
}

// Watch has f called for each member that came, went, or changed its state, role or name, until stop is called. f runs on
// the pool's goroutine: it must not block, nor call a method of the pool that changes something.
func (p *Pool) Watch(f func(roster.Change)) (stop func()) {
	return add(&p.listeners, &p.listeners.changes, f)
}

// OnConnected has f called each time a link to a member comes up: both sides know each other as members from then on.
// It is called at once for those that are up. The same rules as for Watch hold.
func (p *Pool) OnConnected(f func(peer.ID)) (stop func()) {
	stop = add(&p.listeners, &p.listeners.connected, f)
	p.post(func() {
		for id, l := range p.links {
			if l.up {
				f(id)
			}
		}
	})
	return stop
}

// add puts a listener into one of the lists.
func add[F any](l *listeners, list *map[int]F, f F) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if *list == nil {
		*list = make(map[int]F)
	}
	if len(*list) >= watchersMax {
		panic("pool: too many listeners")
	}
	l.next++
	key := l.next
	(*list)[key] = f
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(*list, key)
	}
}

func (l *listeners) changed(changes []roster.Change) {
	if len(changes) == 0 {
		return
	}
	for _, f := range snapshot(l, &l.changes) {
		for _, c := range changes {
			f(c)
		}
	}
}

func (l *listeners) up(id peer.ID) {
	for _, f := range snapshot(l, &l.connected) {
		f(id)
	}
}

// snapshot copies a list, so that a listener may stop itself.
func snapshot[F any](l *listeners, list *map[int]F) (out []F) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range *list {
		out = append(out, f)
	}
	return out
}
