package tree

import (
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/shoal-os/shoal/storage/tree/paths"
)

// comparePaths orders paths so that a folder comes before what is in it, and that before the folder's later siblings.
func comparePaths(a, b string) int {
	for i := range min(len(a), len(b)) {
		switch x, y := a[i], b[i]; {
		case x == y:
		case x == '/':
			return -1
		case y == '/':
			return 1
		default:
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}

// Walk yields what is at a path and, if it is a folder, all that is in it: each folder before what it holds, in the
// order of the names' bytes. Each folder is seen as it is when the walk gets there. An error ends the walk; there is
// one only if nothing is at the path.
func (t *Tree) Walk(root string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		i, err := t.lookup("walk", root)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		if !yield(entry(&i, nil), nil) || i.Kind != Folder {
			return
		}
		for item := range t.each(i.Path) {
			if !yield(entry(&item, nil), nil) {
				return
			}
		}
	}
}

// each yields all items in a folder, depth first.
func (t *Tree) each(dir string) iter.Seq[paths.Item] {
	return func(yield func(paths.Item) bool) { t.eachIn(dir, yield) }
}

func (t *Tree) eachIn(dir string, yield func(paths.Item) bool) bool {
	for _, i := range t.items(dir) {
		if !yield(i) || i.Kind == Folder && !t.eachIn(i.Path, yield) {
			return false
		}
	}
	return true
}

// items returns what is in a folder.
func (t *Tree) items(dir string) []paths.Item {
	unlock := t.rlockSorted(dir)
	defer unlock()
	out := make([]paths.Item, 0, t.core.Inside(dir))
	for i := range t.core.List(dir) {
		out = append(out, i)
	}
	return out
}

// patternMax is the longest pattern, in bytes.
const patternMax = paths.PathMax

// Find yields what is under dir and fits a pattern. The pattern is matched element by element as path.Match does:
// "*" and "?" do not match a slash, "[a-z]" is one of several letters, "\" takes the next sign as it is. An element
// "**" matches any number of folders, none included. A pattern without a slash is looked for at any depth; one with a
// slash counts from dir. Case counts.
func (t *Tree) Find(dir, pattern string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		glob, err := compile(pattern)
		if err != nil {
			yield(Entry{}, fault("find", pattern, err))
			return
		}
		i, err := t.lookup("find", dir)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		if i.Kind != Folder {
			yield(Entry{}, fault("find", i.Path, ErrNotFolder))
			return
		}
		t.findIn(i.Path, glob, yield)
	}
}

// findIn goes down with what is left of the pattern: one remainder for each way in which it fitted so far.
func (t *Tree) findIn(dir string, glob globs, yield func(Entry, error) bool) bool {
	for _, i := range t.items(dir) {
		rest := glob.step(i.Name)
		if rest.done() && !yield(entry(&i, nil), nil) {
			return false
		}
		if i.Kind == Folder && len(rest) > 0 && !t.findIn(i.Path, rest, yield) {
			return false
		}
	}
	return true
}

// globs are the remainders of a pattern that may still fit, as lists of elements. There are at most as many as the
// pattern has elements.
type globs [][]string

const anyDepth = "**"

// compile reads a pattern.
func compile(pattern string) (globs, error) {
	if len(pattern) > patternMax || strings.Trim(pattern, "/") == "" {
		return nil, ErrPattern
	}
	var list []string
	if !strings.Contains(pattern, "/") {
		list = append(list, anyDepth)
	}
	for element := range strings.SplitSeq(strings.Trim(pattern, "/"), "/") {
		if _, err := path.Match(element, ""); err != nil {
			return nil, ErrPattern
		}
		if element == anyDepth && len(list) > 0 && list[len(list)-1] == anyDepth {
			continue
		}
		list = append(list, element)
	}
	return globs{list}, nil
}

// step matches one name and returns the remainders for what is inside of it.
func (g globs) step(name string) (out globs) {
	add := func(rest []string) {
		// All are tails of one list: what is as long is the same.
		if !slices.ContainsFunc(out, func(have []string) bool { return len(have) == len(rest) }) {
			out = append(out, rest)
		}
	}
	for _, list := range g {
		if len(list) == 0 {
			continue
		}
		if list[0] == anyDepth {
			add(list)
			list = list[1:]
			if len(list) == 0 {
				add(list)
				continue
			}
		}
		if ok, _ := path.Match(list[0], name); ok {
			add(list[1:])
		}
	}
	return out
}

// done reports whether the whole pattern fitted.
func (g globs) done() bool {
	for _, list := range g {
		if len(list) == 0 {
			return true
		}
	}
	return false
}

// Usage is how much is at and under a path.
type Usage struct {
	Files, Folders int // the path's own folder not counted
	Bytes          int64
	Wanted         int64 // bytes of all wanted copies; files with the same contents are counted each time
	Conflicts      int
}

// Usage counts what is at and under a path, replaced and removed versions not included.
func (t *Tree) Usage(path string) (u Usage, err error) {
	i, err := t.lookup("usage", path)
	if err != nil {
		return u, err
	}
	u.add(&i)
	if i.Kind == Folder {
		u.Folders--
		for item := range t.each(i.Path) {
			u.add(&item)
		}
	}
	return u, nil
}

func (u *Usage) add(i *paths.Item) {
	if i.Kind == Folder {
		u.Folders++
		return
	}
	u.Files++
	u.Bytes += i.Head.Size
	u.Wanted += i.Head.Size * int64(i.Head.Copies)
	if i.Conflict() {
		u.Conflicts++
	}
}
