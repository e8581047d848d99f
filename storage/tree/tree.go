package tree

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/text/unicode/norm"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/tree/paths"
)

// The two packages mean the same pieces.
var (
	_ [piece.SmallMax - paths.SmallMax]struct{} = [0]struct{}{}
	_ [piece.PieceMax - paths.PieceMax]struct{} = [0]struct{}{}
)

// Tree is the pool's name space as this peer knows it. All methods are safe for concurrent use.
type Tree struct {
	cfg  Config
	ctx  context.Context // ends with Close
	stop context.CancelFunc
	work sync.WaitGroup

	// writing is held from looking at the heads until a version that replaces them can be seen, so that two writers
	// here do not make a conflict of their own.
	writing sync.Mutex

	mu      sync.RWMutex // core, decode, pins
	core    *paths.Tree
	decode  *decoder
	pins    pins
	strange int // records that are no versions

	watchers watchers
	unwatch  []func()
	small    *lane         // small pieces that wait for their copies
	large    *lane         // the others
	slots    chan struct{} // one for each Writer
	securing atomic.Int64  // pieces in the lanes, or taken from them and not secured yet
	closed   atomic.Bool
}

// Open reads all versions that the directory holds and follows it from then on.
func Open(cfg Config) (*Tree, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	t := &Tree{
		cfg: cfg, core: paths.New(), decode: newDecoder(), pins: pins{},
		small: newLane(smallQueue, smallTake), large: newLane(largeQueue, largeTake), slots: make(chan struct{}, writersMax),
	}
	t.watchers = watchers{byID: map[int]func([]Want){}, wake: make(chan struct{}, 1)}
	t.ctx, t.stop = context.WithCancel(context.Background())
	// Watching begins before the scan: what changes meanwhile is then looked at twice rather than not at all.
	t.unwatch = append(t.unwatch,
		cfg.Names.Watch(filePrefix, func(r *directory.Record) { t.apply(r.Key) }),
		cfg.Names.Watch(pinPrefix, func(r *directory.Record) { t.apply(r.Key) }))
	for r := range cfg.Names.Scan(filePrefix) {
		t.apply(r.Key)
	}
	for r := range cfg.Names.Scan(pinPrefix) {
		t.apply(r.Key)
	}
	t.mu.Lock()
	t.core.Told() // nobody can have begun to watch
	t.mu.Unlock()
	for range secureWorkers {
		t.work.Go(func() { t.secureLane(t.small) })
		t.work.Go(func() { t.secureLane(t.large) })
	}
	t.work.Go(t.notify)
	t.work.Go(t.keepExpiring)
	return t, nil
}

// Close ends all work that goes on in the background. Copies that were not secured yet are left to those who watch
// what is wanted. Nothing may be put from then on.
func (t *Tree) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	for _, f := range t.unwatch {
		f()
	}
	t.stop()
	t.work.Wait()
	return nil
}

// apply brings the tree in line with what keys of records hold now. It always looks anew, so it does not matter how
// often and in which order it is told of a change.
func (t *Tree) apply(keys ...string) {
	t.mu.Lock()
	for _, key := range keys {
		t.applyOne(key)
	}
	t.mu.Unlock()
	t.watchers.changed()
}

func (t *Tree) applyOne(key string) {
	if strings.HasPrefix(key, pinPrefix) {
		t.applyPin(key)
		return
	}
	hash, id, ok := parseFileKey(key)
	if !ok {
		return
	}
	r, ok := t.cfg.Names.Get(key)
	if ok {
		path, v, err := t.decode.version(r)
		if err == nil {
			t.core.Put(path, &v)
			return
		}
		t.strange++
		t.cfg.Log.Debug("a record is no file version", "key", key, "author", r.Author, "err", err)
	}
	t.core.Drop(hash, id)
}

// Stat returns what is at a path, conflicts under their own names included.
func (t *Tree) Stat(path string) (Entry, error) {
	i, err := t.lookup("stat", path)
	if err != nil {
		return Entry{}, err
	}
	return entry(&i, nil), nil
}

