package paths

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory/names"
)

// day is a time that fits into names.
var day = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

var (
	ann = &Author{peer.ID("ann"), "Ann's laptop"}
	bob = &Author{peer.ID("bob"), "Bob"}
)

// at is a hybrid time n milliseconds into the day.
func at(n int) names.HLC { return names.At(day.Add(time.Duration(n) * time.Millisecond)) }

// mark makes an id from a number.
func mark(n int) (id ID) {
	binary.BigEndian.PutUint64(id[:], uint64(n)|0xa0<<56)
	return id
}

// file is version n of some path, with contents of its own.
func file(n int, by *Author, replaces ...int) *Version {
	return content(n, fmt.Sprint("contents ", n), by, replaces...)
}

func content(n int, text string, by *Author, replaces ...int) *Version {
	v := &Version{
		ID: mark(n), Kind: File, Copies: 3, Mode: 0o644, Time: at(n), Author: by,
		Root: chunk.SumRaw([]byte(text)), Size: int64(len(text)),
	}
	for _, id := range replaces {
		v.Replaces = append(v.Replaces, mark(id))
	}
	return v
}

// as changes a version's kind.
func (v *Version) as(kind Kind) *Version {
	w := *v
	w.Kind, w.Root, w.Size, w.Pieces = kind, chunk.CID{}, 0, nil
	return &w
}

// said is a version with its path, as a record has it.
type said struct {
	path string
	v    *Version
}

// show lists all that can be seen, one line for each thing.
func show(t *Tree) (out []string) {
	var walk func(dir string)
	walk = func(dir string) {
		t.Sort(dir)
		for i := range t.List(dir) {
			line := fmt.Sprintf("%s %v %v %d", i.Path, i.Kind, i.Head.ID, i.Head.Size)
			if i.Conflict() {
				line += " of " + i.Of
			}
			out = append(out, line)
			if i.Kind == Folder {
				walk(i.Path)
			}
		}
	}
	walk(Root)
	return out
}

// wanted lists what is wanted.
func wanted(t *Tree) map[chunk.CID]Want {
	t.Reckon()
	out := map[chunk.CID]Want{}
	for w := range t.Wants() {
		out[w.ID] = w
	}
	return out
}

// drawVersions draws versions of few paths, so that all manner of clashes come about.
func drawVersions(t *rapid.T) (out []said) {
	places := []string{"/a", "/a/x", "/a/x/deep", "/b.txt", "/B.txt", "/a/y", "/b.txt/z"}
	byPath := map[string][]ID{}
	for n := range rapid.IntRange(1, 24).Draw(t, "versions") {
		path := rapid.SampledFrom(places).Draw(t, "path")
		by := rapid.SampledFrom([]*Author{ann, bob}).Draw(t, "author")
		v := content(n, rapid.SampledFrom([]string{"one", "two", "three", ""}).Draw(t, "text"), by)
		v.Copies = rapid.SampledFrom([]uint8{2, 3}).Draw(t, "copies")
		v.Time = at(rapid.IntRange(0, 30).Draw(t, "time"))
		if kind := rapid.SampledFrom([]Kind{File, File, File, Folder, Removed}).Draw(t, "kind"); kind != File {
			v = v.as(kind)
		}
		for _, id := range byPath[path] {
			if rapid.Bool().Draw(t, "replaces") {
				v.Replaces = append(v.Replaces, id)
			}
		}
		byPath[path] = append(byPath[path], v.ID)
		out = append(out, said{path, v})
	}
	return out
}

// build puts versions in the order of a seed, some of them twice.
func build(list []said, seed uint64) *Tree {
	rng := rand.New(rand.NewPCG(seed, 1))
	list = slices.Clone(list)
	for i := range len(list) / 3 {
		list = append(list, list[i])
	}
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	tree := New()
	for _, s := range list {
		tree.Put(s.path, s.v)
		check(tree)
	}
	return tree
}

// check panics if what a tree keeps for speed is not what its versions say.
func check(t *Tree) {
	count := 0
	for hash, n := range t.byHash {
		if HashOf(n.path()) != hash {
			panic(fmt.Sprintf("%s stands under another hash", n.path()))
		}
		live, apart := 0, 0
		if n.dir != nil {
			for i, m := range n.dir.kids {
				if int(m.at) != i || m.parent != n {
					panic(fmt.Sprintf("%s is out of place", m.path()))
				}
				if m.flags&exists != 0 {
					live++
				}
				if m.flags&clashes != 0 {
					apart++
				}
			}
			if live != int(n.dir.live) || apart != len(n.dir.apart) {
				panic(fmt.Sprintf("%s counts %d live and %d apart of %d and %d", n.path(), n.dir.live, len(n.dir.apart), live, apart))
			}
		}
		for k := n.first; k != nil; k = k.next {
			count++
			if k.next != nil && k.next.later(k) {
				panic(n.path() + " has its versions out of order")
			}
		}
		if n.parent != nil && n.first == nil && n.marks == 0 && (n.dir == nil || len(n.dir.kids) == 0) {
			panic(n.path() + " is there for nothing")
		}
	}
	if count != t.versions {
		panic(fmt.Sprintf("%d versions are counted as %d", count, t.versions))
	}
}

