package storage

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

// patternsMax bounds the patterns of one Get: each is held against every path.
const patternsMax = 64

var (
	// ErrPattern reports a pattern that makes no sense.
	ErrPattern = errors.New("not a pattern")
	// ErrNoMatch reports patterns that choose nothing of a root.
	ErrNoMatch = errors.New("nothing in it matches")
)

// CheckPatterns tells what is wrong with patterns for GetOptions.Only, with
// ErrPattern; nil if nothing.
func CheckPatterns(patterns []string) error {
	if len(patterns) > patternsMax {
		return fmt.Errorf("%w: there are %d, more than %d", ErrPattern, len(patterns), patternsMax)
	}
	for _, p := range patterns {
		if strings.Trim(p, "/") == "" {
			return fmt.Errorf("%w: %q is empty", ErrPattern, p)
		}
		for part := range strings.SplitSeq(p, "/") {
			if _, err := path.Match(part, ""); err != nil {
				return fmt.Errorf("%w: %q has a [ without its ], or ends in \\", ErrPattern, p)
			}
		}
	}
	return nil
}

// selection is what patterns choose of a tree, by index of its entries.
type selection struct {
	tree   *chunk.Tree
	chosen []bool
	bytes  int64
	files  int
}

// choose finds what the patterns match, with all that is inside matching
// folders and the folders above. It fails with ErrPattern or ErrNoMatch.
func choose(tree *chunk.Tree, patterns []string) (*selection, error) {
	if err := CheckPatterns(patterns); err != nil {
		return nil, err
	}
	if tree.Entries[0].Kind != chunk.Dir {
		return nil, fmt.Errorf("%w: it is a single file, not a folder to choose from", ErrNoMatch)
	}
	s := &selection{tree: tree, chosen: make([]bool, len(tree.Entries))}
	var inside string // the chosen folder that the walk is in, with a slash
	any := false
	for i := 1; i < len(tree.Entries); i++ {
		e := &tree.Entries[i]
		within := inside != "" && strings.HasPrefix(e.Path, inside)
		if !within && !matchAny(patterns, e.Path) {
			continue
		}
		any, s.chosen[i] = true, true
		if e.Kind == chunk.File {
			s.files++
			s.bytes += max(0, e.Size)
		}
		if !within && e.Kind == chunk.Dir {
			inside = e.Path + "/"
		}
	}
	if !any {
		return nil, fmt.Errorf("%w %s", ErrNoMatch, strings.Join(patterns, " or "))
	}
	s.addParents()
	return s, nil
}

// addParents chooses the folders above what is chosen. Backwards, what is in a
// folder is met before the folder.
func (s *selection) addParents() {
	needed := map[string]bool{"": true}
	for i := len(s.chosen) - 1; i >= 0; i-- {
		p := s.tree.Entries[i].Path
		if needed[p] {
			s.chosen[i] = true
		}
		if s.chosen[i] && p != "" {
			needed[strings.TrimSuffix(p[:len(p)-len(baseName(p))], "/")] = true
		}
	}
}

func (s *selection) keep(entry int) bool { return s.chosen[entry] }

// leaf reports whether a leaf belongs to a chosen file.
func (s *selection) leaf(i int) bool { return s.chosen[s.tree.Leaves[i].Entry] }

// leaves is the set of leaves of chosen files.
func (s *selection) leaves() *bitfield.Bitfield {
	b := bitfield.New(len(s.tree.Leaves))
	for i := range s.chosen {
		if e := &s.tree.Entries[i]; s.chosen[i] && e.Count > 0 {
			b.SetRun(bitfield.Run{First: e.First, Count: e.Count})
		}
	}
	return b
}

func matchAny(patterns []string, p string) bool {
	for _, pattern := range patterns {
		if matchPath(pattern, p) {
			return true
		}
	}
	return false
}

// matchPath holds a path against a pattern in the syntax of path.Match, where
// ** stands for any number of folders. A pattern without a slash matches names
// at any depth, one with a slash (at its front, if there is no other) whole paths.
func matchPath(pattern, p string) bool {
	if !strings.Contains(strings.TrimSuffix(pattern, "/"), "/") && pattern != "**" {
		ok, _ := path.Match(strings.TrimSuffix(pattern, "/"), baseName(p))
		return ok
	}
	return matchParts(strings.Split(strings.Trim(pattern, "/"), "/"), strings.Split(p, "/"))
}

// matchParts tries, for each **, all numbers of folders; two of them side by
// side mean the same as one, so that this stays quick.
func matchParts(pattern, parts []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			for len(pattern) > 1 && pattern[1] == "**" {
				pattern = pattern[1:]
			}
			if len(pattern) == 1 {
				return true
			}
			for skip := range parts {
				if matchParts(pattern[1:], parts[skip:]) {
					return true
				}
			}
			return false
		}
		if len(parts) == 0 {
			return false
		}
		if ok, _ := path.Match(pattern[0], parts[0]); !ok {
			return false
		}
		pattern, parts = pattern[1:], parts[1:]
	}
	return len(parts) == 0
}

// choose finds out what opt.Only means for the tree.
func (g *getting) choose(tree *chunk.Tree) (err error) {
	if len(g.opt.Only) > 0 {
		g.chosen, err = choose(tree, g.opt.Only)
	}
	return err
}

func (g *getting) wants(leaf int) bool { return g.chosen == nil || g.chosen.leaf(leaf) }

// want is the job's choice of leaves; nil for all. The tree may not be known
// before the job has it.
func (g *getting) want() func(*chunk.Tree) *bitfield.Bitfield {
	if len(g.opt.Only) == 0 {
		return nil
	}
	return func(*chunk.Tree) *bitfield.Bitfield { return g.chosen.leaves() }
}

// put gives what was fetched its own name.
func (g *getting) put(r *block.Root) error {
	if g.chosen == nil {
		return r.Finish(g.opt.Force)
	}
	return r.Place(g.chosen.keep, g.opt.Force)
}

// reopen prepares an earlier choice, which stands at the destination, for
// fetching more into it. done says that it holds all that is wanted.
func (g *getting) reopen(old *block.Root) (done bool, err error) {
	g.root = old
	lacking := g.chosen == nil
	for i := range old.Leaves() {
		if lacking = lacking || g.wants(i) && !old.Has(i); lacking {
			break
		}
	}
	if !lacking {
		bad, err := old.Check(1)
		if err != nil {
			return false, err
		}
		if len(bad) == 0 && g.made(old) {
			return true, nil
		}
	}
	return false, old.Unplace(g.opt.Force)
}

// made reports whether what has no leaves is there as chosen: empty files,
// folders and links.
func (g *getting) made(old *block.Root) bool {
	for i := range g.chosen.chosen {
		e := &g.chosen.tree.Entries[i]
		if g.chosen.chosen[i] && e.Count == 0 && !exists(filepath.Join(old.Info().Path, filepath.FromSlash(e.Path))) {
			return false
		}
	}
	return true
}
