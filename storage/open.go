package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
)

var (
	// ErrNoEntry reports a path that a root does not have.
	ErrNoEntry = errors.New("there is no such file or folder in it")
	// ErrNotFile reports a path that is there and holds no bytes of its own.
	ErrNotFile = errors.New("is not a file")
	// ErrClosed reports a content that was closed.
	ErrClosed = errors.New("closed")
)

// OpenOptions changes how a root is opened. The zero value is the default.
type OpenOptions struct {
	Timeout  time.Duration  // give up a wait when nothing came for so long; 0: TimeoutDefault, negative: never
	Progress func(Progress) // may be nil; called often while bytes are fetched, from one goroutine
}

// Content is an open root, read in place where it is held and fetched as it is
// read where it is not. It is safe for concurrent use. Close it.
type Content struct {
	fill    *filler
	tree    *chunk.Tree
	closing chan struct{}
	once    sync.Once
}

// Open opens the root that link names. It returns when the root's tree is here;
// bytes of files are fetched when they are read, as few as that takes and 8 MiB
// ahead of the reader. What is fetched is kept in the cache, and served, until
// the space is needed; a Get of the same root takes it over.
//
// Errors: *exchange.NoProviderError, chunk.ErrTree (the root itself is bad), and
// the disk's own.
func (s *Storage) Open(ctx context.Context, link chunk.Link, opt OpenOptions) (*Content, error) {
	from, err := peer.AddrInfosFromP2pAddrs(withPeer(link.Addrs)...)
	if err != nil {
		return nil, fmt.Errorf("storage: open: %w", err)
	}
	return s.shelf.open(ctx, link, from, opt)
}

// open is Open for the roots of one shelf, with peers that may have it.
func (h *shelf) open(ctx context.Context, link chunk.Link, from []peer.AddrInfo, opt OpenOptions) (*Content, error) {
	if opt.Timeout == 0 {
		opt.Timeout = TimeoutDefault
	}
	if opt.Progress == nil {
		opt.Progress = func(Progress) {}
	}
	f, err := h.join(link, from, opt)
	if err != nil {
		return nil, fmt.Errorf("storage: open: %w", err)
	}
	c := &Content{fill: f, closing: make(chan struct{})}
	if c.tree, err = f.awaitTree(ctx); err == nil && c.tree.Size < 0 {
		err = c.awaitSize(ctx)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("storage: open: %w", err)
	}
	return c, nil
}

// Close ends every read of the content's files. Closing it again does nothing.
func (c *Content) Close() {
	c.once.Do(func() {
		close(c.closing)
		c.fill.leave()
	})
}

// awaitSize fetches the one leaf of a raw root, which alone tells its size.
func (c *Content) awaitSize(ctx context.Context) error {
	l := c.newLeaves(ctx)
	defer l.Close()
	if err := l.await(0, 1); err != nil {
		return err
	}
	for _, r := range c.fill.roots() {
		if !r.Has(0) {
			continue
		}
		tree, err := r.Tree()
		if err != nil {
			return err
		}
		c.tree = tree
		return nil
	}
	return ErrClosed // it was taken away in this moment
}

// Holds reports whether a root's tree is here, so that opening it takes nothing
// from the network.
func (s *Storage) Holds(root chunk.CID) bool {
	_, ok := s.store.Root(root)
	return ok
}

// Name is what the link or the record calls the root; "" if neither does.
func (c *Content) Name() string {
	if c.fill.name != "" {
		return c.fill.name
	}
	if r, ok := c.fill.on.store.Root(c.fill.root); ok && r.Info().Name != c.fill.root.String() {
		return r.Info().Name
	}
	return ""
}

// Root names the content.
func (c *Content) Root() chunk.CID { return c.tree.Root }

// Tree is the content's tree, to be read only.
func (c *Content) Tree() *chunk.Tree { return c.tree }

// Whole reports that every byte is on this machine.
func (c *Content) Whole() bool {
	for _, r := range c.fill.roots() {
		if r.HaveCount() == r.Leaves() {
			return true
		}
	}
	return false
}

// Find returns the index in Tree().Entries of what lies at a slash-separated
// path; "" is the root. It fails with ErrNoEntry. Symbolic links are found, not
// followed.
func (c *Content) Find(path string) (int, error) {
	path = strings.Trim(path, "/")
	for i := range c.tree.Entries {
		if c.tree.Entries[i].Path == path {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%q: %w", path, ErrNoEntry)
}

// List returns the entries directly in the folder at index dir, by name. The
// caller must not change them.
func (c *Content) List(dir int) []*chunk.Entry {
	var out []*chunk.Entry
	first, end := c.below(dir)
	skip := len(c.tree.Entries[dir].Path)
	if skip > 0 {
		skip++
	}
	for i := first; i < end; i++ {
		e := &c.tree.Entries[i]
		if !strings.Contains(e.Path[skip:], "/") {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b *chunk.Entry) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// below is the range of entries inside the entry at index i, which follow it.
func (c *Content) below(i int) (first, end int) {
	e := &c.tree.Entries[i]
	if e.Kind != chunk.Dir {
		return i + 1, i + 1
	}
	if e.Path == "" {
		return i + 1, len(c.tree.Entries)
	}
	for end = i + 1; end < len(c.tree.Entries) && strings.HasPrefix(c.tree.Entries[end].Path, e.Path+"/"); end++ {
	}
	return i + 1, end
}

// Node returns the non-leaf block that is named, or block.ErrNotFound.
func (c *Content) Node(id chunk.CID) ([]byte, error) {
	return c.fill.node(id)
}

// awaitTree returns the root's tree once somebody has it.
func (f *filler) awaitTree(ctx context.Context) (*chunk.Tree, error) {
	_, failed, _ := f.state()
	for {
		news, fails, why := f.state()
		for _, r := range f.roots() {
			if t, err := r.Tree(); err == nil || !errors.Is(err, block.ErrDamaged) {
				return t, err
			}
		}
		if fails > failed {
			return nil, why
		}
		f.want()
		select {
		case <-news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
