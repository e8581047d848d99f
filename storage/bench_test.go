package storage

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/shoal-os/shoal/storage/chunk"
)

// The byte path, both sides in one process. Profile it with
//
//	go test ./storage -run - -bench Get -cpuprofile cpu.out && go tool pprof -top cpu.out

func BenchmarkGetOneFile(b *testing.B) {
	src := filepath.Join(b.TempDir(), "big")
	write(b, src, randomBytes(1, 256<<20))
	benchGet(b, src)
}

func BenchmarkGetSmallFiles(b *testing.B) {
	src := filepath.Join(b.TempDir(), "small")
	for i := range 10_000 {
		write(b, filepath.Join(src, strconv.Itoa(i%100), strconv.Itoa(i)), randomBytes(uint64(i), 4096))
	}
	benchGet(b, src)
	b.ReportMetric(10_000*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}

func benchGet(b *testing.B, src string) {
	p, q := newPeer(b), newPeer(b)
	sh, err := p.Share(b.Context(), src, ShareOptions{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	link := p.link(b, sh)
	b.SetBytes(sh.Size)
	for b.Loop() {
		dest := filepath.Join(b.TempDir(), "out")
		if _, err := q.Get(b.Context(), link, GetOptions{Dest: dest}, nil); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		drop(b, q, sh.Root, dest)
		b.StartTimer()
	}
}

func drop(b *testing.B, q *testPeer, root chunk.CID, dest string) {
	if err := q.Unshare(root); err != nil {
		b.Fatal(err)
	}
	if err := os.RemoveAll(dest); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkGetFour has four peers fetch from one at once; it reports how many
// times the file the seeder uploaded.
func BenchmarkGetFour(b *testing.B) {
	src := filepath.Join(b.TempDir(), "big")
	write(b, src, randomBytes(1, 256<<20))
	seeder := newPeer(b)
	sh, err := seeder.Share(b.Context(), src, ShareOptions{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	link := seeder.link(b, sh)
	b.SetBytes(4 * sh.Size)
	var peers [4]*testPeer
	for i := range peers {
		peers[i] = newPeer(b)
	}
	for b.Loop() {
		var wg sync.WaitGroup
		for _, p := range peers {
			dest := filepath.Join(b.TempDir(), "out")
			wg.Go(func() {
				res, err := p.Get(b.Context(), link, GetOptions{Dest: dest}, nil)
				if err != nil {
					b.Error(err)
				}
				b.Logf("%v: %d wasted, sources %v", res.Elapsed, res.Wasted, res.Sources)
			})
		}
		wg.Wait()
		b.StopTimer()
		for _, p := range peers {
			if err := p.Unshare(sh.Root); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(seeder.Shares()[0].Uploaded)/float64(sh.Size)/float64(b.N), "seeded/op")
}
