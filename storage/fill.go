package storage

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/exchange"
)

// fromMax bounds the peers that those who open a root name for it.
const fromMax = 256

// fillers are the roots that somebody has open, by root.
type fillers struct {
	mu   sync.Mutex
	open map[chunk.CID]*filler
	held map[chunk.CID]int // roots that a Get or an Unshare works on
}

// filler fetches what the readers of one root need, from the first Open to the
// last Close. Where the bytes go: into the record that the store has of the
// root, or a fresh one in the cache; and into a copy in the cache when the
// record's files cannot take them.
//
// A Get of the same root fetches into a record of its own; while it runs, the
// filler steps back and the readers' needs go to the Get's job.
type filler struct {
	s     *Storage
	on    *shelf
	root  chunk.CID
	name  string
	web   []string
	opt   OpenOptions
	wants chan struct{} // holds a token when a reader misses something
	ctx   context.Context
	stop  context.CancelFunc
	ended chan struct{} // closed when run has returned

	users int // guarded by fillers.mu

	mu      sync.Mutex
	from    []peer.AddrInfo    // who may have it
	news    chan struct{}      // closed, and made anew, when anything below changes
	fails   int                // jobs that failed
	err     error              // why the last of them did
	cancel  context.CancelFunc // of the running job; nil for none
	resting chan struct{}      // closed when no job runs
	freed   chan struct{}      // closed when a hold ends; nil while there is none
	copy    *block.Root
	nodes   *block.Nodes
}

// join returns the filler of the link's root, with one user more. from are
// peers that may have it.
func (h *shelf) join(link chunk.Link, from []peer.AddrInfo, opt OpenOptions) (*filler, error) {
	s, fs := h.s, &h.fillers
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.open[link.Root]
	if f == nil {
		f = &filler{
			s: s, on: h, root: link.Root, name: link.Name, web: link.Web, opt: opt,
			wants: make(chan struct{}, 1), ended: make(chan struct{}), news: make(chan struct{}),
		}
		f.ctx, f.stop = context.WithCancel(s.ctx)
		if fs.held[link.Root] > 0 {
			f.freed = make(chan struct{})
		}
		if fs.open == nil {
			fs.open = map[chunk.CID]*filler{}
		}
		fs.open[link.Root] = f
		s.tasks.Go(f.run)
	}
	f.users++
	f.add(from)
	return f, nil
}

// add has peers asked by the job that runs and those to come.
func (f *filler) add(from []peer.AddrInfo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range from {
		known := slices.ContainsFunc(f.from, func(q peer.AddrInfo) bool { return q.ID == p.ID })
		if !known && len(f.from) < fromMax {
			f.from = append(f.from, p)
		}
	}
	f.s.swarm.Suggest(f.root, f.on.private, from)
}

// leave takes one user off; with the last one the filler ends.
func (f *filler) leave() {
	fs := &f.on.fillers
	fs.mu.Lock()
	f.users--
	last := f.users == 0
	if last {
		delete(fs.open, f.root)
	}
	fs.mu.Unlock()
	if last {
		f.stop()
		<-f.ended
		f.s.trimCache()
	}
}

// hold has no filler fetch a root until release is called. It returns when none
// does.
func (fs *fillers) hold(root chunk.CID) (release func()) {
	fs.mu.Lock()
	if fs.held == nil {
		fs.held = map[chunk.CID]int{}
	}
	fs.held[root]++
	f := fs.open[root]
	fs.mu.Unlock()
	if f != nil {
		f.yield()
	}
	return func() {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		if fs.held[root]--; fs.held[root] > 0 {
			return
		}
		delete(fs.held, root)
		if f := fs.open[root]; f != nil {
			f.resume()
		}
	}
}

// tell wakes those who wait for a root's tree: there is a record of it now.
func (fs *fillers) tell(root chunk.CID) {
	fs.mu.Lock()
	f := fs.open[root]
	fs.mu.Unlock()
	if f != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.broadcast()
	}
}

// opened reports that somebody has a root open.
func (fs *fillers) opened(root chunk.CID) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.open[root] != nil
}

// busy reports that a root is open or held.
func (fs *fillers) busy(root chunk.CID) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.open[root] != nil || fs.held[root] > 0
}

// yield ends the running job and keeps the next from beginning.
func (f *filler) yield() {
	f.mu.Lock()
	if f.freed == nil {
		f.freed = make(chan struct{})
	}
	resting := f.resting
	if f.cancel != nil {
		f.cancel()
	}
	f.mu.Unlock()
	if resting != nil {
		<-resting
	}
}

func (f *filler) resume() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.freed != nil {
		close(f.freed)
		f.freed = nil
	}
}

// want asks for a job to run. The caller has registered what it needs.
func (f *filler) want() {
	select {
	case f.wants <- struct{}{}:
	default:
	}
}

// state is what a waiting reader looks at: a channel that closes when it is out
// of date, how many jobs failed, and why the last one did.
func (f *filler) state() (news chan struct{}, fails int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.news, f.fails, f.err
}

