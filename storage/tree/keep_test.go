package tree

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/text/unicode/norm"

	"github.com/shoal-os/shoal/storage/block/piece"
)

// TestMoveLeavesWhatIsNewer: what is written at the old path while a move is under way is not what was moved, so the
// move does not take it away. Nor does a removal take away what it did not see.
func TestMoveLeavesWhatIsNewer(t *testing.T) {
	for name, f := range map[string]func(*bench) error{
		"move":   func(b *bench) error { return b.Move(ctx, "/d", "/to", false) },
		"remove": func(b *bench) error { return b.Remove(ctx, "/d", true) },
	} {
		b, other := newBench(t, "ann"), newBench(t, "bob")
		for i := range writeMax + 20 { // in two parts
			b.ok(b.put(fmt.Sprintf("/d/%03d", i), "old"))
		}
		meet(b.names, other.names)
		other.names.pass(time.Second)
		// Of the removals, the innermost and last comes first: this one is in the last part.
		other.ok(other.put("/d/000", "new"))
		maps.Copy(b.bytes.durable, other.bytes.durable)
		b.names.onWrite = func() {
			b.names.onWrite = nil
			meet(b.names, other.names)
		}
		b.ok(f(b))
		if text, err := b.cat("/d/000"); err != nil || text != "new" {
			t.Errorf("%s: what was written meanwhile is %q, %v", name, text, err)
		}
		if list, err := b.List("/d"); err != nil || len(list) != 1 {
			t.Errorf("%s: %d things are left, %v", name, len(list), err)
		}
	}
}

// TestConflictOfAMac: a name in NFD, as a Mac has it for itself, stands in a conflict's name so that it can be opened by
// any spelling.
func TestConflictOfAMac(t *testing.T) {
	const nfd, nfc = "u\u0308", "\u00fc"
	for _, c := range []struct{ stem, author string }{{nfc, "J" + nfd + "rgen"}, {nfd, "J" + nfc + "rgen"}, {nfd, "J" + nfd + "rgen"}} {
		a, b := newBench(t, c.author), newBench(t, c.author+" 2")
		for _, x := range []*bench{a, b} {
			x.names.pass(time.Second)
			f := fileOf64(t, x, x.cfg.Name)
			x.ok(x.save(ctx, []draft{x.fileDraft("/"+c.stem+"ber.txt", f, 0o644, birth, 3)}))
		}
		meet(a.names, b.names)
		list, err := a.List("/")
		a.ok(err)
		for _, e := range list {
			clean, err := cleanFor("test", e.Path)
			a.ok(err)
			if got, err := a.Stat(clean); err != nil || got.Version != e.Version {
				t.Errorf("%q is listed, and %q is %+v, %v", e.Path, clean, got, err)
			}
		}
		if len(list) != 2 || list[0].Conflict == list[1].Conflict {
			t.Errorf("listed is %+v", list)
		}
	}
}

// TestMixedForms: a path that is NFD in one name and NFC in another is found by any spelling.
func TestMixedForms(t *testing.T) {
	b := newBench(t, "ann")
	const path = "/e\u0301/\u00e9/e\u0301.txt"
	b.ok(b.save(ctx, []draft{b.fileDraft(path, fileOf64(t, b, "x"), 0o644, birth, 3)}))
	for _, spelt := range []string{path, norm.NFC.String(path), norm.NFD.String(path)} {
		if e, err := b.Stat(spelt); err != nil || e.Path != path {
			t.Errorf("%q is %q, %v", spelt, e.Path, err)
		}
	}
	b.ok(b.Remove(ctx, norm.NFC.String(path), false))
	if n, err := b.Purge(ctx, norm.NFC.String(path)); err != nil || n != 1 {
		t.Errorf("%d versions went, %v", n, err)
	}
}

// TestNoise: what programs write within a moment before the file is what it is to be makes one version.
func TestNoise(t *testing.T) {
	b := newBench(t, "ann")
	versions := func(path string, want int) {
		t.Helper()
		h, err := b.History(path)
		b.ok(err)
		if len(h) != want {
			t.Errorf("%s has %d versions, want %d: %+v", path, len(h), want, h)
		}
	}
	saveAs := func(path, text string) { // as a desktop does it
		t.Helper()
		b.ok(create(b, path, ""))
		b.ok(create(b, path, text))
		b.ok(b.SetTimes(ctx, path, birth.Add(-time.Hour)))
		b.ok(b.SetMode(ctx, path, 0o600))
	}
	saveAs("/f", "one")
	versions("/f", 1)
	if b.names.live() != 1 {
		t.Errorf("%d records are left", b.names.live())
	}
	saveAs("/f", "two")
	versions("/f", 2)
	b.shows(map[string]string{"/f": "two"})
	b.names.pass(noiseAge + time.Second)
	b.ok(b.SetMode(ctx, "/f", 0o640)) // what has stood for a while is history
	versions("/f", 3)
	b.ok(b.SetCopies(ctx, "/f", 7))
	versions("/f", 4)

	b.ok(create(b, "/empty", ""))
	b.ok(b.Remove(ctx, "/empty", false)) // a removal replaces it: it can be restored
	versions("/empty", 2)
	_, err := b.Restore(ctx, "/empty", ID{})
	b.ok(err)
	b.shows(map[string]string{"/f": "two", "/empty": ""})
}

