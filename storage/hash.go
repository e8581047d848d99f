package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/pair"
)

// batchLeaves is how many leaves a hashing goroutine takes at a time: few
// enough to spread a small share over all cores, many enough to read in runs.
const batchLeaves = 8

// item is one file, folder or link found below a path. There may be very many,
// so it holds no more than that takes.
type item struct {
	name   string // in its folder; "" for the path itself
	size   int64  // of a file
	mtime  int64
	first  int32 // of a file, the global number of its first leaf; of a folder, the index of what is first in it …
	end    int32 // … and the index after what is last in it
	parent int32 // index of its folder
	kind   chunk.Kind
}

// items are what lies at a path: folders before what is in them, and that
// together, by name.
type items struct {
	all     []item
	targets map[int32]string // of links, by index
}

// itemsMax is how many items have an index, and how many leaves a number.
const itemsMax = math.MaxInt32

// scan lists what lies at path. What cannot be shared (sockets, devices,
// unfinished downloads) is skipped and named.
func scan(ctx context.Context, path string) (found items, skipped []string, err error) {
	top, err := os.Lstat(path)
	if err != nil {
		return items{}, nil, err
	}
	if ok, err := found.add(path, "", top, 0); err != nil || !ok {
		return items{}, nil, errors.Join(err, notShareable(ok, path))
	}
	for i := 0; i < len(found.all); i++ {
		if found.all[i].kind != chunk.Dir {
			continue
		}
		if err := ctx.Err(); err != nil {
			return items{}, nil, err
		}
		left, err := found.enter(path, int32(i))
		if err != nil {
			return items{}, nil, err
		}
		skipped = append(skipped, left...)
	}
	return found, skipped, nil
}

// enter adds what is in the folder with index i, and names what it left out.
func (x *items) enter(path string, i int32) (skipped []string, err error) {
	rel := x.path(i)
	dir := filepath.Join(path, filepath.FromSlash(rel))
	entries, err := os.ReadDir(dir) // by name
	if err != nil {
		return nil, err
	}
	x.all[i].first = int32(len(x.all))
	for _, e := range entries {
		fi, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // removed while we looked
		} else if err != nil {
			return nil, err
		}
		if strings.HasSuffix(e.Name(), block.PartialSuffix) {
			skipped = append(skipped, join(rel, e.Name()))
			continue
		}
		ok, err := x.add(filepath.Join(dir, e.Name()), e.Name(), fi, i)
		if err != nil {
			return nil, err
		}
		if !ok {
			skipped = append(skipped, join(rel, e.Name()))
		}
	}
	x.all[i].end = int32(len(x.all))
	return skipped, nil
}

// path is where item i lies, slash-separated and relative; "" for the path itself.
func (x *items) path(i int32) string {
	if i == 0 {
		return ""
	}
	return join(x.path(x.all[i].parent), x.all[i].name)
}

