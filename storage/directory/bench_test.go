package directory

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/folder"
)

// BenchmarkOpen opens a directory of 100,000 records of 100 bytes from a real disk.
func BenchmarkOpen(b *testing.B) {
	const n = 100_000
	dir := b.TempDir()
	fs, err := folder.Dir(dir)
	if err != nil {
		b.Fatal(err)
	}
	p := newFakePool(b)
	x := p.joinWith(1, fs, 0)
	fillDisk(b, x, n)
	if err := x.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		x.Directory, x.onConn, x.handler = nil, nil, nil // they hold the one before
		before := heap()
		start := time.Now()
		d, err := open(x.config(), fs)
		if err != nil {
			b.Fatal(err)
		}
		took := time.Since(start)
		if d.Len() != n {
			b.Fatalf("%d records", d.Len())
		}
		b.ReportMetric(float64(took.Milliseconds()), "ms/open")
		b.ReportMetric(float64(heap()-before)/n, "heap-bytes/record")
		b.ReportMetric(float64(d.Status().Bytes)/n, "stored-bytes/record")
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
	}
	x.open() // for the cleanup
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// fillDisk has a directory hold n records that nobody signed.
func fillDisk(t testing.TB, x *fakeNode, n int) {
	t.Helper()
	for at := 0; at < n; at += 1000 {
		err := x.submit(t.Context(), &job{durable: true, decide: func(b *batch) error {
			for i := range 1000 {
				r, err := Record{
					Key: fmt.Sprintf("files/some folder/file %d", at+i), Value: make([]byte, 100), Author: x.id.ID,
					Time: x.replica.Clock.Next(now(), 0),
				}.Sign(testPool, noSigner{})
				if err != nil {
					return err
				}
				b.put(r)
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkPut is durable writes by few goroutines and by many, which share syncs of the disk.
func BenchmarkPut(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d writers", writers), func(b *testing.B) {
			fs, err := folder.Dir(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			x := newFakePool(b).joinWith(1, fs, 0)
			defer x.Close()
			b.SetParallelism(max(writers/runtime.GOMAXPROCS(0), 1))
			var writer atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				value, own := make([]byte, 100), writer.Add(1)
				for i := 0; pb.Next(); i++ {
					if err := x.Put(fmt.Sprint(own, "/", i%100), value); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
