package storage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
)

const progressPeriod = 200 * time.Millisecond

// ShareOptions changes how a path is shared. The zero value is the default.
type ShareOptions struct {
	Name string // what the link calls it; "" is the path's last element
	// Web are URLs where the same bytes lie too, given by the person at this
	// machine; they go into the link. For single files only.
	Web   []string
	Limit Limit // when it will have been seeded enough
}

// Share hashes the file or folder at path on all cores and serves it from
// where it lies: nothing is copied. Sharing the same content again is cheap in
// space and gives the same root.
//
// Errors: the file system's, ErrChanging, and names that no tree can hold.
func (s *Storage) Share(ctx context.Context, path string, opt ShareOptions, progress func(Progress)) (Share, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Share{}, fmt.Errorf("storage: share: %w", err)
	}
	name := opt.Name
	if name == "" {
		name = filepath.Base(path)
	}
	// The path itself may be a link to what is meant; links inside stay links.
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return Share{}, fmt.Errorf("storage: share: %w", err)
	}
	x, skipped, err := index(ctx, path, name, progress)
	if err != nil {
		return Share{}, fmt.Errorf("storage: share: %w", err)
	}
	if x.Web = opt.Web; len(opt.Web) > 0 {
		if err := checkWebSeeds(ctx, opt.Web, x); err != nil {
			return Share{}, fmt.Errorf("storage: share: %w", err)
		}
	}
	tidy(len(x.Mtimes))
	r, err := s.store.AddIndexed(x)
	if err == nil {
		err = s.SetLimit(r.CID(), opt.Limit)
	}
	if err != nil {
		return Share{}, fmt.Errorf("storage: share: %w", err)
	}
	s.seed(r.CID())
	out := s.describe(r)
	out.Skipped = skipped
	return out, nil
}

// index hashes what lies at path and builds its tree.
func index(ctx context.Context, path, name string, progress func(Progress)) (block.Index, []string, error) {
	if progress == nil {
		progress = func(Progress) {}
	}
	progress(Progress{Phase: "hashing", Total: -1})
	found, skipped, err := scan(ctx, path)
	if err != nil {
		return block.Index{}, nil, err
	}
	x := block.Index{Name: name, Path: path}
	for i := range found.all {
		x.Size += found.all[i].size
	}
	var rate rates
	cids, err := hashAll(ctx, path, &found, func(done int64) {
		progress(Progress{Phase: "hashing", Done: done, Total: x.Size, Files: len(found.all), Rate: rate.at(time.Now(), done)})
	})
	if err != nil {
		return block.Index{}, nil, err
	}
	root, blocks, err := found.build(cids)
	if err != nil {
		return block.Index{}, nil, err
	}
	x.Root = root
	tidy(len(found.all))
	tree, nodes, err := order(root, blocks)
	if err != nil {
		return block.Index{}, nil, err
	}
	x.Nodes, x.Tree = nodes, tree
	x.Mtimes = found.mtimes(tree)
	return x, skipped, nil
}

// tidyFiles is how many files make it worth while to collect garbage between
// the steps of a share.
const tidyFiles = 20_000

// tidy collects the garbage of a step, so that the next does not grow on top of
// it: of so many small files each step's lists are most of the memory there is.
func tidy(files int) {
	if files >= tidyFiles {
		runtime.GC()
	}
}

// build makes the DAG of all items and returns its root and its nodes.
func (x *items) build(cids []chunk.CID) (chunk.CID, map[chunk.CID][]byte, error) {
	b := builder{items: x, cids: cids, blocks: map[chunk.CID][]byte{}, folders: map[int32]chunk.Child{}}
	// Folders come before what is in them, so backwards every folder is met when
	// those in it are known.
	for i := len(x.all) - 1; i > 0; i-- {
		if x.all[i].kind != chunk.Dir {
			continue
		}
		c, err := b.child(int32(i))
		if err != nil {
			return chunk.CID{}, nil, err
		}
		b.folders[int32(i)] = c
	}
	root, err := b.child(0)
	return root.CID, b.blocks, err
}

// builder makes the DAG of items.
type builder struct {
	*items
	cids    []chunk.CID
	blocks  map[chunk.CID][]byte
	folders map[int32]chunk.Child // that are made and not yet in their own folder
}

func (b *builder) keep(nodes ...chunk.Block) {
	for _, n := range nodes {
		b.blocks[n.CID] = n.Data
	}
}