func notShareable(ok bool, path string) error {
	if ok {
		return nil
	}
	return fmt.Errorf("%s is neither a file, a folder nor a symbolic link", path)
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// add makes an item of one directory entry; ok is false for what cannot be shared.
func (x *items) add(path, name string, fi os.FileInfo, parent int32) (ok bool, err error) {
	it := item{name: name, mtime: fi.ModTime().UnixNano(), parent: parent}
	if name != "" {
		if err := chunk.CheckName(name, "linux"); err != nil {
			return false, fmt.Errorf("%q cannot be shared: %w", path, err)
		}
	}
	if len(x.all) == itemsMax {
		return false, fmt.Errorf("%q: more files than can be shared at once", path)
	}
	switch {
	case fi.Mode().IsRegular():
		it.kind, it.size = chunk.File, fi.Size()
	case fi.IsDir():
		it.kind = chunk.Dir
	case fi.Mode()&os.ModeSymlink != 0:
		it.kind = chunk.Symlink
		target, err := os.Readlink(path)
		if err != nil {
			return false, err
		}
		if err := chunk.CheckTarget(target); err != nil {
			return false, fmt.Errorf("%q cannot be shared: %w", path, err)
		}
		if x.targets == nil {
			x.targets = map[int32]string{}
		}
		x.targets[int32(len(x.all))] = target
	default:
		return false, nil
	}
	x.all = append(x.all, it)
	return true, nil
}

// leavesOf is how many leaves a file of this size has. An empty one has one
// leaf, of no bytes, as its CID but none to read.
func leavesOf(size int64) int { return int((size + chunk.LeafSize - 1) / chunk.LeafSize) }

// hasher hashes the leaves of many files on all cores.
type hasher struct {
	path   string
	items  *items
	files  []int32 // indexes of files that have leaves, in order
	cids   []chunk.CID
	next   atomic.Int64
	done   atomic.Int64 // bytes
	failed atomic.Bool
}

// hashAll returns the CID of every leaf, by global number, setting first on
// each file's item.
func hashAll(ctx context.Context, path string, found *items, progress func(done int64)) ([]chunk.CID, error) {
	h := &hasher{path: path, items: found}
	total := 0
	for i := range found.all {
		it := &found.all[i]
		if it.kind != chunk.File {
			continue
		}
		it.first = int32(total)
		if n := leavesOf(it.size); n > 0 {
			h.files = append(h.files, int32(i))
			if total += n; total > itemsMax {
				return nil, fmt.Errorf("%s: more bytes than can be shared at once", path)
			}
		}
	}
	h.cids = make([]chunk.CID, total)
	stop := every(progressPeriod, func() { progress(h.done.Load()) })
	var wg sync.WaitGroup
	errs := make([]error, runtime.GOMAXPROCS(0))
	for w := range errs {
		wg.Go(func() { errs[w] = h.work(ctx) })
	}
	wg.Wait()
	stop() // progress is called by one goroutine at a time
	progress(h.done.Load())
	return h.cids, errors.Join(errs...)
}

// work hashes batches until none is left or something fails.
func (h *hasher) work(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			h.failed.Store(true) // the others need not go on
		}
	}()
	var f *os.File
	at := -1 // index into files of the open one
	defer func() { err = errors.Join(err, h.finish(f, at)) }()
	two := twoLeaves{h: h}
	defer func() {
		if err == nil {
			two.flush()
		}
	}()
	for {
		from := int(h.next.Add(batchLeaves)) - batchLeaves
		if from >= len(h.cids) || h.failed.Load() {
			return nil
		}
		for leaf := from; leaf < min(from+batchLeaves, len(h.cids)); leaf++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			if k := h.fileOf(leaf); k != at {
				if err := h.finish(f, at); err != nil {
					f, at = nil, -1
					return err
				}
				if f, err = h.open(k); err != nil {
					at = -1
					return err
				}
				at = k
			}
			if err := h.leaf(f, at, leaf, &two); err != nil {
				return err
			}
		}
	}
}

// fileOf is the index into files of the file that holds a leaf.
func (h *hasher) fileOf(leaf int) int {
	return sort.Search(len(h.files), func(k int) bool { return int(h.items.all[h.files[k]].first) > leaf }) - 1
}

func (h *hasher) open(k int) (*os.File, error) {
	return os.Open(filepath.Join(h.path, filepath.FromSlash(h.items.path(h.files[k]))))
}

// finish closes a file after making sure that it did not change meanwhile.
func (h *hasher) finish(f *os.File, k int) error {
	if f == nil {
		return nil
	}
	defer f.Close()
	it := &h.items.all[h.files[k]]
	fi, err := f.Stat()
	if err == nil && (fi.Size() != it.size || fi.ModTime().UnixNano() != it.mtime) {
		err = ErrChanging
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return nil
}

// twoLeaves gathers leaves, to hash two at a time; see package pair.
type twoLeaves struct {
	h      *hasher
	bufs   [2][]byte
	leaves [2]int
	sizes  [2]int
	n      int
}

// next is where to read another leaf to.
func (t *twoLeaves) next() []byte {
	if t.bufs[t.n] == nil {
		t.bufs[t.n] = make([]byte, chunk.LeafSize)
	}
	return t.bufs[t.n]
}

// add takes the leaf that was read to next, of so many bytes.
func (t *twoLeaves) add(leaf, size int) {
	t.leaves[t.n], t.sizes[t.n] = leaf, size
	if t.n++; t.n < len(t.bufs) {
		return
	}
	a, b := pair.Sum256(t.bufs[0][:t.sizes[0]], t.bufs[1][:t.sizes[1]])
	t.h.cids[t.leaves[0]], t.h.cids[t.leaves[1]] = chunk.CID{Codec: chunk.Raw, Sum: a}, chunk.CID{Codec: chunk.Raw, Sum: b}
	t.n = 0
}

// flush hashes a leaf that has no second.
func (t *twoLeaves) flush() {
	if t.n > 0 {
		t.h.cids[t.leaves[0]] = chunk.SumRaw(t.bufs[0][:t.sizes[0]])
		t.n = 0
	}
}

func (h *hasher) leaf(f *os.File, k, leaf int, two *twoLeaves) error {
	it := &h.items.all[h.files[k]]
	off := int64(leaf-int(it.first)) * chunk.LeafSize
	n := min(it.size-off, chunk.LeafSize)
	if _, err := f.ReadAt(two.next()[:n], off); err != nil {
		if errors.Is(err, io.EOF) {
			err = ErrChanging
		}
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	two.add(leaf, int(n))
	h.done.Add(n)
	return nil
}
