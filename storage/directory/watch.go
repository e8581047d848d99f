package directory

import (
	"maps"
	"slices"
	"strings"
	"sync"
)

// watchers tells those who asked about changed keys. Changes wait as a set of keys, which has its bound in what the
// directory holds; a slow watcher sees fewer states in between, never an old one last.
type watchers struct {
	mu      sync.Mutex
	next    int
	byID    map[int]watcher
	changes map[string]struct{}
	wake    chan struct{}
}

type watcher struct {
	prefix string
	fn     func(*Record)
}

// Watch has fn called after each change of a key that begins with prefix, by this peer or another, with what the key
// now holds: a record, which may be a deletion; one without a time if the key's record was removed without a trace.
// Changes in quick succession may be told as one. Calls come one at a time, from one goroutine for all watchers; fn may
// use the directory. One call may still be on its way when cancel returns.
func (d *Directory) Watch(prefix string, fn func(*Record)) (cancel func()) {
	w := &d.watchers
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byID == nil {
		w.byID = map[int]watcher{}
	}
	id := w.next
	w.next++
	w.byID[id] = watcher{prefix, fn}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.byID, id)
	}
}

// changed notes that a key's record changed.
func (w *watchers) changed(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.watched(key) {
		return
	}
	if w.changes == nil {
		w.changes = map[string]struct{}{}
	}
	w.changes[key] = struct{}{}
	signal(w.wake)
}

func (w *watchers) watched(key string) bool {
	for _, x := range w.byID {
		if strings.HasPrefix(key, x.prefix) {
			return true
		}
	}
	return false
}

// take returns the changed keys and those who watch.
func (w *watchers) take() (keys []string, list []watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	keys = slices.Sorted(maps.Keys(w.changes))
	w.changes = nil
	for _, id := range slices.Sorted(maps.Keys(w.byID)) {
		list = append(list, w.byID[id])
	}
	return keys, list
}

// notify runs the watchers.
func (d *Directory) notify() {
	for {
		select {
		case <-d.watchers.wake:
		case <-d.ctx.Done():
			return
		}
		keys, list := d.watchers.take()
		for _, key := range keys {
			d.mu.RLock()
			r := d.replica.Set.Get(key)
			d.mu.RUnlock()
			if r == nil {
				r = &Record{Key: key, Deleted: true}
			}
			for _, w := range list {
				if strings.HasPrefix(key, w.prefix) {
					w.fn(r)
				}
			}
		}
	}
}

// signal wakes the one goroutine behind a channel of capacity 1, if it is not awake already.
func signal(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
