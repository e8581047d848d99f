package block

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shoal-os/shoal/storage/chunk"
)

// where is the path of the root's files. The caller holds mu.
func (r *Root) where() string {
	if r.meta.State == Partial && !r.meta.Placed {
		return r.meta.Path + PartialSuffix
	}
	return r.meta.Path
}

// settlePlace brings a record in line with what a crash in Place or Unplace left.
func (r *Root) settlePlace() {
	if !r.meta.Placed {
		return
	}
	if _, err := os.Lstat(r.meta.Path); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	if _, err := os.Lstat(r.meta.Path + PartialSuffix); err == nil {
		r.meta.Placed, r.mtimes = false, nil
	}
}

// Place puts what is complete of a partial folder under the folder's own name.
// The root stays Partial: it serves what it has, and Unplace lets it go on. Of
// what has no leaves (empty files, links, folders) only what keep chooses is made
// or left, by index of the tree's entries; a file that is not complete is
// removed. replace is as in Finish.
func (r *Root) Place(keep func(entry int) bool, replace bool) error {
	tree, err := r.Tree()
	if err != nil {
		return err
	}
	at, err := r.openPlace(tree)
	if err != nil {
		return fmt.Errorf("block: place: %w", err)
	}
	gone, err := r.prune(tree, at, keep)
	if err == nil {
		err = r.Unmark(gone...)
	}
	var mtimes []int64
	if err == nil {
		mtimes, err = readMtimes(tree, at, func(e *chunk.Entry) bool { return e.Count > 0 && r.complete1(e) })
	}
	_ = at.dir.Close()
	if err != nil {
		return fmt.Errorf("block: place: %w", err)
	}
	r.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.meta.Placed, r.mtimes = true, mtimes
	err = errors.Join(r.writeMtimes(), r.writeMeta())
	if err == nil {
		err = moveInto(r.meta.Path+PartialSuffix, r.meta.Path, replace)
	}
	if err != nil {
		r.meta.Placed, r.mtimes = false, nil
		return errors.Join(err, r.writeMeta())
	}
	r.changed()
	return nil
}

// prune makes what keep chooses and has no leaves, and removes what is not to
// be in the finished folder. gone are the leaves that went with it.
func (r *Root) prune(tree *chunk.Tree, at place, keep func(int) bool) (gone []int, err error) {
	for i := range tree.Entries {
		e := &tree.Entries[i]
		name := at.name(e)
		switch {
		case e.Kind == chunk.Dir:
			continue
		case e.Kind == chunk.Symlink && keep(i):
			err = placeLink(at.dir, name, e.Target)
		case e.Kind == chunk.File && e.Count == 0 && keep(i):
			var f *os.File
			f, err = at.dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
			err = errors.Join(err, closeIf(f))
		case e.Count == 0 || !r.complete1(e):
			for k := e.First; k < e.First+e.Count; k++ {
				gone = append(gone, k)
			}
			if err = at.dir.Remove(name); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	for i := len(tree.Entries) - 1; i > 0; i-- {
		if e := &tree.Entries[i]; e.Kind == chunk.Dir && !keep(i) {
			_ = at.dir.Remove(at.name(e)) // unless there is something in it
		}
	}
	return gone, nil
}

// complete1 reports that all leaves of a file are here.
func (r *Root) complete1(e *chunk.Entry) bool {
	for i := e.First; i < e.First+e.Count; i++ {
		if !r.Has(i) {
			return false
		}
	}
	return true
}

// Unplace undoes Place, so that more can be fetched. A file that was changed, or
// put where one is still to be fetched, is refused with ErrExists, unless replace
// is true: then it is overwritten.
func (r *Root) Unplace(replace bool) error {
	tree, err := r.Tree()
	if err != nil {
		return err
	}
	again, err := r.placedChanges(tree, replace)
	if err != nil {
		return fmt.Errorf("block: go on: %w", err)
	}
	r.close()
	r.mu.Lock()
	err = moveInto(r.meta.Path, r.meta.Path+PartialSuffix, false)
	if err == nil {
		r.meta.Placed, r.mtimes = false, nil
		err = r.writeMeta()
	}
	r.mu.Unlock()
	if err != nil {
		return fmt.Errorf("block: go on: %w", err)
	}
	if err := r.Unmark(again...); err != nil {
		return err
	}
	return r.remakeFolders(tree)
}

// placedChanges finds the leaves of files that are not as they were placed.
func (r *Root) placedChanges(tree *chunk.Tree, replace bool) (again []int, err error) {
	at, err := r.openPlace(tree)
	if err != nil {
		return nil, err
	}
	defer at.dir.Close()
	n := 0
	for i := range tree.Entries {
		e := &tree.Entries[i]
		if e.Kind != chunk.File {
			continue
		}
		want := r.mtimes[n]
		n++
		fi, err := at.dir.Lstat(at.name(e))
		same := err == nil && fi.Mode().IsRegular() && fi.Size() == e.Size && fi.ModTime().UnixNano() == want
		if same || want == 0 && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && !replace {
			return nil, fmt.Errorf("%s: %w and is not what was fetched", filepath.Join(r.meta.Path, at.name(e)), ErrExists)
		}
		for k := e.First; k < e.First+e.Count; k++ {
			again = append(again, k)
		}
	}
	return again, nil
}

// remakeFolders makes the folders that Place removed.
func (r *Root) remakeFolders(tree *chunk.Tree) error {
	at, err := r.openPlace(tree)
	if err != nil {
		return fmt.Errorf("block: go on: %w", err)
	}
	defer at.dir.Close()
	for i := 1; i < len(tree.Entries); i++ {
		e := &tree.Entries[i]
		if e.Kind != chunk.Dir {
			continue
		}
		if err := at.dir.Mkdir(at.name(e), 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("block: make folder: %w", err)
		}
	}
	return nil
}

// loose reports that files are still being written: their times say nothing.
func (r *Root) loose() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.meta.State == Partial && !r.meta.Placed
}
