package paths

import (
	"iter"
	"slices"
	"strings"
)

// Item is one thing that can be seen in the tree.
type Item struct {
	Path   string
	Name   string  // the last element of Path
	Of     string  // of a conflict: the path whose name it lost
	Kind   Kind    // File or Folder
	Inside int     // of a folder: how many things are in it, conflicts not counted
	Head   Version // what says so; a folder that only its contents imply has none: its ID is not Defined
}

// Conflict reports whether the item stands beside its own path.
func (i *Item) Conflict() bool { return i.Of != "" }

// Lookup returns what is at a path, which may be the name of a conflict.
func (t *Tree) Lookup(path string) (Item, bool) {
	if n := t.byHash[HashOf(path)]; n != nil && n.flags&exists != 0 {
		return n.item(path), true
	}
	n, k := t.lookupBeside(path)
	if k == nil {
		return Item{}, false
	}
	return besideItem(path, n, k), true
}

// lookupBeside finds a conflict by its name.
func (t *Tree) lookupBeside(path string) (*node, *version) {
	dir, name := Split(path)
	n := t.byHash[HashOf(dir)]
	if n == nil || n.dir == nil || len(n.dir.apart) == 0 || !strings.Contains(name, besideMark) {
		return nil, nil
	}
	for _, b := range t.besides(n, dir) {
		if b.name == name {
			return b.node, b.version
		}
	}
	return nil, nil
}

// item is what an existing path shows.
func (n *node) item(path string) Item {
	i := Item{Path: path, Name: n.name, Kind: Folder}
	if n.top != nil {
		i.Head = n.top.open()
		i.Kind = n.top.kind
	}
	if n.isFolder() {
		i.Kind, i.Inside = Folder, n.liveInside()
	}
	return i
}

func besideItem(path string, n *node, k *version) Item {
	_, name := Split(path)
	return Item{Path: path, Name: name, Of: n.path(), Kind: k.kind, Head: k.open()}
}

// Sorted reports whether List can be called for a folder without changing the tree.
func (t *Tree) Sorted(dir string) bool {
	n := t.byHash[HashOf(dir)]
	return n == nil || n.dir == nil || n.dir.sorted
}

// Sort prepares a folder for List. Unlike reading it is a change of the tree.
func (t *Tree) Sort(dir string) {
	if n := t.byHash[HashOf(dir)]; n != nil && n.dir != nil {
		n.dir.sort()
	}
}

// Inside is how many things List will yield.
func (t *Tree) Inside(dir string) int {
	n := t.byHash[HashOf(dir)]
	if n == nil || n.dir == nil {
		return 0
	}
	size := n.liveInside()
	for m := range n.dir.apart {
		for k := m.first; k != nil; k = k.next {
			if k.flags&beside != 0 {
				size++
			}
		}
	}
	return size
}

// List yields what is in a folder, in the order of the names' bytes. Sort must have been called if Sorted is false. The
// tree must not change meanwhile.
func (t *Tree) List(dir string) iter.Seq[Item] {
	return func(yield func(Item) bool) {
		n := t.byHash[HashOf(dir)]
		if n == nil || n.dir == nil {
			return
		}
		apart := t.besides(n, dir)
		upTo := func(name string) bool { // yields the conflicts that come before name
			for len(apart) > 0 && (name == "" || apart[0].name < name) {
				b := apart[0]
				apart = apart[1:]
				if !yield(besideItem(Join(dir, b.name), b.node, b.version)) {
					return false
				}
			}
			return true
		}
		for _, m := range n.dir.kids {
			if m.flags&exists == 0 {
				continue
			}
			if !upTo(m.name) || !yield(m.item(Join(dir, m.name))) {
				return
			}
		}
		upTo("")
	}
}

// History returns all versions of a path, the latest first, removals included. The path may be a conflict's; then it is
// the history of the path that it stands beside.
func (t *Tree) History(path string) []Version {
	n := t.byHash[HashOf(path)]
	if n == nil || n.first == nil {
		if m, k := t.lookupBeside(path); k != nil {
			n = m
		}
	}
	if n == nil {
		return nil
	}
	var out []Version
	for k := n.first; k != nil; k = k.next {
		out = append(out, k.open())
	}
	return out
}

// Replaced returns what a new version at a path replaces: the heads that the path shows, and all versions that they
// replace in turn as far as they are still there. Because every version names all those behind it, old ones can be
// dropped in any order without one of them coming up again. Of a path that shows nothing it is all heads. A conflict
// that stands beside the path is not replaced: nobody who writes the path need have seen it.
//
// With an id, which may be a conflict's, it is the heads that say the same as that one, removals, and what is behind
// them; nothing if that version is no head any more, as somebody wrote since.
func (t *Tree) Replaced(path string, id ID) []ID {
	n := t.byHash[HashOf(path)]
	if n == nil {
		return nil
	}
	shown := n.top
	if id.Defined() {
		if shown = n.find(id); shown == nil || shown.flags&head == 0 {
			return nil
		}
	}
	behind := map[ID]bool{}
	var named []ID // what the heads replace, the latest first
	for k := n.first; k != nil; k = k.next {
		if k.flags&head == 0 || k.kind != Removed && (shown == nil || !k.same(shown)) {
			continue
		}
		behind[k.id] = true
		for _, id := range k.behind() {
			behind[id] = true
		}
		named = append(named, k.behind()...)
	}
	var out []ID
	for k := n.first; k != nil && len(out) < ReplacesMax; k = k.next {
		if behind[k.id] {
			out = append(out, k.id)
			delete(behind, k.id)
		}
	}
	return appendGone(out, named, behind)
}

// goneMax is how many versions that are not here any more a version goes on to name.
const goneMax = 32

// appendGone adds the first of what was named and is not here: it was deleted soon after it was written, so there may be
// peers that have it still and will hear of its deletion after they hear of this version, or it is on its way here.
func appendGone(out, named []ID, gone map[ID]bool) []ID {
	for n := 0; n < goneMax && len(out) < ReplacesMax && len(named) > 0; named = named[1:] {
		if gone[named[0]] {
			delete(gone, named[0])
			out = append(out, named[0])
			n++
		}
	}
	return out
}

// behind lists what a version replaces.
func (k *version) behind() []ID {
	if k.rest == nil {
		return nil
	}
	return k.rest.replaces
}

// Removals returns the folders and files at or under a path that show nothing because of a removal, each with that
// removal; what a removal in another place left alone is not among them.
func (t *Tree) Removals(path string) iter.Seq2[string, Version] {
	return func(yield func(string, Version) bool) {
		if n := t.byHash[HashOf(path)]; n != nil {
			n.removals(yield)
		}
	}
}

func (n *node) removals(yield func(string, Version) bool) bool {
	if n.top == nil && n.first != nil {
		for k := n.first; k != nil; k = k.next {
			if k.flags&head != 0 && k.kind == Removed {
				if !yield(n.path(), k.open()) {
					return false
				}
				break
			}
		}
	}
	if n.dir == nil {
		return true
	}
	for _, m := range slices.Clone(n.dir.kids) {
		if !m.removals(yield) {
			return false
		}
	}
	return true
}