// TestOrder: the tree follows from the set of versions, whatever their order and however often they are told.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := drawVersions(t)
		one, two := build(list, 1), build(list, rapid.Uint64().Draw(t, "seed"))
		if a, b := show(one), show(two); !slices.Equal(a, b) {
			t.Fatalf("one order shows\n%s\nanother\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
		}
		if !maps.Equal(wanted(one), wanted(two)) {
			t.Fatal("what is wanted depends on the order")
		}
	})
}

// TestDrop: taking versions out again leads to the tree of those that remain.
func TestDrop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := drawVersions(t)
		tree := build(list, 1)
		tree.Pin("/a")
		rest := New()
		rest.Pin("/a")
		for _, s := range list {
			if rapid.Bool().Draw(t, "drop") {
				tree.Drop(HashOf(s.path), s.v.ID)
				check(tree)
			} else {
				rest.Put(s.path, s.v)
			}
		}
		if a, b := show(tree), show(rest); !slices.Equal(a, b) {
			t.Fatalf("after dropping\n%s\nwithout them\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
		}
		if a, b := wanted(tree), wanted(rest); !maps.Equal(a, b) {
			t.Fatalf("after dropping %v is wanted, without them %v", a, b)
		}
		for _, s := range list {
			tree.Drop(HashOf(s.path), s.v.ID)
		}
		tree.Unpin("/a")
		check(tree)
		if len(tree.byHash) != 1 || len(tree.ledger.claims) != 0 || len(tree.ledger.unsure) != 0 {
			t.Fatalf("%d nodes and %d claims are left of nothing", len(tree.byHash), len(tree.ledger.claims))
		}
	})
}

// TestNoLoss: every live head can be reached: what it says is at some path, and looking that path up finds it.
func TestNoLoss(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := drawVersions(t)
		tree := build(list, 1)
		replaced := map[ID]bool{}
		for _, s := range list {
			for _, id := range s.v.Replaces {
				replaced[id] = true
			}
		}
		for _, s := range list {
			if replaced[s.v.ID] || s.v.Kind == Removed {
				continue
			}
			if !reachable(t, tree, s) {
				t.Fatalf("%v at %s is lost:\n%s", s.v, s.path, strings.Join(show(tree), "\n"))
			}
		}
	})
}

// reachable looks for a head under its path and beside it.
func reachable(t *rapid.T, tree *Tree, s said) bool {
	dir, _ := Split(s.path)
	tree.Sort(dir)
	seen := map[string]bool{}
	found := false
	for i := range tree.List(dir) {
		if seen[i.Name] {
			t.Fatalf("two things are called %s", i.Path)
		}
		seen[i.Name] = true
		if back, ok := tree.Lookup(i.Path); !ok || back.Head.ID != i.Head.ID || back.Of != i.Of {
			t.Fatalf("%s is listed and not found", i.Path)
		}
		if i.Path != s.path && i.Of != s.path {
			continue
		}
		found = found || i.Head.Same(s.v) || i.Kind == Folder && s.v.Kind == Folder
	}
	return found
}

// TestWants: what is wanted is what the versions name, in the most copies that one of them wants.
func TestWants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := drawVersions(t)
		tree := New()
		told := map[chunk.CID]Want{}
		listen := func() {
			tree.Reckon()
			for _, w := range tree.Changes() {
				told[w.ID] = w
				if w.Copies == 0 {
					delete(told, w.ID)
				}
			}
		}
		held := map[ID]said{}
		for i, s := range list {
			tree.Put(s.path, s.v)
			held[s.v.ID] = s
			if rapid.Bool().Draw(t, "drop") {
				old := list[rapid.IntRange(0, i).Draw(t, "which")]
				tree.Drop(HashOf(old.path), old.v.ID)
				delete(held, old.v.ID)
			}
			if rapid.Bool().Draw(t, "listen") {
				listen()
			}
		}
		listen()
		want := map[chunk.CID]Want{}
		for _, s := range held {
			for p := range s.v.EachPiece() {
				want[p.ID] = Want{p, max(want[p.ID].Copies, int(s.v.Copies)), false}
			}
		}
		if got := wanted(tree); !maps.Equal(got, want) {
			t.Fatalf("wanted are %v, the versions say %v", got, want)
		}
		if !maps.Equal(told, want) {
			t.Fatalf("told was %v, the versions say %v", told, want)
		}
	})
}