// lookup finds an item by a path as somebody wrote it.
func (t *Tree) lookup(op, path string) (paths.Item, error) {
	clean, err := cleanFor(op, path)
	if err != nil {
		return paths.Item{}, err
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if i, ok := t.core.Lookup(clean); ok {
		return i, nil
	}
	for _, form := range t.forms(path, clean) {
		if i, ok := t.core.Lookup(form); ok {
			return i, nil
		}
	}
	return paths.Item{}, fault(op, clean, ErrNotExist)
}

// forms are the spellings that something may be known by: somebody else's record may have the path, or that of a folder
// above it, in another normal form than ours. The caller holds mu.
func (t *Tree) forms(path, clean string) []string {
	spelt := paths.Root
	for name := range strings.SplitSeq(clean[1:], "/") {
		next, other := paths.Join(spelt, name), paths.Join(spelt, norm.NFD.String(name))
		if t.presence(other) > t.presence(next) {
			next = other
		}
		spelt = next
	}
	return []string{path, spelt}
}

// presence ranks spellings: 2 for one that shows something, 1 for one that did.
func (t *Tree) presence(path string) int {
	if _, ok := t.core.Lookup(path); ok {
		return 2
	}
	if t.core.Knows(path) {
		return 1
	}
	return 0
}

// cleanFor is paths.Clean with its error in the shape of all others. The name of a conflict may take a path beyond its
// limit, and must be found all the same.
func cleanFor(op, path string) (string, error) {
	clean, err := paths.Clean(path)
	if err != nil && len(clean) <= paths.PathMax {
		return "", fault(op, path, err)
	}
	if len(clean) > paths.PathMax+paths.NameMax {
		return "", fault(op, clean[:paths.NameMax], err)
	}
	return clean, nil
}

// List returns what is in a folder, in the order of the names' bytes. It sees one moment of the tree.
func (t *Tree) List(dir string) ([]Entry, error) {
	i, err := t.lookup("list", dir)
	if err != nil {
		return nil, err
	}
	if i.Kind != Folder {
		return nil, fault("list", i.Path, ErrNotFolder)
	}
	unlock := t.rlockSorted(i.Path)
	defer unlock()
	size := t.core.Inside(i.Path)
	out, pool := make([]Entry, 0, size), make([]piece.Piece, 0, size)
	for item := range t.core.List(i.Path) {
		out = append(out, entry(&item, &pool))
	}
	return out, nil
}

// rlockSorted locks the tree for reading a folder in order. Sorting needs the lock for writing, so it is taken for as
// long as somebody else could have come in between.
func (t *Tree) rlockSorted(dir string) (unlock func()) {
	t.mu.RLock()
	if t.core.Sorted(dir) {
		return t.mu.RUnlock
	}
	t.mu.RUnlock()
	t.mu.Lock()
	t.core.Sort(dir)
	return t.mu.Unlock
}

// History returns all versions of a path that are still kept, the latest first, removals included. The history of a
// conflict is that of the path that it stands beside. Of a path that shows nothing it is what was removed from it.
func (t *Tree) History(path string) ([]Entry, error) {
	clean, err := cleanFor("history", path)
	if err != nil {
		return nil, err
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	versions := t.core.History(clean)
	if len(versions) == 0 {
		if _, ok := t.core.Lookup(clean); !ok {
			return nil, fault("history", clean, ErrNotExist)
		}
	}
	out := make([]Entry, 0, len(versions))
	for i := range versions {
		out = append(out, version(clean, &versions[i], nil))
	}
	return out, nil
}

// Safety says how safe a file is. A folder is as safe as can be: its name is everywhere.
func (t *Tree) Safety(e *Entry) Safety {
	return t.cfg.Bytes.Safety(e.File.Pieces, e.Copies)
}

// Status describes the tree for people.
type Status struct {
	Versions int // of all paths, replaced and removed ones included
	Strange  int // records that were met and are no versions, such as a newer build's
	Securing int // pieces put here whose copies are still being made; what found no room in the queue is not among them
}

// Status describes the tree as it is now.
func (t *Tree) Status() Status {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return Status{t.core.Versions(), t.strange, int(t.securing.Load())}
}
