package tree

import (
	"fmt"
	"slices"

	"github.com/shoal-os/shoal/storage/tree/paths"
)

// rules say what a new name must be.
type rules struct {
	anyName bool   // names that other systems cannot hold, or take for another, are allowed
	except  string // a path whose name is about to go, so nothing clashes with it
}

// sight is what a writer sees: the tree, and before it what the writer itself is about to write.
type sight struct {
	*Tree
	soon []*drafts // may be empty
}

// drafts are versions to be written together, one for each path.
type drafts struct {
	list  []draft
	at    map[string]int    // by path
	folds map[string]string // by folded path
}

func newDrafts() *drafts { return &drafts{at: map[string]int{}, folds: map[string]string{}} }

// add puts a draft in, in place of an earlier one for the same path.
func (d *drafts) add(x draft) {
	if i, ok := d.at[x.path]; ok {
		d.list[i] = x
		return
	}
	d.at[x.path] = len(d.list)
	d.folds[paths.Fold(x.path)] = x.path
	d.list = append(d.list, x)
}

// kind returns what will be at a path; 0 if nothing.
func (s sight) kind(path string) Kind {
	for _, d := range slices.Backward(s.soon) {
		if i, ok := d.at[path]; ok {
			return d.list[i].v.Kind
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if i, ok := s.core.Lookup(path); ok {
		return i.Kind
	}
	return 0
}

// clash returns a path that some systems take for the given one, which does not exist yet.
func (s sight) clash(path string) (string, bool) {
	folded := paths.Fold(path)
	for _, d := range s.soon {
		if other, ok := d.folds[folded]; ok && other != path {
			return other, true
		}
	}
	dir, name := paths.Split(path)
	s.mu.Lock() // the first look into a folder makes an index
	defer s.mu.Unlock()
	if other, ok := s.core.Clash(dir, name); ok {
		return paths.Join(dir, other), true
	}
	return "", false
}

// newName tells what is wrong with a path at which nothing is yet.
func (s sight) newName(path string, r rules) error {
	if r.anyName {
		return nil
	}
	_, name := paths.Split(path)
	if err := paths.Portable(paths.Join(paths.Root, name)); err != nil {
		return fmt.Errorf("%w: %w", ErrName, err)
	}
	if other, ok := s.clash(path); ok && other != r.except {
		return fmt.Errorf("%w: %q is there already", ErrCase, other)
	}
	return nil
}

// place checks that something can be put at a path, and returns the folders above it that are missing, outermost first.
// kind is what is there already, 0 for nothing.
func (s sight) place(path string, r rules) (kind Kind, missing []string, err error) {
	if path == paths.Root {
		return Folder, nil, nil
	}
	if kind = s.kind(path); kind != 0 {
		return kind, nil, nil
	}
	dir, _ := paths.Split(path)
	for dir != paths.Root {
		switch s.kind(dir) {
		case Folder:
		case 0:
			missing = append(missing, dir)
			dir, _ = paths.Split(dir)
			continue
		default:
			return 0, nil, fault("write", dir, ErrNotFolder)
		}
		break
	}
	slices.Reverse(missing)
	for _, p := range append(slices.Clone(missing), path) {
		if err := s.newName(p, r); err != nil {
			return 0, nil, fault("write", p, err)
		}
	}
	return 0, missing, nil
}
