package piece

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-os/shoal/storage/block/pack"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/folder/crash"
)

// TestAFlippedBit flips bits of every file of a store, before it is opened and while it is open: nothing but the right
// bytes is ever given, what was hit is found by Verify, the rest stays, and adding it again mends it.
func TestAFlippedBit(t *testing.T) {
	base := crash.New(1)
	w, err := openWorld(t, base)
	if err != nil {
		t.Fatal(err)
	}
	files := [][]byte{noise(1, 300), noise(2, 2000), noise(3, 1), noise(4, SmallMax+10)}
	aside := noise(5, 100)
	err = errors.Join(w.put(files...), w.put(aside), w.quarantine(aside), w.pin(files[1]), w.s.Close())
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, name := range base.Names() {
		bits := 8 * base.Size(name)
		for bit := 0; bit < bits; {
			for _, open := range []bool{false, true} {
				flipped(t, base.Clone(), files, name, bit, open)
			}
			if bit += 1 + rng.IntN(600); bits > 1<<20 {
				bit += rng.IntN(bits / 50)
			}
		}
	}
}

func flipped(t *testing.T, fs *crash.FS, files [][]byte, name string, bit int, open bool) {
	t.Helper()
	clk := newClock()
	w := &world{clk: clk, bytes: map[chunk.CID][]byte{}, acked: map[chunk.CID]bool{}}
	if !open {
		fs.Flip(name, bit)
	}
	if err := w.open(t, fs); err != nil {
		t.Fatalf("%s bit %d: %v", name, bit, err)
	}
	defer w.s.Close()
	if open && name != changesFile {
		fs.Flip(name, bit)
	}
	lost := 0
	for _, data := range files {
		id := dag(data)
		f := File{id, int64(len(data)), []Piece{{id, int64(len(data))}}}
		for range 2 {
			got, err := read(w.s, f)
			if err == nil && !bytes.Equal(got, data) {
				t.Fatalf("%s bit %d: other bytes are given", name, bit)
			}
			if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotFound) {
				t.Fatalf("%s bit %d: %v", name, bit, err)
			}
		}
		if err := w.s.Verify(context.Background(), id); err != nil {
			lost++
			if w.s.Has(id) {
				t.Fatalf("%s bit %d: damaged and held", name, bit)
			}
		}
	}
	hit := strings.HasPrefix(name, largeDir) || strings.HasSuffix(name, ".pack")
	// The last frame is of the piece that is aside, which nobody reads.
	unread := strings.HasSuffix(name, ".pack") && bit/8 >= fs.Size(name)-int(pack.Cost(100))
	if lost > 1 || lost == 1 && !hit || hit && lost == 0 && !unread {
		t.Fatalf("%s bit %d: %d files are damaged", name, bit, lost)
	}
	checkSums(t, w.s)
	if u := w.s.Usage(); lost > 0 && open && u.Damaged == 0 {
		t.Fatalf("%s bit %d: damage is not counted: %+v", name, bit, u)
	}
	if err := w.put(files...); err != nil {
		t.Fatal(err)
	}
	for _, data := range files {
		if err := w.s.Verify(context.Background(), dag(data)); err != nil {
			t.Fatalf("%s bit %d: not mended: %v", name, bit, err)
		}
	}
	if u := w.s.Usage(); u.Damaged > 0 && lost > 0 {
		t.Fatalf("%s bit %d: mended, and damaged still: %+v", name, bit, u)
	}
	checkSums(t, w.s)
}

// TestDamageOnTheRealDisk is the same for one bit of a real file, noticed by the swarm, kept over a restart, and
// mended by fetching one leaf.
func TestDamageOnTheRealDisk(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Dir: dir})
	x := newSource(t, noise(1, 4*SmallMax))
	put(t, s, x.data)
	view, _ := s.Roots().Root(x.tree.Root)
	name := filepath.Join(dir, largeName(x.tree.Root))
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{^x.data[2*SmallMax+5]}, 2*SmallMax+5); err != nil {
		t.Fatal(err)
	}
	f.Close()
	l, err := s.OpenLarge(x.tree.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	buf := make([]byte, SmallMax)
	if _, err := l.ReadAt(buf, SmallMax); err != nil || !bytes.Equal(buf, x.leaf(1)) {
		t.Fatal(err)
	}
	wake := s.Changed()
	if n, err := l.ReadAt(buf, 2*SmallMax-10); !errors.Is(err, ErrDamaged) || n != 10 {
		t.Fatal(n, err)
	}
	<-wake
	check := func() {
		t.Helper()
		if _, ok := s.Roots().Root(x.tree.Root); ok || s.Has(x.tree.Root) || s.Restore(x.tree.Root) {
			t.Fatal("held still")
		}
		if u := s.Usage(); u.Damaged < 4*SmallMax || u.Held != 0 {
			t.Fatalf("%+v", u)
		}
		checkUsage(t, s, dir)
	}
	check()
	if !view.Suspect() {
		t.Fatal("served still")
	}
	s.Close()
	s = mustOpen(t, Config{Dir: dir})
	check()
	r := x.begin(t, s, 3)
	x.fetch(t, r, 2)
	if err := s.FinishLarge(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	mustRead(t, s, x.file(), x.data)
	checkServed(t, s, x)
	checkUsage(t, s, dir)
	s.Damaged(x.tree.Root)
	check()
	put(t, s, x.data) // or put again
	checkServed(t, s, x)
	checkUsage(t, s, dir)
}

// TestFilesTakenAway: what somebody removed from the folder is not held at the next start.
func TestFilesTakenAway(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Dir: dir})
	large, small := noise(1, 2*SmallMax), noise(2, 10)
	put(t, s, large)
	put(t, s, small)
	epoch := s.Epoch()
	s.Close()
	if err := os.Remove(filepath.Join(dir, largeName(dag(large)))); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, Config{Dir: dir})
	if s.Has(dag(large)) || !s.Has(dag(small)) || s.Epoch() == epoch {
		t.Fatal("a missing file is not noticed")
	}
	epoch = s.Epoch()
	checkUsage(t, s, dir)
	s.Close()
	s = mustOpen(t, Config{Dir: dir})
	if s.Epoch() != epoch {
		t.Fatal("a missing file is noticed again and again")
	}
}

// TestGoodBytesReplaceBadOnes: a piece is put that is here already, rotten, and nobody has noticed.
func TestGoodBytesReplaceBadOnes(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Dir: dir})
	data := noise(1, 5000)
	f := put(t, s, data)
	names, err := filepath.Glob(filepath.Join(dir, packsDir, "*.pack"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	pack, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	pack[len(pack)-1] ^= 1
	if err := os.WriteFile(names[0], pack, 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, s, data)
	mustRead(t, s, f, data)
	if u := s.Usage(); u.Damaged != 0 || u.Pieces != 1 {
		t.Fatalf("%+v", u)
	}
	checkUsage(t, s, dir)
}
