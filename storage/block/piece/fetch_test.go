package piece

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/folder"
)

// source is a large piece as another peer sends it.
type source struct {
	data  []byte
	tree  *chunk.Tree
	nodes [][]byte
}

func newSource(t testing.TB, data []byte) source {
	t.Helper()
	var leaves []chunk.CID
	for from := 0; from < len(data); from += chunk.LeafSize {
		leaves = append(leaves, chunk.SumRaw(data[from:min(from+chunk.LeafSize, len(data))]))
	}
	root, nodes := chunk.FileDAG(leaves, int64(len(data)))
	w := chunk.NewWalker(root.CID, chunk.Limits{})
	if err := w.Add(nodes[0].Data); err != nil {
		t.Fatal(err)
	}
	tree, err := w.Tree()
	if err != nil {
		t.Fatal(err)
	}
	return source{data, tree, [][]byte{nodes[0].Data}}
}

func (x source) leaf(i int) []byte {
	return x.data[i*chunk.LeafSize : min((i+1)*chunk.LeafSize, len(x.data))]
}

func (x source) file() File {
	return File{x.tree.Root, x.tree.Size, []Piece{{x.tree.Root, x.tree.Size}}}
}

// fetch writes leaves as the swarm does.
func (x source) fetch(t testing.TB, r *block.Root, leaves ...int) {
	t.Helper()
	w, err := r.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, i := range leaves {
		if err := errors.Join(w.WriteLeaf(i, x.leaf(i)), r.Mark(i)); err != nil {
			t.Fatal(err)
		}
	}
}

func (x source) begin(t testing.TB, s *Store, have int) *block.Root {
	t.Helper()
	r, err := s.BeginLarge(x.tree, x.nodes)
	if err != nil {
		t.Fatal(err)
	}
	if r.HaveCount() != have || r.Suspect() {
		t.Fatalf("begins with %d leaves, suspect %v; want %d", r.HaveCount(), r.Suspect(), have)
	}
	return r
}

