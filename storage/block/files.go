package block

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/shoal-os/shoal/storage/chunk"
)

// place is where a root's files lie: a folder that no path escapes, and the
// name in it when the root is a single file.
type place struct {
	dir    *os.Root
	single string // "" when the root is a folder
}

// openPlace opens the folder that holds the tree's files. partial says to look
// under the unfinished name.
func (r *Root) openPlace(tree *chunk.Tree) (place, error) {
	r.mu.Lock() // until it is open: Finish moves it
	defer r.mu.Unlock()
	path := r.where()
	if tree.Entries[0].Kind == chunk.Dir {
		d, err := os.OpenRoot(path)
		return place{dir: d}, err
	}
	d, err := os.OpenRoot(filepath.Dir(path))
	return place{dir: d, single: filepath.Base(path)}, err
}

// name is the path inside dir of an entry.
func (p place) name(e *chunk.Entry) string {
	if p.single != "" {
		return p.single
	}
	if e.Path == "" {
		return "."
	}
	return filepath.FromSlash(e.Path)
}

// fileOrdinals maps an entry's index to its number among the tree's files.
func fileOrdinals(tree *chunk.Tree) []int32 {
	out, n := make([]int32, len(tree.Entries)), int32(0)
	for i := range tree.Entries {
		out[i] = n
		if tree.Entries[i].Kind == chunk.File {
			n++
		}
	}
	return out
}

// Reader reads leaves of one root. It keeps the file it last read from open,
// since leaves are mostly asked for in runs. It is for one goroutine.
type Reader struct {
	r        *Root
	tree     *chunk.Tree
	at       place
	ordinals []int32
	entry    int32
	file     *os.File
	partial  bool // opened when the root was partial: there are no times to compare
}

// NewReader opens the root for reading; Close it.
func (r *Root) NewReader() (*Reader, error) {
	tree, err := r.Tree()
	if err != nil {
		return nil, err
	}
	return &Reader{r: r, tree: tree, ordinals: fileOrdinals(tree), entry: -1}, nil
}

// Tree is the root's tree.
func (x *Reader) Tree() *chunk.Tree { return x.tree }

// ReadLeaf appends leaf i to buf. It fails with ErrNotFound for a leaf that is
// not here and with ErrChanged when the file's size or modification time is
// not what it was when the leaf was verified. The bytes are not hashed: the
// receiver does that.
func (x *Reader) ReadLeaf(i int, buf []byte) ([]byte, error) {
	leaf, err := x.locate(i)
	if err != nil {
		return buf, err
	}
	start := len(buf)
	buf = grow(buf, int(leaf.Size))
	if _, err := x.file.ReadAt(buf[start:], leaf.Offset); err != nil {
		return buf[:start], x.changed(leaf.Entry, err)
	}
	// Compared after the read, so that a write during it is noticed too.
	if err := x.unchanged(leaf.Entry); err != nil {
		return buf[:start], err
	}
	return buf, nil
}

// locate opens the file of leaf i, if that is here.
func (x *Reader) locate(i int) (*chunk.Leaf, error) {
	if !x.r.Has(i) || x.tree.Leaves[i].Size < 0 {
		return nil, fmt.Errorf("block: leaf %d: %w", i, ErrNotFound)
	}
	leaf := &x.tree.Leaves[i]
	return leaf, x.open(leaf.Entry)
}

// Section is where the bytes of a leaf lie, until its Reader reads anything else.
type Section struct {
	x            *Reader
	entry        int32
	Offset, Size int64 // in its file, in bytes
}

// Section finds leaf i, for CopyTo. Its errors are those of ReadLeaf.
func (x *Reader) Section(i int) (Section, error) {
	leaf, err := x.locate(i)
	if err == nil && leaf.Size == 0 {
		err = fmt.Errorf("block: leaf %d has no bytes: %w", i, ErrNotFound)
	}
	if err != nil {
		return Section{}, err
	}
	return Section{x, leaf.Entry, leaf.Offset, int64(leaf.Size)}, x.unchanged(leaf.Entry)
}

// CopyTo has w read the leaf from its file, which a TCP connection does without the bytes coming by this process. The last byte
// is written when it is known that the file has not changed meanwhile; an error before may leave w with some of the leaf.
func (s Section) CopyTo(w interface {
	io.Writer
	io.ReaderFrom
}) error {
	f := s.x.file
	if _, err := f.Seek(s.Offset, io.SeekStart); err != nil {
		return s.x.changed(s.entry, err)
	}
	n, err := w.ReadFrom(io.LimitReader(f, s.Size-1))
	if err != nil {
		return fmt.Errorf("block: copy a leaf: %w", err)
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], s.Offset+s.Size-1); err != nil || n < s.Size-1 {
		return s.x.changed(s.entry, errors.Join(err, io.EOF))
	}
	if err := s.x.unchanged(s.entry); err != nil {
		return err
	}
	_, err = w.Write(last[:])
	return err
}

func grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b[:len(b)+n]
	}
	return append(b, make([]byte, n)...)
}

func (x *Reader) open(entry int32) error {
	if !x.finished() && x.entry == entry && x.file != nil {
		return nil
	}
	x.shut()
	if x.at.dir == nil {
		x.partial = x.r.loose()
		at, err := x.r.openPlace(x.tree)
		if err != nil {
			return x.changed(entry, err)
		}
		x.at = at
	}
	name := x.at.name(&x.tree.Entries[entry])
	// A fifo put in a file's place would block the open for ever.
	if fi, err := x.at.dir.Lstat(name); err != nil || !fi.Mode().IsRegular() {
		return x.changed(entry, err)
	}
	f, err := x.at.dir.Open(name)
	if err != nil {
		return x.changed(entry, err)
	}
	x.file, x.entry = f, entry
	return nil
}

// finished reports that a partial was renamed into place under this reader,
// whose folder or file name is therefore stale.
func (x *Reader) finished() bool {
	if x.at.dir == nil || x.partial == x.r.loose() {
		return false
	}
	x.shut()
	_ = x.at.dir.Close()
	x.at = place{}
	return true
}

func (x *Reader) unchanged(entry int32) error {
	if x.partial {
		return nil
	}
	fi, err := x.file.Stat()
	if err != nil {
		return x.changed(entry, err)
	}
	x.r.mu.Lock()
	ok := x.r.source != nil || x.r.mtimes != nil && fi.ModTime().UnixNano() == x.r.mtimes[x.ordinals[entry]]
	x.r.mu.Unlock()
	if !ok || fi.Size() != x.tree.Entries[entry].Size {
		return x.changed(entry, nil)
	}
	return nil
}

// changed notes on the root that a file is not what was shared.
func (x *Reader) changed(entry int32, cause error) error {
	name := x.tree.Entries[entry].Path
	if name == "" {
		name = filepath.Base(x.r.Info().Path)
	}
	switch {
	case errors.Is(cause, os.ErrNotExist):
		x.r.Problem(name + " is missing")
	case cause != nil && !errors.Is(cause, io.EOF):
		x.r.Problem(name + " cannot be read")
	default:
		x.r.Problem(name + " changed since it was shared")
	}
	if cause == nil {
		return fmt.Errorf("block: %s: %w", name, ErrChanged)
	}
	return fmt.Errorf("block: %s: %w: %w", name, ErrChanged, cause)
}

func (x *Reader) shut() {
	if x.file != nil {
		_ = x.file.Close()
		x.file, x.entry = nil, -1
	}
}

// Close releases the open files.
func (x *Reader) Close() {
	x.shut()
	if x.at.dir != nil {
		_ = x.at.dir.Close()
	}
}

// Check compares every file's size and modification time with what they were
// when shared and returns the paths that differ, at most max, noting the first
// as the root's problem. A root without problem is noted as such. Partials are
// not checked.
func (r *Root) Check(max int) ([]string, error) {
	if r.loose() {
		return nil, nil
	}
	tree, err := r.Tree()
	if err != nil {
		return nil, err
	}
	at, err := r.openPlace(tree)
	if err != nil {
		r.Problem(filepath.Base(r.Info().Path) + " is missing")
		return []string{r.Info().Path}, nil
	}
	defer at.dir.Close()
	r.mu.Lock()
	mtimes, kept := r.mtimes, r.source != nil
	r.mu.Unlock()
	if kept {
		return nil, nil // times say nothing about it
	}
	var bad []string
	n := 0
	for i := range tree.Entries {
		e := &tree.Entries[i]
		if e.Kind != chunk.File {
			continue
		}
		want := mtimes[n]
		n++
		if want == 0 && r.Info().Placed {
			continue // it was not chosen
		}
		fi, err := at.dir.Lstat(at.name(e))
		if err == nil && fi.Mode().IsRegular() && fi.Size() == e.Size && fi.ModTime().UnixNano() == want {
			continue
		}
		if len(bad) < max {
			bad = append(bad, at.name(e))
		}
	}
	switch {
	case len(bad) == 0 && r.Suspect(): // times say nothing about its bytes
	case len(bad) == 0:
		r.Problem("")
	case at.single == "" && len(bad) > 1:
		r.Problem(fmt.Sprintf("%s and other files changed since they were shared", bad[0]))
	default:
		r.Problem(bad[0] + " changed since it was shared")
	}
	return bad, nil
}