// child makes item i, of which the folders inside are made.
func (b *builder) child(i int32) (c chunk.Child, err error) {
	it := &b.all[i]
	var nodes []chunk.Block
	switch it.kind {
	case chunk.File:
		c, nodes = chunk.FileDAG(b.cids[it.first:int(it.first)+leavesOf(it.size)], it.size)
	case chunk.Symlink:
		var node chunk.Block
		c, node = chunk.SymlinkDAG(b.targets[i])
		b.keep(node)
	case chunk.Dir:
		c, nodes, err = b.folder(it)
		if err != nil {
			return c, fmt.Errorf("%s: %w", b.path(i), err)
		}
	}
	b.keep(nodes...)
	c.Name = it.name
	return c, nil
}

func (b *builder) folder(it *item) (chunk.Child, []chunk.Block, error) {
	children := make([]chunk.Child, 0, it.end-it.first)
	for i := it.first; i < it.end; i++ {
		c, made := b.folders[i]
		if !made {
			var err error
			if c, err = b.child(i); err != nil {
				return c, nil, err
			}
		}
		delete(b.folders, i)
		children = append(children, c)
	}
	return chunk.DirDAG(children)
}

func baseName(rel string) string {
	for i := len(rel) - 1; i >= 0; i-- {
		if rel[i] == '/' {
			return rel[i+1:]
		}
	}
	return rel
}

// order puts nodes into walk order, expanding the tree on the way.
func order(root chunk.CID, blocks map[chunk.CID][]byte) (*chunk.Tree, [][]byte, error) {
	w := chunk.NewWalker(root, chunk.Limits{})
	var nodes [][]byte
	for {
		c, more := w.Next()
		if !more {
			break
		}
		data := blocks[c]
		if err := w.Add(data); err != nil {
			return nil, nil, err
		}
		nodes = append(nodes, data)
	}
	tree, err := w.Tree()
	return tree, nodes, err
}

// mtimes gives the files' times in the tree's order, which is not the file system's.
func (x *items) mtimes(tree *chunk.Tree) []int64 {
	of := x.match(tree)
	if of == nil {
		panic("storage: a tree made of items is not theirs")
	}
	out := make([]int64, 0, tree.Files)
	for i, k := range of {
		if tree.Entries[i].Kind == chunk.File {
			out = append(out, x.all[k].mtime)
		}
	}
	return out
}

// match gives for each entry of a tree the index of the item with its path; nil
// if the tree's paths are not the items'.
func (x *items) match(tree *chunk.Tree) []int32 {
	if len(tree.Entries) != len(x.all) {
		return nil
	}
	m := &matcher{items: x, entries: tree.Entries, of: make([]int32, len(tree.Entries))}
	if _, ok := m.subtree(0, 0); !ok {
		return nil
	}
	return m.of
}

// matcher pairs the entries of a tree with items.
type matcher struct {
	*items
	entries []chunk.Entry
	of      []int32
}

// subtree pairs the entry at and all that is in it with item i and what is in
// that, and returns the entry after them. Both sides are in the order of their
// names, or brought into it, so that nothing has to be looked up.
func (m *matcher) subtree(at int, i int32) (next int, ok bool) {
	e := &m.entries[at]
	m.of[at] = i
	if e.Kind != m.all[i].kind {
		return at, false
	}
	next = at + 1
	if e.Kind != chunk.Dir {
		return next, true
	}
	var inside []int32
	for next < len(m.entries) && within(m.entries[next].Path, e.Path) {
		inside = append(inside, int32(next))
		for next++; next < len(m.entries) && within(m.entries[next].Path, m.entries[inside[len(inside)-1]].Path); next++ {
		}
	}
	if len(inside) != int(m.all[i].end-m.all[i].first) {
		return next, false
	}
	name := func(k int32) string { return m.entries[k].Path }
	slices.SortFunc(inside, func(a, b int32) int { return strings.Compare(name(a), name(b)) })
	for k, entry := range inside {
		child := m.all[i].first + int32(k)
		if baseName(m.entries[entry].Path) != m.all[child].name {
			return next, false
		}
		if _, ok := m.subtree(int(entry), child); !ok {
			return next, false
		}
	}
	return next, true
}

// within reports whether a path is below a folder; all paths but "" are below "".
func within(path, folder string) bool {
	return folder == "" && path != "" || len(path) > len(folder) && path[len(folder)] == '/' && path[:len(folder)] == folder
}

// every calls f now and then, from another goroutine, until the returned
// function is called, which waits for the last call to end.
func every(period time.Duration, f func()) (stop func()) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(period)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				f()
			case <-quit:
				return
			}
		}
	})
	return func() {
		close(quit)
		wg.Wait()
	}
}

// rates turns a growing count into a rate since the start.
type rates struct{ start time.Time }

func (r *rates) at(now time.Time, done int64) float64 {
	if r.start.IsZero() {
		r.start = now.Add(-progressPeriod)
	}
	return float64(done) / now.Sub(r.start).Seconds()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