func TestFetchLarge(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Dir: dir})
	x := newSource(t, noise(1, 5*SmallMax-9))
	r := x.begin(t, s, 0)
	x.fetch(t, r, 0, 3, 4)
	if err := s.FinishLarge(context.Background(), r); err == nil {
		t.Fatal("finished without all leaves")
	}
	if s.Has(x.tree.Root) {
		t.Fatal("a partial is held")
	}
	if got, ok := s.Roots().Root(x.tree.Root); !ok || got != r {
		t.Fatal("a partial is not served")
	}
	if u := s.Usage(); u.Reserved < x.tree.Size {
		t.Fatalf("%+v", u)
	}
	checkUsage(t, s, dir)
	old, err := r.NewReader() // an upload that goes on meanwhile
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if _, err := old.ReadLeaf(3, nil); err != nil {
		t.Fatal(err)
	}
	x.fetch(t, r, 1, 2)
	if err := s.FinishLarge(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	mustRead(t, s, x.file(), x.data)
	checkUsage(t, s, dir)
	if u := s.Usage(); u.Reserved != 0 || len(s.locks) != 0 {
		t.Fatalf("%+v, locks %v", u, s.locks)
	}
	if got, ok := s.Roots().Root(x.tree.Root); !ok || got != r {
		t.Fatal("another root is served than was fetched")
	}
	for i := range x.tree.Leaves {
		if data, err := old.ReadLeaf(i, nil); err != nil || !bytes.Equal(data, x.leaf(i)) {
			t.Fatalf("leaf %d: %v", i, err)
		}
	}
	s.Close()
	s = mustOpen(t, Config{Dir: dir})
	mustRead(t, s, x.file(), x.data)
	checkServed(t, s, x)
	r = x.begin(t, s, len(x.tree.Leaves)) // it is held: given whole
	if err := s.FinishLarge(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	checkUsage(t, s, dir)
	if len(s.locks) != 0 {
		t.Fatal("locked still")
	}
}

// checkServed reads a piece as the swarm does.
func checkServed(t testing.TB, s *Store, x source) {
	t.Helper()
	r, ok := s.Roots().Root(x.tree.Root)
	if !ok || r.Suspect() || r.NeedsSync() || !r.Trusted() {
		t.Fatal("a held piece is not served")
	}
	if again, _ := s.Roots().Root(x.tree.Root); again != r {
		t.Fatal("two roots of one piece")
	}
	if have, whole := r.Have(); !whole || have.Count() != len(x.tree.Leaves) {
		t.Fatal("not whole")
	}
	if bad, err := r.Check(10); err != nil || len(bad) > 0 {
		t.Fatal(bad, err)
	}
	var node []byte
	if err := r.Nodes(func(b []byte) error { node = append(node, b...); return nil }); err != nil || !bytes.Equal(node, x.nodes[0]) {
		t.Fatal(err)
	}
	n, err := r.OpenNodes()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if b, err := n.Read(x.tree.Root); err != nil || !bytes.Equal(b, x.nodes[0]) {
		t.Fatal(err)
	}
	rd, err := r.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	for i := range x.tree.Leaves {
		if data, err := rd.ReadLeaf(i, nil); err != nil || !bytes.Equal(data, x.leaf(i)) {
			t.Fatalf("leaf %d: %v", i, err)
		}
	}
}

func TestFetchGoesOn(t *testing.T) {
	dir, clk := t.TempDir(), newClock()
	cfg := Config{Dir: dir, Now: clk.now}
	s := mustOpen(t, cfg)
	x := newSource(t, noise(1, 4*SmallMax))
	r := x.begin(t, s, 0)
	x.fetch(t, r, 0, 1)
	s.Close()
	s = mustOpen(t, cfg)
	checkUsage(t, s, dir)
	r = x.begin(t, s, 2)
	x.fetch(t, r, 2)
	clk.t = clk.t.Add(time.Hour)
	if c := collect(t, s, none); c.Dropped != 0 {
		t.Fatal("collected while it is fetched")
	}
	if err := s.StopLarge(r, false); err != nil {
		t.Fatal(err)
	}
	r = x.begin(t, s, 3)
	x.fetch(t, r, 3)
	if err := s.FinishLarge(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	mustRead(t, s, x.file(), x.data)

	y := newSource(t, noise(2, 4*SmallMax))
	r = y.begin(t, s, 0)
	y.fetch(t, r, 0)
	if err := s.StopLarge(r, true); err != nil {
		t.Fatal(err)
	}
	if u := s.Usage(); u.Reserved != 0 {
		t.Fatalf("%+v", u)
	}
	r = y.begin(t, s, 0)
	y.fetch(t, r, 0)
	if err := s.StopLarge(r, false); err != nil {
		t.Fatal(err)
	}
	clk.t = clk.t.Add(time.Hour)
	if c := collect(t, s, all); c.Dropped != 0 {
		t.Fatal("what is named is dropped")
	}
	if c := collect(t, s, none); c.Dropped != 1 {
		t.Fatalf("%+v", c)
	}
	if u := s.Usage(); u.Reserved != 0 {
		t.Fatalf("%+v", u)
	}
	checkUsage(t, s, dir)
}

func TestPutWhileFetched(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Dir: dir})
	x := newSource(t, noise(1, 3*SmallMax))
	r := x.begin(t, s, 0)
	x.fetch(t, r, 0)
	put(t, s, x.data)
	mustRead(t, s, x.file(), x.data)
	x.fetch(t, r, 1, 2)
	if err := s.FinishLarge(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	checkUsage(t, s, dir)
	checkServed(t, s, x)

	y := newSource(t, noise(2, 3*SmallMax)) // the fetch was given up
	r = y.begin(t, s, 0)
	y.fetch(t, r, 0)
	if err := s.StopLarge(r, false); err != nil {
		t.Fatal(err)
	}
	put(t, s, y.data)
	checkUsage(t, s, dir)
	checkServed(t, s, y)
	if u := s.Usage(); u.Reserved != 0 {
		t.Fatalf("%+v", u)
	}
	s.Close()
	s = mustOpen(t, Config{Dir: dir})
	checkServed(t, s, x)
	checkServed(t, s, y)
}

func TestFetchAfterMove(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Dir: dir + "/a"})
	x := newSource(t, noise(1, 4*SmallMax))
	held := newSource(t, noise(2, 2*SmallMax))
	put(t, s, held.data)
	r := x.begin(t, s, 0)
	x.fetch(t, r, 0, 1, 2)
	s.Close()
	if err := os.Rename(dir+"/a", dir+"/b"); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, Config{Dir: dir + "/b"})
	checkServed(t, s, held)
	x.begin(t, s, 3) // the record is of another place; what the file holds is read and believed
}

