package block

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"weak"

	"github.com/shoal-os/shoal/storage/chunk"
)

// ErrExists reports a destination that is taken.
var ErrExists = errors.New("already exists")

// Writer writes verified leaves of one partial root. It keeps the file it last
// wrote to open. It is for one goroutine; several writers may work on the same
// root at once, on the same file too.
type Writer struct {
	r     *Root
	tree  *chunk.Tree
	at    place
	entry int32
	file  *os.File
}

// NewWriter opens a partial for writing; Close it before Finish.
func (r *Root) NewWriter() (*Writer, error) {
	tree, err := r.Tree()
	if err != nil {
		return nil, err
	}
	at, err := r.openPlace(tree)
	if err != nil {
		return nil, fmt.Errorf("block: open partial: %w", err)
	}
	return &Writer{r: r, tree: tree, at: at, entry: -1}, nil
}

// WriteLeaf writes the verified bytes of leaf i in their place. It does not
// mark the leaf: Mark does, once for a batch.
func (w *Writer) WriteLeaf(i int, data []byte) error {
	leaf := &w.tree.Leaves[i]
	e := &w.tree.Entries[leaf.Entry]
	if e.Count == 1 {
		return w.writeWhole(e, data)
	}
	if w.entry != leaf.Entry {
		w.shut()
		f, err := w.at.dir.OpenFile(w.at.name(e), os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			return fmt.Errorf("block: write %s: %w", e.Path, err)
		}
		w.file, w.entry = f, leaf.Entry
		if fi, err := f.Stat(); err != nil || fi.Size() != e.Size {
			if err := errors.Join(err, f.Truncate(e.Size)); err != nil {
				return fmt.Errorf("block: write %s: %w", e.Path, err)
			}
		}
	}
	if allZero(data) && w.hole(leaf.Offset, len(data)) {
		return nil
	}
	if _, err := w.file.WriteAt(data, leaf.Offset); err != nil {
		return fmt.Errorf("block: write %s: %w", e.Path, err)
	}
	return nil
}

// writeWhole writes a file of one leaf and closes it, since folders of small
// files would otherwise exhaust descriptors.
func (w *Writer) writeWhole(e *chunk.Entry, data []byte) error {
	f, err := w.at.dir.OpenFile(w.at.name(e), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return fmt.Errorf("block: write %s: %w", e.Path, err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("block: write %s: %w", e.Path, err)
	}
	return nil
}

// hole reports whether the file already reads as zeros there, so that sparse
// files stay sparse. A fresh file does; one that a retry wrote to may not.
func (w *Writer) hole(offset int64, n int) bool {
	buf := make([]byte, 64<<10)
	for n > 0 {
		k := min(n, len(buf))
		if _, err := w.file.ReadAt(buf[:k], offset); err != nil || !allZero(buf[:k]) {
			return false
		}
		offset, n = offset+int64(k), n-k
	}
	return true
}

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if b[0]|b[1]|b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
			return false
		}
		b = b[8:]
	}
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

func (w *Writer) shut() {
	if w.file != nil {
		_ = w.file.Close()
		w.file, w.entry = nil, -1
	}
}

// Close releases the open files.
func (w *Writer) Close() {
	w.shut()
	_ = w.at.dir.Close()
}

// SetSize records a raw root's size once its leaf has arrived and is verified,
// before the leaf is marked: a leaf of unknown size could not be read back.
// Trees handed out before keep saying that it is unknown.
func (r *Root) SetSize(size int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.meta.Size >= 0 {
		return nil
	}
	r.meta.Size = size
	r.tree = weak.Pointer[chunk.Tree]{}
	if err := r.writeMeta(); err != nil {
		return fmt.Errorf("block: record of %s: %w", r.meta.Root, err)
	}
	return nil
}

// Finish turns a partial whose leaves are all written into the finished file
// or folder: empty files and symbolic links are made, everything moves under
// its own name, and the record says Complete. If the name is taken, Finish
// fails with ErrExists unless replace is true; then what stood there goes only
// after the new one is whole.
func (r *Root) Finish(replace bool) error {
	tree, err := r.Tree()
	if err != nil {
		return err
	}
	if got := r.HaveCount(); got != r.leaves {
		return fmt.Errorf("block: finish %s: only %d of %d leaves", r.CID(), got, r.leaves)
	}
	at, err := r.openPlace(tree)
	if err != nil {
		return fmt.Errorf("block: finish: %w", err)
	}
	mtimes, err := r.complete(tree, at)
	_ = at.dir.Close()
	if err != nil {
		return err
	}
	r.close()
	r.mu.Lock() // over the move too: a reader must not look for the partial after it
	defer r.mu.Unlock()
	if err := moveInto(r.meta.Path+PartialSuffix, r.meta.Path, replace); err != nil {
		return err
	}
	r.meta.State, r.meta.Boot = Complete, bootID()
	r.mtimes, r.have = mtimes, nil
	defer r.changed()
	if err := r.writeMtimes(); err != nil {
		return fmt.Errorf("block: finish: %w", err)
	}
	if err := r.writeMeta(); err != nil {
		return fmt.Errorf("block: finish: %w", err)
	}
	if !r.detached {
		_ = os.Remove(filepath.Join(r.dir, haveFile))
	}
	return nil
}