// TestNoiseOfOthers: what another peer wrote, or replaced, is not noise.
func TestNoiseOfOthers(t *testing.T) {
	a, b := newBench(t, "ann"), newBench(t, "bob")
	a.ok(create(a, "/f", ""))
	meet(a.names, b.names)
	b.ok(create(b, "/f", "by bob"))
	if h, err := b.History("/f"); err != nil || len(h) != 2 {
		t.Errorf("of ann's empty one and bob's %d are left, %v", len(h), err)
	}
	a.ok(create(a, "/f", "by ann")) // at the same time
	meet(a.names, b.names)
	for _, x := range []*bench{a, b} {
		list, err := x.List("/")
		x.ok(err)
		if len(list) != 2 {
			t.Errorf("listed is %+v", list)
		}
	}
	// A peer that heard of the first and the last version, and of nothing between, sees no conflict.
	c := newBench(t, "cat")
	b.ok(create(b, "/g", ""))
	meet(b.names, c.names)
	b.ok(create(b, "/g", "text"))
	b.ok(b.SetTimes(ctx, "/g", birth.Add(-time.Hour)))
	for r := range b.names.Scan(filePrefix) {
		c.names.merge(r)
	}
	if e, err := c.Stat("/g"); err != nil || e.Size() != 4 {
		t.Errorf("it is %+v, %v", e, err)
	}
	for e, err := range c.Walk("/") {
		if c.ok(err); e.Of == "/g" {
			t.Errorf("there is a conflict %+v", e)
		}
	}
}

// TestMoveKeepsCopies: what is saved by writing beside and moving over stays as safe as somebody wanted it.
func TestMoveKeepsCopies(t *testing.T) {
	b := newBench(t, "ann")
	b.ok(b.put("/d/doc", "one"))
	b.ok(b.SetCopies(ctx, "/d/doc", 7))
	copies := func(want int) {
		t.Helper()
		e, err := b.Stat("/d/doc")
		b.ok(err)
		if e.Copies != want {
			t.Errorf("%d copies are wanted, not %d", e.Copies, want)
		}
	}
	b.ok(b.put("/d/doc.tmp", "two"))
	b.ok(b.Move(ctx, "/d/doc.tmp", "/d/doc", true))
	copies(7)
	b.ok(b.put("/e/doc", "three"))
	b.ok(b.Move(ctx, "/e", "/d", true)) // a folder with it
	copies(7)
	b.ok(b.put("/more", "four"))
	b.ok(b.SetCopies(ctx, "/more", 9))
	b.ok(b.Move(ctx, "/more", "/d/doc", true))
	copies(9)
}

// TestSecuringNeverWaits: files get their names however many pieces wait for their copies, and those are made many at
// a time, with a bound.
func TestSecuringNeverWaits(t *testing.T) {
	b := newBench(t, "ann")
	b.bytes.holding = make(chan struct{})
	var mu sync.Mutex
	var takes []int
	b.bytes.held = func(pieces []piece.Piece) {
		mu.Lock()
		defer mu.Unlock()
		takes = append(takes, len(pieces))
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	const files = 1500
	for i := range files {
		w, err := b.Create(short, fmt.Sprint("/", i), CreateOptions{})
		b.ok(err)
		_, err = fmt.Fprint(w, "text ", i)
		b.ok(err)
		if err := w.Close(); err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
	}
	if s := b.Status(); s.Securing != files {
		t.Errorf("%d pieces wait for copies", s.Securing)
	}
	close(b.bytes.holding)
	for b.Status().Securing > 0 {
		runtime.Gosched()
	}
	mu.Lock()
	defer mu.Unlock()
	if len(takes) > 8 || slices.Max(takes) < 256 {
		t.Errorf("copies were made of %v pieces at a time", takes)
	}
	if b.bytes.secured != files {
		t.Errorf("%d pieces have copies", b.bytes.secured)
	}
}
