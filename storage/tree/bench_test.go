package tree

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/tree/paths"
)

// filled makes the records of n files in one folder, each with contents of its own.
func filled(t testing.TB, n int) *fakeNames {
	f := newFakeNames(peer.ID("peer ann"))
	by := &paths.Author{Peer: f.self, Name: "ann"}
	for i := range n {
		v := &paths.Version{
			Kind: File, Copies: 3, Mode: 0o644, MTime: birth.UnixNano() + int64(i), Author: by,
			Root: chunk.SumRaw(fmt.Append(nil, i)), Size: int64(1000 + i),
		}
		c, err := encodeVersion(fmt.Sprintf("/photos/2026/IMG_%06d.jpg", i*7919%n), v)
		must(t, err)
		f.records[c.Key] = &directory.Record{Key: c.Key, Value: c.Value, Author: f.self, Time: 1}
	}
	return f
}

const manyFiles = 100_000

// TestListing: a folder of 100,000 is listed in no time that grows faster than it, the first time too, when it has to be
// sorted; and an entry takes less than 400 bytes beyond the directory's own.
func TestListing(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	f := filled(t, manyFiles)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	b := openBench(t, f, newFakeBytes())
	opened := time.Since(began)
	took := [2]time.Duration{}
	for i := range took {
		began = time.Now()
		list, err := b.List("/photos/2026")
		took[i] = time.Since(began)
		b.ok(err)
		if len(list) != manyFiles || list[0].Name != "IMG_000000.jpg" || list[manyFiles-1].File.Pieces[0].Size == 0 {
			t.Fatal("the listing is wrong")
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (after.HeapAlloc - before.HeapAlloc) / manyFiles
	t.Logf("opened in %v, listed in %v and %v, %d bytes of memory an entry", opened, took[0], took[1], each)
	// The race detector and a busy machine make it slower by far, fifty times as seen; the benchmark has the figures. What is
	// quadratic takes minutes.
	if took[1] > 30*time.Second || each > 450 {
		t.Errorf("listed in %v, %d bytes an entry", took[1], each)
	}
	runtime.KeepAlive(b)
}

// BenchmarkList lists a folder of 100,000 files: "first" after something was added, so that it must be sorted.
func BenchmarkList(b *testing.B) {
	x := openBench(b, filled(b, manyFiles), newFakeBytes())
	b.Run("first", func(b *testing.B) {
		for i := range b.N {
			b.StopTimer()
			must(b, x.put(fmt.Sprint("/photos/2026/A", i), ""))
			b.StartTimer()
			if _, err := x.List("/photos/2026"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("again", func(b *testing.B) {
		for range b.N {
			if _, err := x.List("/photos/2026"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("stat", func(b *testing.B) {
		for i := range b.N {
			if _, err := x.Stat(fmt.Sprintf("/photos/2026/IMG_%06d.jpg", i%manyFiles)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("find", func(b *testing.B) {
		for range b.N {
			for _, err := range x.Find("/", "*99.jpg") {
				must(b, err)
			}
		}
	})
	b.Run("usage", func(b *testing.B) {
		for range b.N {
			_, err := x.Usage("/")
			must(b, err)
		}
	})
	b.Run("wants", func(b *testing.B) {
		for range b.N {
			for range x.Wants() {
			}
		}
	})
}

// BenchmarkOpen reads 100,000 versions.
func BenchmarkOpen(b *testing.B) {
	f := filled(b, manyFiles)
	b.ResetTimer()
	for range b.N {
		x := openBench(b, f, newFakeBytes())
		_ = x.Close()
	}
}

// BenchmarkWrite writes versions of files into a folder of 100,000.
func BenchmarkWrite(b *testing.B) {
	x := openBench(b, filled(b, manyFiles), newFakeBytes())
	b.Run("one", func(b *testing.B) {
		for i := range b.N {
			must(b, x.put(fmt.Sprint("/photos/2026/new", i), ""))
		}
	})
	b.Run("many", func(b *testing.B) {
		p := x.NewPut(PutOptions{})
		for i := range b.N {
			must(b, p.File(ctx, fmt.Sprint("/photos/2026/put", i), 0, birth, strings.NewReader("")))
		}
		_, err := p.Commit(ctx)
		must(b, err)
	})
	b.Run("same", func(b *testing.B) {
		for i := range b.N {
			f := piece.File{Root: chunk.SumRaw(fmt.Append(nil, i)), Size: 3}
			must(b, x.save(ctx, []draft{x.fileDraft("/photos/2026/same", f, 0o644, birth, 3)}))
		}
	})
}
