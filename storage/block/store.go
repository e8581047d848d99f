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
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
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
	dir  string
	find func(chunk.CID) (*Root, bool) // see SetFinder

	mu      sync.Mutex
	roots   map[chunk.CID]*Root
	copies  map[string]*Root // by path: what BeginCopy made and Discard did not end
	damaged map[string]error
}

// Open reads the store in dir, making it if need be. Leftovers of a crash are
// cleaned up; a record that cannot be read is set aside under Damaged and
// never deleted, so that one bad sector does not cost the rest.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("block: open store: %w", err)
	}
	s := &Store{dir: dir, roots: map[chunk.CID]*Root{}, copies: map[string]*Root{}, damaged: map[string]error{}}
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
	r.suspect = !r.Trusted()
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
	r, ok := s.roots[c]
	s.mu.Unlock()
	if !ok && s.find != nil {
		return s.find(c)
	}
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
	Web    []string // URLs where the bytes lie too
	// Tree is what Nodes expand to, if the caller has it still; nil: they are walked again, which takes as much memory
	// once more.
	Tree *chunk.Tree
}

// AddIndexed records a share. It replaces an earlier record of the same root.
func (s *Store) AddIndexed(x Index) (*Root, error) {
	r := &Root{meta: meta{
		Version: metaVersion, Root: x.Root, Name: x.Name, State: Indexed,
		Path: x.Path, Size: x.Size, Added: time.Now().UTC(), Web: x.Web,
	}, mtimes: x.Mtimes}
	tree, err := x.Tree, error(nil)
	if tree == nil {
		tree, err = walk(x.Root, x.Nodes)
	}
	if err == nil && tree.Root != x.Root {
		err = fmt.Errorf("the tree is of %s", tree.Root)
	}
	if err != nil {
		return nil, fmt.Errorf("block: index %s: %w", x.Path, err)
	}
	r.adopt(tree)
	return r, s.add(r, x.Nodes)
}

// Begin records a download of tree to the path dest (absolute) and makes the
// partial file or folder beside it. It replaces an earlier record of the root.
//
// A partial that lies there already, of which no record tells, is taken over:
// the root is then Suspect, and the caller reads what it claims and Unmarks what
// is wrong. A partial of another root is refused with ErrExists.
func (s *Store) Begin(tree *chunk.Tree, nodes [][]byte, name, dest string) (*Root, error) {
	r, err := s.partial(tree, name, dest)
	if err != nil {
		return nil, err
	}
	if err := s.add(r, nodes); err != nil {
		if !r.suspect {
			_ = os.RemoveAll(dest + PartialSuffix)
		}
		return nil, err
	}
	if r.suspect {
		return r, r.Unmark() // nothing: writes all claims
	}
	return r, nil
}

// BeginCopy is Begin for a second copy of a root that the store holds already:
// the store keeps the record it has, and Discard ends this one.
func (s *Store) BeginCopy(tree *chunk.Tree, name, dest string) (*Root, error) {
	r, err := s.partial(tree, name, dest)
	if err != nil {
		return nil, err
	}
	r.have, r.suspect = bitfield.New(r.leaves), false // all of it is written anew
	r.pin = tree
	if r.dir, err = os.MkdirTemp(s.dir, newPrefix); err != nil {
		return nil, fmt.Errorf("block: copy %s: %w", tree.Root, err)
	}
	s.mu.Lock()
	s.copies[dest] = r
	s.mu.Unlock()
	return r, nil
}

// Discard forgets a root that BeginCopy made, finished or not, with its
// partial if it has one still.
func (s *Store) Discard(r *Root) error {
	r.close()
	var err error
	i := r.Info()
	if i.State == Partial && !i.Placed {
		err = os.RemoveAll(i.PartialPath)
	}
	s.mu.Lock()
	delete(s.copies, i.Path)
	s.mu.Unlock()
	return errors.Join(err, os.RemoveAll(r.dir))
}

func (s *Store) partial(tree *chunk.Tree, name, dest string) (*Root, error) {
	if s.beingFetched(dest, tree.Root) {
		return nil, notOurs(dest + PartialSuffix)
	}
	r := &Root{meta: meta{
		Version: metaVersion, Root: tree.Root, Name: name, State: Partial,
		Path: dest, Size: tree.Size, Added: time.Now().UTC(), Boot: bootID(),
	}}
	r.adopt(tree)
	found, err := r.layOut(tree)
	if found && r.have.Count() > 0 {
		r.suspect, r.meta.Boot = true, ""
	}
	return r, err
}

// beingFetched reports whether the partial of dest is that of another root.
func (s *Store) beingFetched(dest string, root chunk.CID) bool {
	if s.isCopy(dest) {
		return true
	}
	for _, r := range s.Roots() {
		if i := r.Info(); i.State == Partial && i.Path == dest && i.Root != root {
			return true
		}
	}
	return false
}

func (s *Store) isCopy(dest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.copies[dest] != nil
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
	if r.mtimes, err = readMtimes(tree, at, everyFile); err != nil {
		return nil, fmt.Errorf("block: adopt: %w", err)
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
	if err := s.swap(fresh, final, filepath.Join(s.dir, oldPrefix+name)); err != nil {
		return fmt.Errorf("block: add %s: %w", name, err)
	}
	if old := s.roots[r.meta.Root]; old != nil {
		old.detach()
		r.Uploaded.Store(old.Uploaded.Load())
	}
	r.dir = final
	delete(s.damaged, name)
	s.roots[r.meta.Root] = r
	return nil
}

// swap puts fresh in final's place. A crash at any point leaves one of the two
// for load to find.
func (s *Store) swap(fresh, final, aside string) error {
	if _, err := os.Stat(final); err != nil {
		return os.Rename(fresh, final)
	}
	_ = os.RemoveAll(aside)
	if err := os.Rename(final, aside); err != nil {
		return err
	}
	if err := os.Rename(fresh, final); err != nil {
		return errors.Join(err, os.Rename(aside, final))
	}
	_ = os.RemoveAll(aside) // or load does
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
	r.detach()
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
