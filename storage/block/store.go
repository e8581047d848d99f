// Package block owns what a peer holds of each root: the tree that names the
// leaves, where the leaf bytes lie among the user's own files, and which of
// them have been verified.
//
// Nothing is copied in: a shared folder is indexed in place and a fetched one
// is written straight to its destination. The package decides neither what to
// fetch nor from whom, and it never hashes on the way out: whoever receives a
// leaf verifies it against the tree. See DESIGN.md for the folder's layout.
package block

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-os/shoal/storage/chunk"
)

// PartialSuffix ends the name of a file or folder that is still being fetched.
const PartialSuffix = ".shoal-partial"

var (
	// ErrNotFound reports a root or leaf that this store does not hold.
	ErrNotFound = errors.New("not held here")
	// ErrChanged reports a file whose size or modification time is no longer
	// what it was when its bytes were verified.
	ErrChanged = errors.New("file changed since it was shared")
	// ErrDamaged reports a record of the store that cannot be read back.
	ErrDamaged = errors.New("damaged record")
)

// Store is the set of roots in one folder. It is safe for concurrent use; one
// process at a time may have a folder open (the node's lock sees to it).
type Store struct {
	dir string

	mu      sync.Mutex
	roots   map[chunk.CID]*Root
	damaged map[string]error
}

// Open reads the store in dir, making it if need be. Leftovers of a crash are
// cleaned up; a record that cannot be read is set aside under Damaged and
// never deleted, so that one bad sector does not cost the rest.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("block: open store: %w", err)
	}
	s := &Store{dir: dir, roots: map[chunk.CID]*Root{}, damaged: map[string]error{}}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("block: open store: %w", err)
	}
	for _, e := range names {
		s.load(e.Name())
	}
	return s, nil
}

// load brings in one entry of the store's folder.
func (s *Store) load(name string) {
	path := filepath.Join(s.dir, name)
	switch {
	case strings.HasPrefix(name, newPrefix):
		_ = os.RemoveAll(path) // an addition that never happened
		return
	case strings.HasPrefix(name, oldPrefix):
		// A replacement was cut short: put the old one back unless the new one stands.
		final := filepath.Join(s.dir, strings.TrimPrefix(name, oldPrefix))
		if _, err := os.Stat(final); err == nil {
			_ = os.RemoveAll(path)
			return
		}
		if err := os.Rename(path, final); err != nil {
			s.damaged[name] = err
			return
		}
		path = final
	}
	r, err := loadRoot(path)
	if err != nil {
		s.damaged[filepath.Base(path)] = err
		return
	}
	s.roots[r.meta.Root] = r
}

// Damaged returns the records that could not be read, by folder name.
func (s *Store) Damaged() map[string]error {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]error, len(s.damaged))
	for k, v := range s.damaged {
		out[k] = v
	}
	return out
}

// Root returns the record of a root, or false.
func (s *Store) Root(c chunk.CID) (*Root, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.roots[c]
	return r, ok
}

// Roots returns all records, oldest first.
func (s *Store) Roots() []*Root {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*Root, 0, len(s.roots))
	for _, r := range s.roots {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *Root) int {
		if c := a.meta.Added.Compare(b.meta.Added); c != 0 {
			return c
		}
		return strings.Compare(a.meta.Root.String(), b.meta.Root.String())
	})
	return out
}

// Index describes files that were hashed where they lie.
type Index struct {
	Root   chunk.CID
	Name   string
	Path   string // absolute
	Nodes  [][]byte
	Mtimes []int64 // of each file of the tree in walk order, Unix nanoseconds, read before hashing
	Size   int64
}

// AddIndexed records a share. It replaces an earlier record of the same root.
func (s *Store) AddIndexed(x Index) (*Root, error) {
	r := &Root{meta: meta{
		Version: metaVersion, Root: x.Root, Name: x.Name, State: Indexed,
		Path: x.Path, Size: x.Size, Added: time.Now().UTC(),
	}, mtimes: x.Mtimes}
	tree, err := walk(x.Root, x.Nodes)
	if err != nil {
		return nil, fmt.Errorf("block: index %s: %w", x.Path, err)
	}
	r.adopt(tree)
	return r, s.add(r, x.Nodes)
}

// Begin records a download of tree to the path dest (absolute) and makes the
// partial file or folder beside it. It replaces an earlier record of the root.
func (s *Store) Begin(tree *chunk.Tree, nodes [][]byte, name, dest string) (*Root, error) {
	r, err := partial(tree, name, dest)
	if err != nil {
		return nil, err
	}
	return r, s.add(r, nodes)
}

