// Package pooltest holds what tests of pools share: convergent names in memory, and the refusals that every pool protocol
// must make. It is for tests only and knows no test framework but the standard one.
package pooltest

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Names is a convergent map in memory, which satisfies pool.Records: last writer wins, by a counter and then by value.
// Connect joins two of them. All methods are safe for concurrent use.
type Names struct {
	mu       sync.Mutex
	entries  map[string]entry
	watchers map[int]watcher
	next     int
	others   []*Names
}

type entry struct {
	value string
	stamp uint64
}

func (e entry) before(o entry) bool {
	return e.stamp < o.stamp || e.stamp == o.stamp && e.value < o.value
}

type watcher struct {
	prefix string
	f      func(string)
}

// NewNames returns an empty map.
func NewNames() *Names {
	return &Names{entries: make(map[string]entry), watchers: make(map[int]watcher)}
}

// Connect lets two maps know what the other has, from now on.
func Connect(a, b *Names) {
	a.link(b)
	b.link(a)
	for key, e := range a.copy() {
		b.take(key, e)
	}
	for key, e := range b.copy() {
		a.take(key, e)
	}
}

func (n *Names) link(o *Names) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.others = append(n.others, o)
}

func (n *Names) copy() map[string]entry {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.entries)
}

// Put sets a name.
func (n *Names) Put(key string, value []byte) error {
	n.mu.Lock()
	old, had := n.entries[key]
	n.mu.Unlock()
	if had && old.value == string(value) {
		return nil
	}
	n.take(key, entry{string(value), old.stamp + 1})
	return nil
}

// take keeps an entry that is newer, and passes it on.
func (n *Names) take(key string, e entry) {
	n.mu.Lock()
	if old, had := n.entries[key]; had && !old.before(e) {
		n.mu.Unlock()
		return
	}
	n.entries[key] = e
	var tell []func(string)
	for _, w := range n.watchers {
		if strings.HasPrefix(key, w.prefix) {
			tell = append(tell, w.f)
		}
	}
	others := slices.Clone(n.others)
	n.mu.Unlock()
	for _, f := range tell {
		f(key)
	}
	for _, o := range others {
		o.take(key, e)
	}
}

// Scan yields the names that begin with prefix, in order.
func (n *Names) Scan(prefix string) iter.Seq2[string, []byte] {
	all := n.copy()
	return func(yield func(string, []byte) bool) {
		for _, key := range slices.Sorted(maps.Keys(all)) {
			if strings.HasPrefix(key, prefix) && !yield(key, []byte(all[key].value)) {
				return
			}
		}
	}
}

// Watch has f called after a name that begins with prefix changed.
func (n *Names) Watch(prefix string, f func(string)) (stop func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	id := n.next
	n.watchers[id] = watcher{prefix, f}
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.watchers, id)
	}
}
