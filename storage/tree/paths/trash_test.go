package paths

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestTrash: whatever part of the trash goes, in whatever order, what is shown stays as it is.
func TestTrash(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tree := New()
		for _, s := range drawVersions(rt) {
			tree.Put(s.path, s.v)
		}
		before := show(tree)
		for _, d := range rapid.Permutation(tree.Trash(Root)).Draw(rt, "order") {
			if !tree.Covered(d) {
				rt.Fatalf("%v is no longer covered", d.ID)
			}
			tree.Drop(d.Path, d.ID)
			if got := show(tree); !slices.Equal(got, before) {
				rt.Fatalf("without %v there is %q, before %q", d.ID, got, before)
			}
		}
		if left := tree.Trash(Root); len(left) > 0 {
			rt.Fatalf("%v are left", left)
		}
	})
}

func TestTrashOfAPath(t *testing.T) {
	tree := New()
	tree.Put("/d", file(1, ann).as(Folder))
	tree.Put("/d/f", file(2, ann))
	tree.Put("/d/f", file(3, ann, 2))
	tree.Put("/d/f", file(4, bob, 2)) // a conflict
	tree.Put("/d/gone", file(5, ann))
	tree.Put("/d/gone", file(6, ann, 5).as(Removed))
	tree.Put("/d-", file(7, ann))
	tree.Put("/d-", file(8, ann, 7))
	tree.Put("/late", file(9, ann))
	tree.Put("/late", file(10, ann, 9))
	tree.Put("/late", file(11, bob, 10)) // its author did not know of what it replaces by way of another
	for path, want := range map[string][]int{"/d": {2, 5}, "/d/f": {2}, "/d/gone": {5}, "/d-": {7}, "/late": nil, "/none": nil, Root: {2, 5, 7}} {
		var got, ids []ID
		for _, d := range tree.Trash(path) {
			got = append(got, d.ID)
		}
		for _, n := range want {
			ids = append(ids, mark(n))
		}
		slices.SortFunc(got, func(a, b ID) int { return slices.Compare(a[:], b[:]) })
		if !slices.Equal(got, ids) {
			t.Errorf("the trash of %s is %v, want %v", path, got, ids)
		}
	}
}

func TestNoise(t *testing.T) {
	empty := func(n int, by *Author, replaces ...int) *Version { return content(n, "", by, replaces...) }
	text := func(n int, by *Author, replaces ...int) *Version { return content(n, "text", by, replaces...) }
	more := text(20, ann, 10)
	more.Copies = 5
	for name, c := range map[string]struct {
		before []*Version
		next   *Version
		noise  bool // version 10 is
	}{
		"empty":               {[]*Version{empty(10, ann)}, text(20, ann, 10), true},
		"the same":            {[]*Version{text(10, ann)}, text(20, ann, 10), true},
		"a folder":            {[]*Version{text(10, ann).as(Folder)}, text(20, ann, 10).as(Folder), true},
		"in the past":         {[]*Version{empty(10, ann), text(11, ann, 10)}, text(20, ann, 11, 10), false},
		"other bytes":         {[]*Version{file(10, ann)}, text(20, ann, 10), false},
		"made empty":          {[]*Version{text(10, ann)}, empty(20, ann, 10), false},
		"of another":          {[]*Version{empty(10, bob)}, text(20, ann, 10), false},
		"not replaced":        {[]*Version{empty(10, ann)}, text(20, ann), false},
		"replaced by another": {[]*Version{empty(10, ann), text(11, bob, 10)}, text(20, ann, 10, 11), false},
		"removed":             {[]*Version{empty(10, ann)}, text(20, ann, 10).as(Removed), false},
		"a removal":           {[]*Version{text(10, ann).as(Removed)}, text(20, ann, 10).as(Removed), false},
		"undone":              {[]*Version{text(10, ann).as(Removed)}, empty(20, ann, 10), false},
		"kind":                {[]*Version{empty(10, ann)}, text(20, ann, 10).as(Folder), false},
		"copies":              {[]*Version{text(10, ann)}, more, false},
	} {
		tree := New()
		for _, v := range c.before {
			tree.Put("/f", v)
		}
		if got := tree.Noise("/f", c.next, at(10)); slices.Contains(got, mark(10)) != c.noise || len(got) > 1 {
			t.Errorf("%s: noise is %v", name, got)
		}
		if got := tree.Noise("/f", c.next, at(12)); len(got) > 0 {
			t.Errorf("%s: of the past %v is noise", name, got)
		}
	}
}

// TestGoneIsNamed: a version goes on to name what was deleted behind it, so that who has that still does not show it; in
// the end no more.
func TestGoneIsNamed(t *testing.T) {
	tree, other := New(), New()
	other.Put("/f", file(0, ann))
	for n := range 3 * goneMax {
		v := file(n, ann)
		v.Replaces = tree.Replaced("/f", ID{})
		if len(v.Replaces) > goneMax+1 {
			t.Fatalf("version %d names %d", n, len(v.Replaces))
		}
		if n > 0 && v.Replaces[0] != mark(n-1) {
			t.Fatalf("version %d names first %v", n, v.Replaces[0])
		}
		tree.Put("/f", v)
		tree.Drop(HashOf("/f"), mark(n-1))
		if n > 0 && n <= goneMax {
			other.Put("/f", v)
			if got := show(other); len(got) != 1 {
				t.Errorf("who heard only of version 0 and %d sees %q", n, got)
			}
			other.Drop(HashOf("/f"), mark(n))
		}
	}
}

// TestReplacedSince: what is to replace a certain version replaces nothing once somebody else has replaced that.
func TestReplacedSince(t *testing.T) {
	tree := New()
	tree.Put("/f", file(1, ann))
	tree.Put("/f", file(2, ann, 1))
	tree.Put("/f", file(3, bob, 1).as(Removed))
	if got := tree.Replaced("/f", mark(2)); !slices.Equal(got, []ID{mark(3), mark(2), mark(1)}) {
		t.Errorf("replaced is %v", got)
	}
	again := content(4, "contents 2", ann, 2, 1) // only touched
	tree.Put("/f", again)
	if got := tree.Replaced("/f", mark(2)); len(got) > 0 {
		t.Errorf("replaced is %v, which was not seen", got)
	}
}
