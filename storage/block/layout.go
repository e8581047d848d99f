package block

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shoal-os/shoal/storage/chunk"
)

// layOut makes the partial file or folder with all its folders, so that
// writers need only create files. A partial that lies there already is taken
// over if it can be one of this tree: a crash, or a lost record, left it. found
// says so; what is in it is claimed and has to be read again.
func (r *Root) layOut(tree *chunk.Tree) (found bool, err error) {
	partial := r.meta.Path + PartialSuffix
	if err := os.MkdirAll(filepath.Dir(partial), 0o777); err != nil {
		return false, fmt.Errorf("block: make destination: %w", err)
	}
	old, err := os.Lstat(partial)
	switch {
	case err == nil && (old.IsDir() != (tree.Entries[0].Kind == chunk.Dir) || !old.IsDir() && !old.Mode().IsRegular()):
		return false, notOurs(partial)
	case err == nil && !old.IsDir():
		r.claim(tree, 0, old.Size())
		return true, nil
	case err == nil:
		return true, r.takeOver(tree, partial)
	case tree.Entries[0].Kind == chunk.Dir:
		err = makeFolders(tree, partial)
	default:
		err = makeFile(partial)
	}
	if err != nil {
		err = fmt.Errorf("block: make destination: %w", errors.Join(err, os.RemoveAll(partial)))
	}
	return false, err
}

func notOurs(path string) error {
	return fmt.Errorf("block: %s: %w and belongs to another download: remove it, or choose another destination", path, ErrExists)
}

func makeFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	return f.Close()
}

// makeFolders makes the partial folder and those in it.
func makeFolders(tree *chunk.Tree, partial string) error {
	if err := os.Mkdir(partial, 0o777); err != nil {
		return err
	}
	at, err := os.OpenRoot(partial)
	if err != nil {
		return err
	}
	defer at.Close()
	if err := refuseCaseClash(at, tree); err != nil {
		return err
	}
	for i := range tree.Entries {
		if e := &tree.Entries[i]; e.Kind == chunk.Dir && e.Path != "" {
			if err := at.Mkdir(filepath.FromSlash(e.Path), 0o777); err != nil {
				return err
			}
		}
	}
	return nil
}

// claim marks, in memory, the leaves of an entry whose file has got bytes.
func (r *Root) claim(tree *chunk.Tree, entry int, got int64) {
	e := &tree.Entries[entry]
	for i := e.First; i < e.First+e.Count; i++ {
		if l := &tree.Leaves[i]; l.Size >= 0 && l.Offset+int64(l.Size) <= got {
			r.have.Set(i)
		}
	}
}

// takeOver claims what lies in a partial folder that no record tells of. It
// refuses one that holds anything that the tree does not, since that would end
// up among the finished files.
func (r *Root) takeOver(tree *chunk.Tree, partial string) error {
	at, err := os.OpenRoot(partial)
	if err != nil {
		return fmt.Errorf("block: open partial: %w", err)
	}
	defer at.Close()
	byPath := make(map[string]int, len(tree.Entries))
	for i := range tree.Entries {
		byPath[tree.Entries[i].Path] = i
	}
	err = fs.WalkDir(at.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		i, ok := byPath[path]
		if !ok || d.Type() != modeOf(tree.Entries[i].Kind) {
			return notOurs(partial)
		}
		delete(byPath, path)
		if d.Type().IsRegular() {
			fi, err := d.Info()
			if err != nil {
				return err
			}
			r.claim(tree, i, fi.Size())
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range tree.Entries { // in order: a folder comes before what is in it
		e := &tree.Entries[i]
		if _, missing := byPath[e.Path]; missing && e.Kind == chunk.Dir && e.Path != "" {
			if err := at.Mkdir(filepath.FromSlash(e.Path), 0o777); err != nil {
				return fmt.Errorf("block: make folder: %w", err)
			}
		}
	}
	return nil
}

func modeOf(k chunk.Kind) fs.FileMode {
	switch k {
	case chunk.Dir:
		return fs.ModeDir
	case chunk.Symlink:
		return fs.ModeSymlink
	}
	return 0
}

// refuseCaseClash fails when the file system at dir folds case and the tree
// holds two names that would become one.
func refuseCaseClash(dir *os.Root, tree *chunk.Tree) error {
	const probe = ".shoal-Case"
	if err := dir.Mkdir(probe, 0o700); err != nil {
		return fmt.Errorf("block: make destination: %w", err)
	}
	_, err := dir.Lstat(".SHOAL-cASE")
	if rmErr := dir.Remove(probe); rmErr != nil {
		return fmt.Errorf("block: make destination: %w", rmErr)
	}
	if err != nil {
		return nil
	}
	if a, b, clash := caseClash(tree); clash {
		return fmt.Errorf("block: %q and %q differ only in case, which this disk cannot hold: choose another destination", a, b)
	}
	return nil
}