// TestGuard takes the guard away that TestNoLoss relies on: a tree that shows only the latest head loses the other.
func TestGuard(t *testing.T) {
	tree := New()
	tree.Put("/f", file(1, ann))
	tree.Put("/f", file(2, bob))
	tree.Put("/f", file(3, ann, 1))
	n := tree.byHash[HashOf("/f")]
	for k := n.first; k != nil; k = k.next {
		k.flags &^= beside
	}
	n.flags &^= clashes
	tree.root.dir.setApart(n, false)
	if got := show(tree); len(got) != 1 {
		t.Fatalf("%d things are shown without the guard: then the other tests prove nothing", len(got))
	}
}

func TestConflicts(t *testing.T) {
	for _, c := range []struct {
		name string
		list []said
		want []string
	}{
		{"the later keeps the name", []said{{"/f.txt", file(1, ann)}, {"/f.txt", file(2, bob)}}, []string{
			"/f (conflict Ann's laptop 2026-11-23 a000).txt file a000000000000001 10 of /f.txt",
			"/f.txt file a000000000000002 10",
		}},
		{"the same contents are no conflict", []said{{"/f", content(1, "x", ann)}, {"/f", content(2, "x", bob)}}, []string{
			"/f file a000000000000002 1",
		}},
		{"a live head beats a removal", []said{{"/f", file(1, ann)}, {"/f", file(2, ann, 1)}, {"/f", file(3, bob, 1).as(Removed)}}, []string{
			"/f file a000000000000002 10",
		}},
		{"a removal", []said{{"/d/f", file(1, ann)}, {"/d/f", file(3, bob, 1).as(Removed)}}, nil},
		{"a folder keeps the name", []said{{"/d", file(3, ann)}, {"/d/f", file(1, bob)}}, []string{
			"/d folder 0000000000000000 0",
			"/d/f file a000000000000001 10",
			"/d (conflict Ann's laptop 2026-11-23 a000) file a000000000000003 10 of /d",
		}},
		{"two folders are one", []said{{"/d", file(1, ann).as(Folder)}, {"/d", file(2, bob).as(Folder)}}, []string{
			"/d folder a000000000000002 0",
		}},
		{"a circle shows all", []said{{"/f", file(1, ann, 2)}, {"/f", file(2, ann, 1)}}, []string{
			"/f file a000000000000002 10",
			"/f (conflict Ann's laptop 2026-11-23 a000) file a000000000000001 10 of /f",
		}},
		{"it replaces itself", []said{{"/f", file(1, ann, 1)}}, []string{"/f file a000000000000001 10"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := build(c.list, 1)
			if got := show(tree); !slices.Equal(got, c.want) {
				t.Errorf("shown is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// TestConflictNames: names stay apart and short, whatever somebody puts in their way.
func TestConflictNames(t *testing.T) {
	long := strings.Repeat("ä", 120) + ".jpeg"
	rude := &Author{peer.ID("rude"), "../x/\x1b[2J:" + strings.Repeat("n", 100)}
	tree := New()
	for n := range 40 {
		tree.Put("/"+long, file(n, rude))
	}
	for try := range 6 {
		n := named{"", tree.byHash[HashOf("/"+long)], keep(file(7, rude))}
		tree.Put("/"+n.candidate(try), file(100+try, bob))
	}
	seen := map[string]bool{}
	for i := range tree.List(Root) {
		if err := Check(i.Path); err != nil {
			t.Errorf("%q: %v", i.Path, err)
		}
		if i.Conflict() && Portable(i.Path) != nil {
			t.Errorf("%q cannot be held everywhere", i.Path)
		}
		if seen[i.Path] {
			t.Errorf("%q is there twice", i.Path)
		}
		seen[i.Path] = true
	}
	if len(seen) != 46 {
		t.Errorf("%d things are shown, want 46", len(seen))
	}
}

// TestReplaced: whatever is dropped behind a version, in whatever order, nothing old comes up again.
func TestReplaced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree := New()
		for n := 1; n < 20; n++ {
			v := file(n, ann)
			v.Replaces = tree.Replaced("/f", ID{})
			tree.Put("/f", v)
			if rapid.Bool().Draw(t, "expire") {
				history := tree.History("/f")[1:]
				if len(history) > 0 {
					tree.Drop(HashOf("/f"), rapid.SampledFrom(history).Draw(t, "which").ID)
				}
			}
			if got := show(tree); len(got) != 1 || !strings.Contains(got[0], v.ID.String()) {
				t.Fatalf("after version %d: %v", n, got)
			}
		}
	})
}

func TestReplacedConflict(t *testing.T) {
	tree := New()
	tree.Put("/f", file(1, ann))
	tree.Put("/f", file(2, ann, 1))
	tree.Put("/f", file(3, bob, 1))
	if got := tree.Replaced("/f", ID{}); !slices.Equal(got, []ID{mark(3), mark(1)}) {
		t.Errorf("a new version replaces %v", got)
	}
	if got := tree.Replaced("/f", mark(2)); !slices.Equal(got, []ID{mark(2), mark(1)}) {
		t.Errorf("what ends the conflict replaces %v", got)
	}
	gone := file(4, ann, 2, 1).as(Removed)
	tree.Put("/f", gone)
	if got := show(tree); len(got) != 1 || !strings.Contains(got[0], mark(3).String()) {
		t.Errorf("when the conflict is removed %v is left", got)
	}
}

func TestExpired(t *testing.T) {
	tree := New()
	for n, v := range []*Version{file(10, ann), file(20, ann, 10), file(30, bob, 10, 20)} {
		tree.Put("/f", v)
		_ = n
	}
	tree.Put("/gone", file(11, ann))
	tree.Put("/gone", file(21, ann, 11).as(Removed))
	before := func(n int) (out []string) {
		for _, d := range tree.Expired(at(n).Time(), 100) {
			out = append(out, d.ID.String())
		}
		slices.Sort(out)
		return out
	}
	ids := func(list ...int) (out []string) {
		for _, n := range list {
			out = append(out, mark(n).String())
		}
		return out
	}
	for _, c := range []struct {
		at   int
		want []string
	}{{20, nil}, {21, ids(10)}, {22, ids(10, 11)}, {31, ids(10, 11, 20)}, {100, ids(10, 11, 20)}} {
		if got := before(c.at); !slices.Equal(got, c.want) {
			t.Errorf("before %d: %v, want %v", c.at, got, c.want)
		}
	}
	tree.Drop(HashOf("/gone"), mark(11))
	if got := before(21); !slices.Equal(got, ids(10)) {
		t.Errorf("before its time goes %v", got)
	}
	if got := before(22); !slices.Equal(got, ids(10, 21)) {
		t.Errorf("once what it removed is gone, a removal goes: %v", got)
	}
	tree.Put("/gone", file(25, bob, 11).as(Removed)) // by another peer at the same time
	if got := before(25); !slices.Equal(got, ids(10)) {
		t.Errorf("before the later of two removals is old goes %v", got)
	}
	if got := before(26); !slices.Equal(got, ids(10, 21, 25)) {
		t.Errorf("of two removals there go %v", got)
	}
}

// TestSurplus: a path that is written again and again keeps few versions, the latest ones and some from all its time.
func TestSurplus(t *testing.T) {
	tree := New()
	for n := range 2000 {
		v := file(n*1000, ann)
		v.Replaces = tree.Replaced("/f", ID{})
		tree.Put("/f", v)
		for _, id := range tree.Surplus("/f") {
			tree.Drop(HashOf("/f"), id)
		}
		if got := len(tree.History("/f")); got > VersionsMax+1 {
			t.Fatalf("%d versions are kept", got)
		}
	}
	history := tree.History("/f")
	for i := range recent {
		if want := mark((1999 - i) * 1000); history[i].ID != want {
			t.Errorf("the %d-th latest is %v, want %v", i, history[i].ID, want)
		}
	}
	last := history[len(history)-1]
	if last.ID != mark(0) {
		t.Errorf("the oldest is %v", last.ID)
	}
	// Of the older half of the time there are still some.
	old := 0
	for _, v := range history {
		if v.Time < at(1_000_000) {
			old++
		}
	}
	if old < 3 {
		t.Errorf("%d of %d versions are from the older half", old, len(history))
	}
}

func TestClash(t *testing.T) {
	tree := New()
	for _, name := range []string{"Photo.JPG", "Straße", "k", "e\u0301t\u00e9", "gone"} {
		tree.Put("/"+name, file(len(name), ann))
	}
	tree.Put("/gone", file(9, ann, 4).as(Removed))
	for name, want := range map[string]string{
		"photo.jpg": "Photo.JPG", "Photo.JPG": "", "STRASSE": "", "STRAßE": "Straße", "K": "k", "\u212a": "k",
		"\u00e9te\u0301": "e\u0301t\u00e9", "ÉTÉ": "e\u0301t\u00e9", "GONE": "", "new": "",
	} {
		if got, _ := tree.Clash(Root, name); got != want {
			t.Errorf("%q clashes with %q, want %q", name, got, want)
		}
	}
	tree.Put("/PHOTO.jpg", file(20, bob)) // put elsewhere at the same time
	if got, _ := tree.Clash(Root, "photo.jpg"); got == "" {
		t.Error("with two of them there none clashes")
	}
	tree.Drop(HashOf("/Photo.JPG"), mark(9))
	if got, _ := tree.Clash(Root, "photo.jpg"); got != "PHOTO.jpg" {
		t.Errorf("when the first is gone it clashes with %q", got)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"": "/", "/": "/", "a": "/a", "//a///b/./c/": "/a/b/c", "/e\u0301": "/\u00e9", "/…": "/…", "/a b": "/a b", "/a..b": "/a..b",
	} {
		if got, err := Clean(in); err != nil || got != want {
			t.Errorf("Clean(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{
		"/..", "/a/../b", "..", "/a\x00b", "/a\nb", "/\xff", "/" + strings.Repeat("n", 256),
		strings.Repeat("/0123456789abcde", 257), strings.Repeat("/a", 257), "/\u009b2J",
	} {
		if got, err := Clean(bad); err == nil {
			t.Errorf("Clean(%.40q) = %.40q", bad, got)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	large := func(size int64, pieces ...chunk.CID) *Version {
		return &Version{Kind: File, Copies: 3, Author: ann, Root: chunk.SumNode(nil), Size: size, Pieces: pieces}
	}
	node, leaf := chunk.SumNode([]byte("n")), chunk.SumRaw([]byte("l"))
	good := []*Version{
		file(1, ann), large(SmallMax + 1), large(PieceMax), large(PieceMax+1, node, leaf),
		large(PieceMax+SmallMax+1, node, node), file(1, ann).as(Folder), file(1, ann).as(Removed),
	}
	for i, v := range good {
		if err := v.Check(); err != nil {
			t.Errorf("good version %d: %v", i, err)
		}
	}
	bad := []*Version{
		{}, file(1, ann).as(9), large(SmallMax), large(-1), large(PieceMax + 1), large(PieceMax+1, node, node),
		large(PieceMax+1, leaf, leaf), large(5*PieceMax, node), large(SmallMax+1, node), large(1<<62, node),
		{Kind: Folder, Copies: 3, Author: ann, Size: 1}, {Kind: File, Copies: 3, Author: ann},
		{Kind: Removed, Copies: 0, Author: ann}, {Kind: Removed, Copies: 65, Author: ann},
		{Kind: Folder, Copies: 3, Author: ann, Mode: 0o1777},
		{Kind: Folder, Copies: 3, Author: ann, Replaces: make([]ID, ReplacesMax+1)},
	}
	for i, v := range bad {
		if err := v.Check(); err == nil {
			t.Errorf("bad version %d passed", i)
		}
	}
}

func TestPins(t *testing.T) {
	tree := New()
	pinned := func(text string) bool { return tree.Want(chunk.SumRaw([]byte(text))).Pinned }
	tree.Put("/a/one", content(1, "one", ann))
	tree.Pin("/a")
	tree.Pin("/later")
	tree.Put("/a/two", content(2, "two", ann))
	tree.Put("/b", content(3, "two", ann))
	tree.Put("/later/x", content(4, "x", ann))
	if !pinned("one") || !pinned("two") || !pinned("x") {
		t.Error("what is under a pin is not pinned")
	}
	tree.Put("/a/one", content(5, "new", ann, 1))
	if pinned("one") || !pinned("new") {
		t.Error("the replaced version is pinned, or the new one is not")
	}
	tree.Unpin("/a")
	tree.Unpin("/nothing")
	if pinned("two") || pinned("new") || !pinned("x") {
		t.Error("unpinning went too far, or not far enough")
	}
	check(tree)
}

// TestManyVersions bounds what a member can do to others by writing a path without end.
func TestManyVersions(t *testing.T) {
	tree := New()
	const n = 2000
	for i := range n {
		id := sha256.Sum256(binary.AppendUvarint(nil, uint64(i)))
		v := file(i, ann)
		v.ID = ID(id[:8])
		tree.Put("/f", v)
	}
	if got := tree.Inside(Root); got != n {
		t.Errorf("%d things are shown, want %d", got, n)
	}
	if got := len(tree.Replaced("/f", ID{})); got != 1 {
		t.Errorf("a new version replaces %d", got)
	}
}
