package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
)

// batchLeaves is how many leaves a hashing goroutine takes at a time: few
// enough to spread a small share over all cores, many enough to read in runs.
const batchLeaves = 8

// item is one file, folder or link found below a path.
type item struct {
	rel    string // slash-separated, "" for the path itself
	kind   chunk.Kind
	target string
	size   int64
	mtime  int64
	first  int // global number of its first leaf
	parent int // index of its folder
}

// scan lists what lies at path, folders before what is in them. What cannot be
// shared (sockets, devices, unfinished downloads) is skipped and named.
func scan(ctx context.Context, path string) (items []item, skipped []string, err error) {
	top, err := os.Lstat(path)
	if err != nil {
		return nil, nil, err
	}
	it, ok, err := describe(path, "", top)
	if err != nil || !ok {
		return nil, nil, errors.Join(err, notShareable(ok, path))
	}
	items = []item{it}
	for i := 0; i < len(items); i++ {
		if items[i].kind != chunk.Dir {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		dir := filepath.Join(path, filepath.FromSlash(items[i].rel))
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range entries {
			rel := join(items[i].rel, e.Name())
			fi, err := e.Info()
			if errors.Is(err, os.ErrNotExist) {
				continue // removed while we looked
			} else if err != nil {
				return nil, nil, err
			}
			it, ok, err := describe(filepath.Join(dir, e.Name()), rel, fi)
			if err != nil {
				return nil, nil, err
			}
			if !ok || strings.HasSuffix(e.Name(), block.PartialSuffix) {
				skipped = append(skipped, rel)
				continue
			}
			it.parent = i
			items = append(items, it)
		}
	}
	return items, skipped, nil
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

// describe makes an item of one directory entry; ok is false for what cannot be shared.
func describe(path, rel string, fi os.FileInfo) (it item, ok bool, err error) {
	it = item{rel: rel, size: fi.Size(), mtime: fi.ModTime().UnixNano()}
	if rel != "" {
		if err := chunk.CheckName(fi.Name(), "linux"); err != nil {
			return it, false, fmt.Errorf("%q cannot be shared: %w", path, err)
		}
	}
	switch {
	case fi.Mode().IsRegular():
		it.kind = chunk.File
	case fi.IsDir():
		it.kind, it.size = chunk.Dir, 0
	case fi.Mode()&os.ModeSymlink != 0:
		it.kind, it.size = chunk.Symlink, 0
		if it.target, err = os.Readlink(path); err != nil {
			return it, false, err
		}
		if err := chunk.CheckTarget(it.target); err != nil {
			return it, false, fmt.Errorf("%q cannot be shared: %w", path, err)
		}
	default:
		return it, false, nil
	}
	return it, true, nil
}

// leavesOf is how many leaves a file of this size has. An empty one has one
// leaf, of no bytes, as its CID but none to read.
func leavesOf(size int64) int { return int((size + chunk.LeafSize - 1) / chunk.LeafSize) }

// hasher hashes the leaves of many files on all cores.
type hasher struct {
	path   string
	items  []item
	files  []int // indexes of files that have leaves, in order
	cids   []chunk.CID
	next   atomic.Int64
	done   atomic.Int64 // bytes
	failed atomic.Bool
}

// hashAll returns the CID of every leaf, by global number, setting first on
// each file's item.
func hashAll(ctx context.Context, path string, items []item, progress func(done int64)) ([]chunk.CID, error) {
	h := &hasher{path: path, items: items}
	total := 0
	for i := range items {
		if items[i].kind == chunk.File {
			items[i].first = total
			if n := leavesOf(items[i].size); n > 0 {
				h.files = append(h.files, i)
				total += n
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
	buf := make([]byte, chunk.LeafSize)
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
			if err := h.leaf(f, at, leaf, buf); err != nil {
				return err
			}
		}
	}
}

// fileOf is the index into files of the file that holds a leaf.
func (h *hasher) fileOf(leaf int) int {
	return sort.Search(len(h.files), func(k int) bool { return h.items[h.files[k]].first > leaf }) - 1
}

func (h *hasher) open(k int) (*os.File, error) {
	return os.Open(filepath.Join(h.path, filepath.FromSlash(h.items[h.files[k]].rel)))
}

// finish closes a file after making sure that it did not change meanwhile.
func (h *hasher) finish(f *os.File, k int) error {
	if f == nil {
		return nil
	}
	defer f.Close()
	it := &h.items[h.files[k]]
	fi, err := f.Stat()
	if err == nil && (fi.Size() != it.size || fi.ModTime().UnixNano() != it.mtime) {
		err = ErrChanging
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return nil
}

func (h *hasher) leaf(f *os.File, k, leaf int, buf []byte) error {
	it := &h.items[h.files[k]]
	off := int64(leaf-it.first) * chunk.LeafSize
	n := min(it.size-off, chunk.LeafSize)
	if _, err := f.ReadAt(buf[:n], off); err != nil {
		if errors.Is(err, io.EOF) {
			err = ErrChanging
		}
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	h.cids[leaf] = chunk.SumRaw(buf[:n])
	h.done.Add(n)
	return nil
}
