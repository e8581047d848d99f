package storage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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
	items, skipped, err := scan(ctx, path)
	if err != nil {
		return block.Index{}, nil, err
	}
	var total int64
	for _, it := range items {
		total += it.size
	}
	var rate rates
	cids, err := hashAll(ctx, path, items, func(done int64) {
		progress(Progress{Phase: "hashing", Done: done, Total: total, Files: len(items), Rate: rate.at(time.Now(), done)})
	})
	if err != nil {
		return block.Index{}, nil, err
	}
	root, blocks, err := build(items, cids)
	if err != nil {
		return block.Index{}, nil, err
	}
	x := block.Index{Root: root, Name: name, Path: path, Size: total}
	tree, nodes, err := order(root, blocks)
	if err != nil {
		return block.Index{}, nil, err
	}
	x.Nodes = nodes
	x.Mtimes = mtimesOf(tree, items)
	return x, skipped, nil
}

// build makes the DAG of all items and returns its root and its nodes.
func build(items []item, cids []chunk.CID) (chunk.CID, map[chunk.CID][]byte, error) {
	blocks := map[chunk.CID][]byte{}
	children := map[int][]chunk.Child{} // by index of the folder
	keep := func(nodes []chunk.Block) {
		for _, n := range nodes {
			blocks[n.CID] = n.Data
		}
	}
	var root chunk.Child
	// Folders come before their contents in items, so backwards every folder is
	// met when its contents are known.
	for i := len(items) - 1; i >= 0; i-- {
		it := &items[i]
		var c chunk.Child
		switch it.kind {
		case chunk.File:
			var nodes []chunk.Block
			c, nodes = chunk.FileDAG(cids[it.first:it.first+leavesOf(it.size)], it.size)
			keep(nodes)
		case chunk.Symlink:
			var node chunk.Block
			c, node = chunk.SymlinkDAG(it.target)
			keep([]chunk.Block{node})
		case chunk.Dir:
			d, nodes, err := chunk.DirDAG(children[i])
			if err != nil {
				return chunk.CID{}, nil, fmt.Errorf("%s: %w", it.rel, err)
			}
			delete(children, i)
			c = d
			keep(nodes)
		}
		if i == 0 {
			root = c
			break
		}
		c.Name = baseName(it.rel)
		children[it.parent] = append(children[it.parent], c)
	}
	return root.CID, blocks, nil
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

// mtimesOf gives the files' times in the tree's order, which is not the file system's.
func mtimesOf(tree *chunk.Tree, items []item) []int64 {
	byPath := make(map[string]int64, len(items))
	for _, it := range items {
		byPath[it.rel] = it.mtime
	}
	out := make([]int64, 0, tree.Files)
	for i := range tree.Entries {
		if tree.Entries[i].Kind == chunk.File {
			out = append(out, byPath[tree.Entries[i].Path])
		}
	}
	return out
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
