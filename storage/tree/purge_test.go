package tree

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
)

func TestPurge(t *testing.T) {
	b := newBench(t, "ann")
	purge := func(path string, want int) {
		t.Helper()
		before := b.show()
		n, err := b.Purge(ctx, path)
		b.ok(err)
		if n != want {
			t.Errorf("of %s %d versions went, want %d", path, n, want)
		}
		b.shows(before)
	}
	live := func(want ...string) {
		t.Helper()
		got := map[chunk.CID]bool{}
		for w := range b.Wants() {
			got[w.Piece.ID] = true
		}
		for _, text := range want {
			if !got[chunk.SumRaw([]byte(text))] {
				t.Errorf("%q is not wanted", text)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d pieces are wanted, not %q", len(got), want)
		}
	}
	b.ok(b.put("/d/f", "1"))
	b.ok(b.put("/d/f", "2"))
	b.ok(b.put("/d/f", "3"))
	b.ok(b.put("/d/gone/g", "4"))
	b.ok(b.put("/d-/h", "5"))
	b.ok(b.put("/d-/h", "6"))
	b.ok(b.put("/e/i", "7"))
	b.ok(b.Remove(ctx, "/d/gone", true))
	b.ok(b.Remove(ctx, "/e", true))
	live("1", "2", "3", "4", "5", "6", "7")

	purge("/d/f", 2)
	live("3", "4", "5", "6", "7")
	purge("/d", 2) // a folder and the file in it
	live("3", "5", "6", "7")
	purge("/e", 2) // which shows nothing
	live("3", "5", "6")
	purge("/e", 0)
	_, err := b.Restore(ctx, "/e", ID{})
	b.want(err, ErrNotExist)
	_, err = b.Purge(ctx, "/none")
	b.want(err, ErrNotExist)
	purge("/", 1)
	live("3", "6")
	b.shows(map[string]string{"/d/": "", "/d/f": "3", "/d-/": "", "/d-/h": "6"})

	// What is left of the removals goes when they are old.
	b.names.pass(Keep + time.Second)
	n, err := b.Expire(ctx, b.names.time())
	b.ok(err)
	if n != 4 || b.names.live() != 4 {
		t.Errorf("%d removals went, %d records are left", n, b.names.live())
	}
	// The purged path is as good as new.
	b.ok(b.put("/e/i", "7"))
	b.shows(map[string]string{"/d/": "", "/d/f": "3", "/d-/": "", "/d-/h": "6", "/e/": "", "/e/i": "7"})
}

// TestPurgeBesideRestore: what was purged does not keep an earlier removal from being undone.
func TestPurgeBesideRestore(t *testing.T) {
	b := newBench(t, "ann")
	b.ok(b.put("/d/a", "a"))
	b.ok(b.put("/d/b", "b"))
	b.ok(b.Remove(ctx, "/d/a", false))
	b.names.pass(time.Second)
	b.ok(b.Remove(ctx, "/d/b", false))
	_, err := b.Purge(ctx, "/d/b")
	b.ok(err)
	n, err := b.Restore(ctx, "/d", ID{})
	if err != nil || n != 1 {
		t.Errorf("%d things came back, %v", n, err)
	}
	b.shows(map[string]string{"/d/": "", "/d/a": "a"})
}

// TestPurgeConflict: both sides of a conflict stay, by whichever name it is purged, and on all peers.
func TestPurgeConflict(t *testing.T) {
	a, b := newBench(t, "ann"), newBench(t, "bob")
	a.ok(a.put("/f", "old"))
	a.names.pass(time.Hour)
	a.ok(a.put("/f", "older"))
	meet(a.names, b.names)
	a.ok(a.put("/f", "by ann"))
	b.names.pass(time.Second)
	b.ok(b.put("/f", "by bob"))
	meet(a.names, b.names)
	maps.Copy(a.bytes.durable, b.bytes.durable)
	maps.Copy(b.bytes.durable, a.bytes.durable)
	before := a.show()
	if len(before) != 2 {
		t.Fatalf("shown is %v", before)
	}
	for e := range a.Walk("/") {
		if e.Conflict {
			n, err := a.Purge(ctx, e.Path)
			if err != nil || n != 2 {
				t.Errorf("%d versions went, %v", n, err)
			}
		}
	}
	a.shows(before)
	meet(a.names, b.names)
	b.shows(before)
}

// TestPurgeMuch goes over several parts, with somebody else's writes between.
func TestPurgeMuch(t *testing.T) {
	b, other := newBench(t, "ann"), newBench(t, "bob")
	want := map[string]string{"/d/": "", "/d/000": "by bob"}
	for i := range writeMax + 50 {
		path := fmt.Sprintf("/d/%03d", i)
		b.ok(b.put(path, "old"))
		b.ok(b.put(path, "new"))
		want[path] = "new"
	}
	want["/d/299"] = "by bob"
	meet(b.names, other.names)
	other.names.pass(time.Second)
	other.ok(other.put("/d/299", "by bob"))
	maps.Copy(b.bytes.durable, other.bytes.durable)
	b.names.onWrite = func() {
		b.names.onWrite = nil
		meet(b.names, other.names)
	}
	n, err := b.Purge(ctx, "/d")
	if err != nil || n != writeMax+50 && n != writeMax+51 {
		t.Errorf("%d versions went, %v", n, err)
	}
	b.shows(want)
}

// TestWriterEntry: a writer says what it wrote, whatever is at the path by the time it is asked.
func TestWriterEntry(t *testing.T) {
	b := newBench(t, "ann")
	b.ok(b.put("/f", "before"))
	w, err := b.Create(ctx, "/f", CreateOptions{Mode: 0o600})
	b.ok(err)
	_, err = w.Write([]byte("mine"))
	b.ok(err)
	if w.Entry().Version.Defined() {
		t.Errorf("before it is written it is %+v", w.Entry())
	}
	b.ok(w.Close())
	at, err := b.Stat("/f")
	b.ok(err)
	b.ok(b.put("/f", "theirs"))
	got := w.Entry()
	if got.File.Root != chunk.SumRaw([]byte("mine")) || got.Version != at.Version || !got.Time.Equal(at.Time) || got.Mode != 0o600 ||
		got.Size() != 4 || got.Name != "f" || got.AuthorName != "ann" || got.Kind != File {
		t.Errorf("it says %+v, what it wrote was %+v", got, at)
	}
	w, err = b.Create(ctx, "/g", CreateOptions{})
	b.ok(err)
	w.Abort()
	if w.Entry().Version.Defined() {
		t.Errorf("after it was given up it is %+v", w.Entry())
	}
}

// TestLane: a queue of pieces is bounded, and gives them out in order, many at a time, by how many copies are wanted.
func TestLane(t *testing.T) {
	l := newLane(5, 3)
	for n := range 7 {
		copies := 3
		if n == 2 {
			copies = 4
		}
		p := toSecure{piece.Piece{Size: int64(n)}, copies}
		if got := l.add(p); got != (n < 5) {
			t.Errorf("piece %d found room: %v", n, got)
		}
	}
	for _, want := range []string{"[0 1] 3", "[2] 4", "[3 4] 3"} {
		pieces, copies := l.next(ctx)
		var sizes []int64
		for _, p := range pieces {
			sizes = append(sizes, p.Size)
		}
		if got := fmt.Sprint(sizes, " ", copies); got != want {
			t.Errorf("given out is %s, want %s", got, want)
		}
	}
	if pieces, _ := l.pop(); len(pieces) > 0 {
		t.Errorf("left over is %v", pieces)
	}
}