// broadcast wakes the waiting. The caller holds mu.
func (f *filler) broadcast() {
	close(f.news)
	f.news = make(chan struct{})
}

// run fetches whenever a reader misses something.
func (f *filler) run() {
	defer close(f.ended)
	defer f.discard()
	for {
		select {
		case <-f.wants:
		case <-f.ctx.Done():
			f.settle(ErrClosed)
			return
		}
		ctx, ok := f.begin()
		if !ok {
			continue
		}
		err := f.fetch(ctx)
		f.mu.Lock()
		yielded := f.freed != nil
		f.cancel()
		close(f.resting)
		f.cancel, f.resting = nil, nil
		f.mu.Unlock()
		if yielded {
			err = nil // the reader waits on; the hold's end, or its work, helps it
			f.want()
		}
		f.settle(err)
	}
}

// begin makes ready for a job, having waited for holds to end.
func (f *filler) begin() (context.Context, bool) {
	for {
		f.mu.Lock()
		freed := f.freed
		if freed == nil {
			ctx, cancel := context.WithCancel(f.ctx)
			f.cancel, f.resting = cancel, make(chan struct{})
			f.mu.Unlock()
			return ctx, true
		}
		f.mu.Unlock()
		select {
		case <-freed:
		case <-f.ctx.Done():
			return nil, false
		}
	}
}

// settle tells the waiting that the job is over; nil if they may hope for another.
func (f *filler) settle(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.fails++
		f.err = err
	}
	f.broadcast()
}

// fetch runs one job until it is cancelled or nobody sends anything.
func (f *filler) fetch(ctx context.Context) error {
	for _, r := range f.roots() {
		if r.HaveCount() == r.Leaves() {
			return nil // it came while this was waiting
		}
	}
	into, err := f.target(ctx)
	if err != nil {
		return err
	}
	f.mu.Lock()
	from := slices.Clone(f.from)
	f.mu.Unlock()
	_, err = f.s.swarm.Fetch(ctx, exchange.Job{
		Root: f.root, From: from, Into: into, Begin: f.beginCached, Private: f.on.private,
		Timeout: max(0, f.opt.Timeout), Sequential: true, OnDemand: true, Web: f.web,
		Progress: func(p exchange.Progress) {
			f.opt.Progress(Progress{Phase: string(p.Phase), Done: p.Done, Total: -1, Peers: p.Peers, Rate: p.Rate})
		},
	})
	if errors.Is(err, context.Canceled) && f.ctx.Err() != nil {
		return ErrClosed
	}
	return err
}

// target is the root that missing leaves are written into; nil if it has to be
// begun when the tree is known.
func (f *filler) target(ctx context.Context) (*block.Root, error) {
	f.mu.Lock()
	made := f.copy
	f.mu.Unlock()
	if made != nil {
		return made, nil
	}
	r, ok := f.on.store.Root(f.root)
	if !ok && f.on.private {
		return f.besidePiece(ctx)
	}
	if !ok {
		return nil, nil
	}
	if i := r.Info(); i.State == block.Partial && !i.Placed && exists(i.PartialPath) {
		return r, nil
	}
	tree, err := r.Tree()
	if err != nil {
		return nil, err
	}
	dir, err := f.on.cacheDir(f.root)
	if err != nil {
		return nil, err
	}
	c, err := f.on.store.BeginCopy(tree, f.name, filepath.Join(dir, cacheCopy))
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.copy = c
	f.broadcast()
	return c, nil
}

// beginCached makes the cache's record of a root whose tree has come.
func (f *filler) beginCached(_ context.Context, tree *chunk.Tree, nodes [][]byte) (*block.Root, error) {
	if err := checkNames(tree); err != nil {
		return nil, err
	}
	dir, err := f.on.cacheDir(f.root)
	if err != nil {
		return nil, err
	}
	name := f.name
	if name == "" {
		name = f.root.String()
	}
	r, err := f.on.store.Begin(tree, nodes, name, filepath.Join(dir, cacheData))
	if err != nil {
		return nil, err
	}
	f.on.seed(f.root)
	f.on.fillers.tell(f.root)
	return r, nil
}

// roots are the records that may have a leaf.
func (f *filler) roots() []*block.Root {
	out := f.on.records(f.root)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.copy != nil {
		out = append(out, f.copy)
	}
	return out
}

// node reads one non-leaf block of the store's record.
func (f *filler) node(id chunk.CID) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.nodes == nil {
		r := f.on.records(f.root)
		if len(r) == 0 {
			return nil, block.ErrNotFound
		}
		n, err := r[0].OpenNodes()
		if err != nil {
			return nil, err
		}
		f.nodes = n
	}
	return f.nodes.Read(id)
}

// discard frees what only the filler knows of.
func (f *filler) discard() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.nodes != nil {
		f.nodes.Close()
	}
	if f.copy == nil {
		return
	}
	if err := f.on.store.Discard(f.copy); err != nil {
		f.s.log.Warn("a cached copy was left behind", "root", f.root, "err", err)
	}
}