func TestBeginLargeRefuses(t *testing.T) {
	s := mustOpen(t, Config{Dir: t.TempDir(), Quota: 8 << 20})
	x := newSource(t, noise(1, 2*SmallMax))
	big := newSource(t, noise(1, 9*SmallMax))
	if _, err := s.BeginLarge(big.tree, big.nodes); !errors.Is(err, ErrQuota) {
		t.Fatal(err)
	}
	odd := *x.tree
	odd.Size--
	for name, bad := range map[string]struct {
		tree  *chunk.Tree
		nodes [][]byte
	}{
		"no nodes": {x.tree, nil}, "another node": {x.tree, big.nodes}, "more nodes": {x.tree, append(x.nodes[:1:1], x.nodes[0])},
		"another size": {&odd, x.nodes}, "raw": {&chunk.Tree{Root: chunk.SumRaw(nil), Entries: make([]chunk.Entry, 1)}, nil},
	} {
		if _, err := s.BeginLarge(bad.tree, bad.nodes); !errors.Is(err, ErrNotPiece) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if len(s.locks) != 0 {
		t.Fatal("locked still")
	}
	checkUsage(t, s, s.dir)
}

// powerGoes is a folder that loses its power when the bytes of a large piece are to be made durable for the first time: what
// the swarm wrote of it just now is gone, while all names are as they were. The kernel keeps names sooner than bytes.
type powerGoes struct {
	folder.FS
	dir  string
	from int64 // the first byte that is lost
	gone bool
}

func (f *powerGoes) SyncFile(name string) error {
	if !strings.HasPrefix(name, largeDir) {
		return f.FS.SyncFile(name)
	}
	f.gone = true
	file, err := os.OpenFile(filepath.Join(f.dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(make([]byte, chunk.LeafSize), f.from)
	return errors.Join(err, file.Close(), errors.New("the power is gone"))
}

// TestPowerFailsWhileMended: a damaged large piece has its frame in a pack still. So its file must not be under its name again
// before its bytes are durable, or the next start takes what the power left of them for the piece.
func TestPowerFailsWhileMended(t *testing.T) {
	dir := t.TempDir()
	inner, err := folder.Dir(dir, packsDir, cacheDir, largeDir, marksDir)
	if err != nil {
		t.Fatal(err)
	}
	fs := &powerGoes{FS: inner, dir: dir, from: 2 * SmallMax}
	s := mustOpen(t, Config{Dir: dir, fs: fs})
	x := newSource(t, noise(1, 3*SmallMax))
	put(t, s, x.data)
	bad, err := os.OpenFile(filepath.Join(dir, largeName(x.tree.Root)), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bad.WriteAt([]byte("damage"), fs.from); err != nil {
		t.Fatal(err)
	}
	bad.Close()
	if err := s.Verify(context.Background(), x.tree.Root); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
	r := x.begin(t, s, 2)
	put(t, s, noise(2, 100)) // makes durable that the old copy is no longer in the way
	x.fetch(t, r, 2)
	if err := s.FinishLarge(context.Background(), r); err == nil || !fs.gone {
		t.Fatalf("finished, %v", err)
	}
	s = mustOpen(t, Config{Dir: dir, fs: inner})
	if s.Has(x.tree.Root) {
		t.Fatalf("held after the loss of power: %v", s.Verify(context.Background(), x.tree.Root))
	}
}

// noSync is a folder in which a large piece that has its name cannot be made durable.
type noSync struct{ folder.FS }

func (f noSync) SyncFile(name string) error {
	if _, err := chunk.ParseCID(strings.TrimPrefix(name, largeDir+"/")); err == nil {
		return errors.New("no sync")
	}
	return f.FS.SyncFile(name)
}

// TestWhatIsStoppedTakesNoRoom: neither what came of a piece that a batch held meanwhile, nor what could not be made durable in
// the end.
func TestWhatIsStoppedTakesNoRoom(t *testing.T) {
	dir := t.TempDir()
	inner, err := folder.Dir(dir, packsDir, cacheDir, largeDir, marksDir)
	if err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, Config{Dir: dir, fs: noSync{inner}})
	none := func() {
		t.Helper()
		if u := s.Usage(); u.Reserved != 0 {
			t.Errorf("%+v", u)
		}
		checkUsage(t, s, dir)
	}
	x := newSource(t, noise(1, 3*SmallMax))
	r := x.begin(t, s, 0)
	x.fetch(t, r, 0)
	put(t, s, x.data)
	if err := s.StopLarge(r, false); err != nil {
		t.Fatal(err)
	}
	none()
	checkServed(t, s, x)

	y := newSource(t, noise(2, 3*SmallMax))
	r = y.begin(t, s, 0)
	y.fetch(t, r, 0, 1, 2)
	if err := s.FinishLarge(context.Background(), r); err == nil {
		t.Fatal("finished")
	}
	if err := s.StopLarge(r, true); err != nil {
		t.Fatal(err)
	}
	none()
	if names, err := inner.List(largeDir); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
	y.begin(t, s, 0)
}
