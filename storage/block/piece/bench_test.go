package piece

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	manyPieces = 100_000
	manySize   = 4 << 10
	manyBatch  = 1000
)

// many gives the i-th of many small pieces.
func many(i int, buf []byte) (chunk.CID, []byte) {
	for j := 0; j+8 <= len(buf); j += 8 {
		binary.LittleEndian.PutUint64(buf[j:], uint64(i)*0x9e3779b97f4a7c15+uint64(j)*0xbf58476d1ce4e5b9)
	}
	return chunk.SumRaw(buf), buf
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkMany adds 100,000 pieces of 4 KiB in batches of 1,000, opens the store again and reads them all, beside a plain
// file that gets the same bytes, hashed, with the same flushes.
func BenchmarkMany(b *testing.B) {
	for b.Loop() {
		dir := b.TempDir()
		floor := floorOf(b, dir)
		cfg := Config{Dir: filepath.Join(dir, "store"), Quota: 4 << 30}
		s := mustOpen(b, cfg)
		start := time.Now()
		buf := make([]byte, manySize)
		for i := 0; i < manyPieces; i += manyBatch {
			batch := s.NewBatch()
			for j := i; j < i+manyBatch; j++ {
				if err := batch.AddSmall(many(j, buf)); err != nil {
					b.Fatal(err)
				}
			}
			if err := batch.Commit(); err != nil {
				b.Fatal(err)
			}
			batch.Close()
		}
		added := time.Since(start)
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		s = nil
		base := heap()
		start = time.Now()
		s = mustOpen(b, cfg)
		opened := time.Since(start)
		mem := heap() - base
		start = time.Now()
		for i := range manyPieces {
			id, data := many(i, buf)
			got, err := s.ReadSmall(id, nil)
			if err != nil || len(got) != len(data) {
				b.Fatal(err)
			}
		}
		reading := time.Since(start)
		start = time.Now()
		for i := range manyPieces {
			many(i, buf)
		}
		making := time.Since(start)
		b.ReportMetric(manyPieces/floor.Seconds(), "floor-adds/s")
		b.ReportMetric(manyPieces/added.Seconds(), "adds/s")
		b.ReportMetric(floor.Seconds()/added.Seconds(), "of-floor")
		b.ReportMetric(float64(opened.Milliseconds()), "open-ms")
		b.ReportMetric(float64(mem)/manyPieces, "B/piece")
		b.ReportMetric(manyPieces/(reading-making).Seconds(), "reads/s")
		_ = s.Close()
	}
}

// floorOf writes the same bytes to one file.
func floorOf(b *testing.B, dir string) time.Duration {
	f, err := os.Create(filepath.Join(dir, "floor"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, manySize)
	start := time.Now()
	for i := range manyPieces {
		_, data := many(i, buf)
		if _, err := f.Write(data); err != nil {
			b.Fatal(err)
		}
		if i%manyBatch == manyBatch-1 {
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	}
	return time.Since(start)
}

// BenchmarkLarge adds 512 MiB beside a plain file that gets the same bytes, hashed and flushed once, and reads them back,
// verified.
func BenchmarkLarge(b *testing.B) {
	const size = 512 << 20
	data := noise(1, size)
	for b.Loop() {
		dir := b.TempDir()
		start := time.Now()
		f, err := os.Create(filepath.Join(dir, "floor"))
		if err != nil {
			b.Fatal(err)
		}
		for from := 0; from < size; from += chunk.LeafSize {
			chunk.SumRaw(data[from : from+chunk.LeafSize])
			if _, err := f.Write(data[from : from+chunk.LeafSize]); err != nil {
				b.Fatal(err)
			}
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		floor := time.Since(start)
		f.Close()
		s := mustOpen(b, Config{Dir: filepath.Join(dir, "store"), Quota: 4 << 30})
		start = time.Now()
		file := put(b, s, data)
		added := time.Since(start)
		start = time.Now()
		x, err := s.OpenLarge(file.Root)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, io.NewSectionReader(x, 0, x.Size())); err != nil {
			b.Fatal(err)
		}
		reading := time.Since(start)
		x.Close()
		b.ReportMetric(size/floor.Seconds()/1e6, "floor-MB/s")
		b.ReportMetric(size/added.Seconds()/1e6, "add-MB/s")
		b.ReportMetric(floor.Seconds()/added.Seconds(), "of-floor")
		b.ReportMetric(size/reading.Seconds()/1e6, "read-MB/s")
	}
}
