package storage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
	"github.com/shoal-os/shoal/storage/chunk/car"
)

// Scope is how much of what lies at a path goes into a CAR file, as dag-scope of
// the trustless gateway specification means it.
type Scope uint8

// The scopes.
const (
	ScopeAll    Scope = iota // it and everything below
	ScopeEntity              // what is needed to read a file, or to list a folder
	ScopeBlock               // its first block
)

// CarOptions chooses what WriteCAR writes. The zero value is all of the root.
type CarOptions struct {
	Path  string // inside the root; the blocks on the way are written, too
	Scope Scope
	// Bytes limits ScopeEntity to the blocks of a file that hold some of its bytes
	// From to To, both included. nil for all.
	Bytes *ByteRange
	Dups  bool // write a block again each time it occurs
}

// ByteRange is a range of a file, both ends included. Negative ends count from
// the file's end; ToEnd stands for its last byte.
type ByteRange struct {
	From, To int64
	ToEnd    bool
}

// within gives the range inside a file of a size, and whether any byte is left.
func (r *ByteRange) within(size int64) (from, to int64, ok bool) {
	from, to = r.From, r.To
	if from < 0 {
		from += size
	}
	if to < 0 {
		to += size
	}
	if r.ToEnd || to >= size {
		to = size - 1
	}
	from = max(from, 0)
	return from, to, from <= to
}

// Steps gives the names that a path goes through: the root, then one for each of
// its elements. It fails with ErrNoEntry.
func (c *Content) Steps(path string) ([]chunk.CID, error) {
	_, steps, err := chunk.Resolve(c.Root(), path, c.Node)
	return steps, noEntry(err)
}

func noEntry(err error) error {
	if errors.Is(err, chunk.ErrNoEntry) {
		return fmt.Errorf("storage: %w: %w", ErrNoEntry, err)
	}
	return err
}

// WriteCAR writes a CARv1 file of the content, depth first, fetching what is not
// here as it goes; the same content and options always give the same bytes. Its
// header names the content's root.
func (c *Content) WriteCAR(ctx context.Context, w io.Writer, opt CarOptions) error {
	trail, _, err := chunk.Resolve(c.Root(), opt.Path, c.Node)
	if err != nil {
		return noEntry(err)
	}
	at, err := c.Find(opt.Path)
	if err != nil {
		return err
	}
	x := &exporter{c: c, opt: opt, w: bufio.NewWriterSize(w, 64<<10), seen: map[chunk.CID]bool{}, leaves: c.newLeaves(ctx)}
	defer x.leaves.Close()
	x.span(at)
	x.put(car.AppendHeader(nil, c.Root()))
	last := len(trail) - 1
	for _, id := range trail[:last] {
		if _, err := x.node(id); err != nil {
			return err
		}
	}
	if err := x.entry(trail[last], at); err != nil {
		return err
	}
	if x.err == nil {
		x.err = x.w.Flush()
	}
	return x.err
}

// exporter writes one CAR file.
type exporter struct {
	c      *Content
	opt    CarOptions
	w      *bufio.Writer
	err    error // of w, the first
	head   []byte
	leaves *leaves
	end    int // leaves from here on are not written

	seen  map[chunk.CID]bool // nodes, and the empty leaf, unless opt.Dups
	first *bitfield.Bitfield // leaves that did not occur before; nil with opt.Dups
}

// span finds the leaves that will be read and, among equal ones, the first.
func (x *exporter) span(at int) {
	tree := x.c.tree
	e := &tree.Entries[at]
	low, high := e.First, e.First+e.Count
	if e.Kind == chunk.Dir {
		high = len(tree.Leaves)
		if _, end := x.c.below(at); end < len(tree.Entries) {
			high = tree.Entries[end].First
		}
	}
	if x.opt.Bytes != nil && e.Kind == chunk.File && e.Count > 0 {
		if from, to, ok := x.opt.Bytes.within(e.Size); ok {
			low, high = leafAt(tree, e, from), leafAt(tree, e, to)+1
		}
	}
	x.end = high
	if x.opt.Dups || x.opt.Scope == ScopeBlock {
		return
	}
	order := make([]int32, 0, high-low)
	for i := low; i < high; i++ {
		order = append(order, int32(i))
	}
	slices.SortFunc(order, func(a, b int32) int {
		if k := tree.Leaves[a].CID.Compare(tree.Leaves[b].CID); k != 0 {
			return k
		}
		return int(a - b)
	})
	x.first = bitfield.New(len(tree.Leaves))
	for k, i := range order {
		if k == 0 || tree.Leaves[order[k-1]].CID != tree.Leaves[i].CID {
			x.first.Set(int(i))
		}
	}
}