// BeginCopy is Begin for a second copy of a root that the store holds already:
// the store keeps the record it has, and Discard ends this one.
func (s *Store) BeginCopy(tree *chunk.Tree, name, dest string) (*Root, error) {
	r, err := partial(tree, name, dest)
	if err != nil {
		return nil, err
	}
	if r.dir, err = os.MkdirTemp(s.dir, newPrefix); err != nil {
		return nil, fmt.Errorf("block: copy %s: %w", tree.Root, err)
	}
	return r, nil
}

// Discard forgets a root that BeginCopy made, finished or not, with its
// partial if it has one still.
func (r *Root) Discard() error {
	r.close()
	var err error
	if i := r.Info(); i.State == Partial {
		err = os.RemoveAll(i.PartialPath)
	}
	return errors.Join(err, os.RemoveAll(r.dir))
}

func partial(tree *chunk.Tree, name, dest string) (*Root, error) {
	r := &Root{meta: meta{
		Version: metaVersion, Root: tree.Root, Name: name, State: Partial,
		Path: dest, Size: tree.Size, Added: time.Now().UTC(), Boot: bootID(),
	}}
	r.adopt(tree)
	return r, r.layOut(tree)
}

// Adopt records finished files at path, which the caller has verified against
// tree, as if they had been fetched.
func (s *Store) Adopt(tree *chunk.Tree, nodes [][]byte, name, path string) (*Root, error) {
	r := &Root{meta: meta{
		Version: metaVersion, Root: tree.Root, Name: name, State: Complete,
		Path: path, Size: tree.Size, Added: time.Now().UTC(), Boot: bootID(),
	}}
	r.adopt(tree)
	at, err := r.openPlace(tree)
	if err != nil {
		return nil, fmt.Errorf("block: adopt %s: %w", path, err)
	}
	defer at.dir.Close()
	if r.mtimes, err = readMtimes(tree, at); err != nil {
		return nil, err
	}
	return r, s.add(r, nodes)
}

const (
	newPrefix = ".new-"
	oldPrefix = ".old-"
)

// add writes r's record and makes it visible, atomically.
func (s *Store) add(r *Root, nodes [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := r.meta.Root.String()
	fresh, final := filepath.Join(s.dir, newPrefix+name), filepath.Join(s.dir, name)
	_ = os.RemoveAll(fresh)
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return fmt.Errorf("block: add %s: %w", name, err)
	}
	r.dir = fresh
	if err := r.writeAll(nodes); err != nil {
		_ = os.RemoveAll(fresh)
		return fmt.Errorf("block: add %s: %w", name, err)
	}
	if _, err := os.Stat(final); err == nil {
		if old := s.roots[r.meta.Root]; old != nil {
			old.close()
			r.Uploaded.Store(old.Uploaded.Load())
		}
		aside := filepath.Join(s.dir, oldPrefix+name)
		_ = os.RemoveAll(aside)
		if err := os.Rename(final, aside); err != nil {
			return fmt.Errorf("block: replace %s: %w", name, err)
		}
		defer func() { _ = os.RemoveAll(aside) }()
	}
	if err := os.Rename(fresh, final); err != nil {
		return fmt.Errorf("block: add %s: %w", name, err)
	}
	r.dir = final
	delete(s.damaged, name)
	s.roots[r.meta.Root] = r
	return nil
}

// Remove forgets a root. The user's files, and a partial download, stay.
func (s *Store) Remove(c chunk.CID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.roots[c]
	if !ok {
		return fmt.Errorf("block: remove %s: %w", c, ErrNotFound)
	}
	r.close()
	if err := os.RemoveAll(r.dir); err != nil {
		return fmt.Errorf("block: remove %s: %w", c, err)
	}
	delete(s.roots, c)
	return nil
}

// Close releases open files. The store must not be used afterwards.
func (s *Store) Close() {
	for _, r := range s.Roots() {
		r.close()
	}
}

// walk expands node blocks into a tree, verifying each.
func walk(root chunk.CID, nodes [][]byte) (*chunk.Tree, error) {
	w := chunk.NewWalker(root, chunk.Limits{})
	for _, n := range nodes {
		if err := w.Add(n); err != nil {
			return nil, err
		}
	}
	return w.Tree()
}