// complete makes what has no leaves, cuts off what a retry or a salvage left
// beyond a file's end, and collects the files' times.
func (r *Root) complete(tree *chunk.Tree, at place) ([]int64, error) {
	for i := range tree.Entries {
		e := &tree.Entries[i]
		name := at.name(e)
		switch {
		case e.Kind == chunk.Symlink:
			// Made last, and never followed: nothing is written after this.
			if err := placeLink(at.dir, name, e.Target); err != nil {
				return nil, fmt.Errorf("block: link %s: %w", e.Path, err)
			}
		case e.Kind == chunk.File && e.Count == 0:
			f, err := at.dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
			if err := errors.Join(err, closeIf(f)); err != nil {
				return nil, fmt.Errorf("block: write %s: %w", e.Path, err)
			}
		case e.Kind == chunk.File:
			if err := cutOff(at.dir, name, e.Size); err != nil {
				return nil, fmt.Errorf("block: write %s: %w", e.Path, err)
			}
		}
	}
	mtimes, err := readMtimes(tree, at, everyFile)
	if err != nil {
		return nil, fmt.Errorf("block: finish: %w", err)
	}
	return mtimes, nil
}

// cutOff shortens a file that is longer than size; others it leaves alone.
func cutOff(at *os.Root, name string, size int64) error {
	fi, err := at.Lstat(name)
	if err != nil || !fi.Mode().IsRegular() || fi.Size() <= size {
		return nil // readMtimes says what is wrong
	}
	f, err := at.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// readMtimes collects the files' modification times in walk order, making sure that each is a file of the right length;
// ErrChanged if not. A file that is not there is ErrChanged too if needed says so, else its time is 0.
func readMtimes(tree *chunk.Tree, at place, needed func(*chunk.Entry) bool) ([]int64, error) {
	mtimes := make([]int64, 0, tree.Files)
	for i := range tree.Entries {
		e := &tree.Entries[i]
		if e.Kind != chunk.File {
			continue
		}
		fi, err := at.dir.Lstat(at.name(e))
		switch {
		case errors.Is(err, os.ErrNotExist) && !needed(e):
			mtimes = append(mtimes, 0)
			continue
		case errors.Is(err, os.ErrNotExist):
			err = fmt.Errorf("%w: %w", ErrChanged, err)
		case err == nil && (!fi.Mode().IsRegular() || fi.Size() != e.Size):
			err = ErrChanged
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Path, err)
		}
		mtimes = append(mtimes, fi.ModTime().UnixNano())
	}
	return mtimes, nil
}

// everyFile needs all files of a finished root.
func everyFile(*chunk.Entry) bool { return true }

func closeIf(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

func placeLink(at *os.Root, name, target string) error {
	if old, err := at.Lstat(name); err == nil {
		if have, err := at.Readlink(name); err == nil && have == target {
			return nil
		}
		if old.IsDir() {
			return ErrExists
		}
		if err := at.Remove(name); err != nil {
			return err
		}
	}
	return at.Symlink(target, name)
}

// moveInto renames from to to. With replace, what stood at to is moved aside
// first and removed after, so that a crash leaves one of the two whole.
func moveInto(from, to string, replace bool) error {
	old, err := os.Lstat(to)
	if errors.Is(err, os.ErrNotExist) {
		return wrapMove(os.Rename(from, to))
	}
	if err != nil {
		return wrapMove(err)
	}
	if !replace {
		return fmt.Errorf("block: %s: %w", to, ErrExists)
	}
	if fi, err := os.Lstat(from); err == nil && !fi.IsDir() && !old.IsDir() {
		return wrapMove(os.Rename(from, to))
	}
	aside := fmt.Sprintf("%s.shoal-replaced-%d", to, time.Now().UnixNano())
	if err := os.Rename(to, aside); err != nil {
		return wrapMove(err)
	}
	if err := os.Rename(from, to); err != nil {
		return wrapMove(errors.Join(err, os.Rename(aside, to)))
	}
	return wrapMove(os.RemoveAll(aside))
}

func wrapMove(err error) error {
	if err != nil {
		return fmt.Errorf("block: put in place: %w", err)
	}
	return nil
}
