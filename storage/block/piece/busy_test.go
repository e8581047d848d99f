package piece

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/chunk"
)

// TestEverythingAtOnce has many goroutines add, read, set aside, collect, purge and pin the same few pieces, in so little
// room that packs are compacted all the time. What a batch has committed and locks is there; what is read is right.
func TestEverythingAtOnce(t *testing.T) {
	const workers, rounds, kinds = 6, 60, 40
	dir := t.TempDir()
	var mu sync.Mutex
	clk := newClock()
	now := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		clk.t = clk.t.Add(time.Second)
		return clk.t
	}
	s := mustOpen(t, Config{Dir: dir, Quota: 24 << 20, Now: now})
	sized := func(i int) []byte {
		if i%10 == 9 {
			return noise(uint64(i), SmallMax+i)
		}
		return noise(uint64(i), 1000*i+1)
	}
	files := make([][]byte, kinds)
	for i := range files {
		files[i] = sized(i)
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for range rounds {
				i := rng.IntN(kinds)
				if err := oneOfAll(s, rng, files[i], dag(files[i])); err != nil {
					t.Errorf("file %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	checkUsage(t, s, dir)
	var f follower
	f.check(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	held := f.has
	s = mustOpen(t, Config{Dir: dir, Quota: 24 << 20, Now: now})
	f.check(t, s)
	if fmt.Sprint(held) != fmt.Sprint(f.has) {
		for id := range held {
			if f.has[id] == 0 {
				t.Errorf("%v is held no more after a restart", id)
			}
		}
		for id := range f.has {
			if held[id] == 0 {
				t.Errorf("%v is held only after a restart", id)
			}
		}
		t.FailNow()
	}
	for id := range f.has {
		if err := s.Verify(context.Background(), id); err != nil {
			t.Fatal(err)
		}
	}
	checkUsage(t, s, dir)
}

// oneOfAll does one thing with one file.
func oneOfAll(s *Store, rng *rand.Rand, data []byte, id chunk.CID) error {
	file := File{id, int64(len(data)), []Piece{{id, int64(len(data))}}}
	switch rng.IntN(8) {
	case 0, 1, 2:
		return addAndRead(s, rng, data, file)
	case 3:
		got, err := read(s, file)
		if err == nil && !bytes.Equal(got, data) {
			return errors.New("other bytes")
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	case 4:
		return errors.Join(s.Quarantine(id), s.Pin(id, "x"))
	case 5:
		_, err := s.Collect(func(c chunk.CID) bool { return c.Sum[0]%3 == 0 })
		return err
	case 6:
		_, err := s.Purge(rng.IntN(2) == 0)
		return errors.Join(s.Unpin(id, "x"), err)
	case 7:
		if id.IsRaw() {
			return s.Cache(id, data)
		}
		s.Restore(id)
	}
	return nil
}

// addAndRead adds in one batch with others, which must be there as long as the batch is open.
func addAndRead(s *Store, rng *rand.Rand, data []byte, want File) error {
	b := s.NewBatch()
	defer b.Close()
	f, err := b.Add(context.Background(), bytes.NewReader(data))
	if errors.Is(err, ErrQuota) {
		return nil
	}
	if err != nil || f.Root != want.Root {
		return fmt.Errorf("root %s, want %s: %w", f.Root, want.Root, err)
	}
	if rng.IntN(4) == 0 {
		return nil // not committed
	}
	if err := b.Commit(); err != nil {
		return err
	}
	got, err := read(s, f)
	if err != nil || !bytes.Equal(got, data) {
		return fmt.Errorf("committed, and reads as %d of %d bytes: %w", len(got), len(data), err)
	}
	return nil
}