func (x *exporter) put(b []byte) {
	if x.err == nil {
		_, x.err = x.w.Write(b)
	}
}

func (x *exporter) block(id chunk.CID, data []byte) {
	x.head = car.AppendBlock(x.head[:0], id, len(data))
	x.put(x.head)
	x.put(data)
}

// fresh reports whether a block is to be written, and takes note of it.
func (x *exporter) fresh(id chunk.CID) bool {
	if x.opt.Dups {
		return true
	}
	if x.seen[id] {
		return false
	}
	x.seen[id] = true
	return true
}

// node writes a non-leaf block unless it was before, and decodes it.
func (x *exporter) node(id chunk.CID) (chunk.Node, error) {
	data, err := x.c.Node(id)
	if err != nil {
		return chunk.Node{}, err
	}
	if x.fresh(id) {
		x.block(id, data)
	}
	n, err := chunk.DecodeNode(data)
	return n, errors.Join(err, x.err)
}

// leaf writes leaf i unless an equal one was before.
func (x *exporter) leaf(i int) error {
	if x.first != nil && !x.first.Has(i) {
		return nil
	}
	data, err := x.leaves.read(i, x.end)
	if err != nil {
		return err
	}
	x.block(x.c.tree.Leaves[i].CID, data)
	return x.err
}

// entry writes what is named id and lies at index at of the tree's entries.
func (x *exporter) entry(id chunk.CID, at int) error {
	e := &x.c.tree.Entries[at]
	switch {
	case id.IsRaw() && e.Count == 0:
		if x.fresh(id) {
			x.block(id, nil)
		}
		return x.err
	case id.IsRaw():
		x.first = nil // of a path that ends in a leaf there is one block
		return x.leaf(e.First)
	case e.Kind == chunk.File:
		return x.file(id, e)
	case e.Kind == chunk.Symlink:
		_, err := x.node(id)
		return err
	}
	_, err := x.folder(id, at+1)
	return err
}

// file writes the blocks of a file of several, in order.
func (x *exporter) file(id chunk.CID, e *chunk.Entry) error {
	from, to := int64(0), e.Size-1
	ok := x.opt.Scope != ScopeBlock
	if x.opt.Bytes != nil && ok {
		from, to, ok = x.opt.Bytes.within(e.Size)
	}
	if !ok {
		_, err := x.node(id)
		return err
	}
	return x.part(id, e, 0, from, to)
}

// part writes the node id, whose bytes begin at an offset of the file, and what
// is below it of the bytes from to to.
func (x *exporter) part(id chunk.CID, e *chunk.Entry, offset, from, to int64) error {
	n, err := x.node(id)
	if err != nil {
		return err
	}
	for _, edge := range n.Edges {
		begin := offset
		offset += edge.Size
		switch {
		case offset <= from:
		case begin > to:
			return nil
		case edge.CID.IsRaw():
			err = x.leaf(leafAt(x.c.tree, e, begin))
		default:
			err = x.part(edge.CID, e, begin, from, to)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// folder writes a folder's block, or one shard of it, and what it holds as far as
// the scope asks. next is the index of its first entry; it returns that of the
// first entry behind.
func (x *exporter) folder(id chunk.CID, next int) (int, error) {
	n, err := x.node(id)
	if err != nil || x.opt.Scope == ScopeBlock {
		return next, err
	}
	for _, edge := range n.Edges {
		if edge.Name == "" { // a shard below
			if next, err = x.folder(edge.CID, next); err != nil {
				return next, err
			}
			continue
		}
		_, end := x.c.below(next)
		if x.opt.Scope == ScopeAll {
			if err := x.inside(edge.CID, next); err != nil {
				return next, err
			}
		}
		next = end
	}
	return next, nil
}

// inside is entry for what lies in a folder: leaves keep their order there.
func (x *exporter) inside(id chunk.CID, at int) error {
	if e := &x.c.tree.Entries[at]; id.IsRaw() && e.Count > 0 {
		return x.leaf(e.First)
	}
	return x.entry(id, at)
}

// Block returns one block of the content by its name, verified, fetching it if it
// is a leaf that is not here. Of a name that it does not have it says
// block.ErrNotFound.
func (c *Content) Block(ctx context.Context, id chunk.CID) ([]byte, error) {
	if !id.IsRaw() {
		return c.Node(id)
	}
	if id == chunk.SumRaw(nil) {
		return nil, nil
	}
	for i := range c.tree.Leaves {
		if c.tree.Leaves[i].CID != id {
			continue
		}
		l := c.newLeaves(ctx)
		defer l.Close()
		data, err := l.read(i, i+1)
		return slices.Clone(data), err
	}
	return nil, fmt.Errorf("storage: %s: %w", id, block.ErrNotFound)
}
