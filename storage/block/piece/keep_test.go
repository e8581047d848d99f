package piece

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/block/pack"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/folder"
)

// none names nothing, all everything.
func none(chunk.CID) bool { return false }
func all(chunk.CID) bool  { return true }

func collect(t testing.TB, s *Store, live func(chunk.CID) bool) Collected {
	t.Helper()
	c, err := s.Collect(live)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestQuarantineRestorePurge(t *testing.T) {
	dir, clk := t.TempDir(), newClock()
	cfg := Config{Dir: dir, Now: clk.now}
	s := mustOpen(t, cfg)
	small, large := noise(1, 5000), noise(2, 2*SmallMax+9)
	fs, fl := put(t, s, small), put(t, s, large)
	kept := put(t, s, noise(3, 100))
	held := s.Usage()
	gone := func() {
		t.Helper()
		for _, f := range []File{fs, fl} {
			if s.Has(f.Root) {
				t.Fatal("held still")
			}
			if _, err := read(s, f); !errors.Is(err, ErrNotFound) {
				t.Fatal(err)
			}
			if _, ok := s.Roots().Root(f.Root); ok {
				t.Fatal("served still")
			}
			if _, err := s.Hash(f.Root, nil, 0, 1); !errors.Is(err, ErrNotFound) {
				t.Fatal(err)
			}
		}
		if !s.Has(kept.Root) {
			t.Fatal("another is gone too")
		}
		checkUsage(t, s, dir)
	}
	back := func() {
		t.Helper()
		mustRead(t, s, fs, small)
		mustRead(t, s, fl, large)
		checkUsage(t, s, dir)
		if u := s.Usage(); u.Held != held.Held || u.Quarantined != 0 {
			t.Fatalf("%+v, was %+v", u, held)
		}
	}
	aside := func() {
		t.Helper()
		if err := s.Quarantine(fs.Root, fl.Root, chunk.SumRaw([]byte("unknown"))); err != nil {
			t.Fatal(err)
		}
		gone()
	}

	aside()
	if u := s.Usage(); u.Quarantined == 0 || u.Held+u.Quarantined != held.Held {
		t.Fatalf("%+v", u)
	}
	put(t, s, small)
	put(t, s, large)
	back()

	aside()
	if !s.Restore(fs.Root) || !s.Restore(fl.Root) || s.Restore(chunk.SumRaw([]byte("unknown"))) {
		t.Fatal("not restored")
	}
	back()

	aside()
	s.Close()
	s = mustOpen(t, cfg) // it is remembered
	gone()
	b := s.NewBatch()
	if err := b.AddSmall(fs.Root, small); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	b.Close()
	s.Restore(fl.Root)
	back()

	clk.t = clk.t.Add(youth)
	if c := collect(t, s, func(id chunk.CID) bool { return id == kept.Root }); c.Quarantined != 2 {
		t.Fatalf("%+v", c)
	}
	gone()
	if c := collect(t, s, all); c.Restored != 2 {
		t.Fatalf("%+v", c)
	}
	back()

	aside()
	clk.t = clk.t.Add(QuarantineTime - time.Second)
	if c, err := s.Purge(false); err != nil || c != (Collected{}) {
		t.Fatalf("%+v, %v", c, err)
	}
	clk.t = clk.t.Add(time.Second)
	s.Close()
	s = mustOpen(t, cfg)
	c, err := s.Purge(false)
	if err != nil || c.Purged != 2 || c.Freed < 2*SmallMax {
		t.Fatalf("%+v, %v", c, err)
	}
	gone()
	if s.Restore(fs.Root) || s.Restore(fl.Root) {
		t.Fatal("restored after the purge")
	}
	if n := onDisk(t, dir); n > 40*blockSize {
		t.Fatalf("%d bytes on disk after the purge", n)
	}
	s.Close()
	s = mustOpen(t, cfg)
	gone()
	put(t, s, small)
	put(t, s, large)
	back()
}

// slowRemoval is a folder that does something while it removes what was purged.
type slowRemoval struct {
	folder.FS
	meanwhile func()
}

func (f *slowRemoval) Remove(name string) error {
	if do := f.meanwhile; do != nil && strings.HasPrefix(name, largeDir) {
		f.meanwhile = nil
		do()
	}
	return f.FS.Remove(name)
}

// TestAddedWhilePurged: a piece that comes again while its old bytes are being deleted is held, also after a restart, though
// its mark said that it was aside. One that does not is gone.
func TestAddedWhilePurged(t *testing.T) {
	dir := t.TempDir()
	inner, err := folder.Dir(dir, packsDir, cacheDir, largeDir, marksDir)
	if err != nil {
		t.Fatal(err)
	}
	fs := &slowRemoval{FS: inner}
	small, large, other := noise(1, 1000), noise(2, SmallMax+1), noise(3, 1000)
	s := mustOpen(t, Config{Dir: dir, fs: fs})
	files := []File{put(t, s, small), put(t, s, large)}
	gone := put(t, s, other).Root
	if err := s.Quarantine(dag(small), dag(large), gone); err != nil {
		t.Fatal(err)
	}
	added := false
	fs.meanwhile = func() {
		put(t, s, small)
		put(t, s, large)
		added = true
	}
	if c, err := s.Purge(true); err != nil || c.Purged != 3 || !added {
		t.Fatal(c, added, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, Config{Dir: dir, fs: inner})
	mustRead(t, s, files[0], small)
	mustRead(t, s, files[1], large)
	if s.Has(gone) || len(s.aside) > 0 {
		t.Errorf("%v, %v", s.Has(gone), s.aside)
	}
	checkUsage(t, s, dir)
}

func TestCollectLeavesAlone(t *testing.T) {
	clk := newClock()
	s := mustOpen(t, Config{Dir: t.TempDir(), Now: clk.now})
	old := put(t, s, noise(1, 1000))
	pinned := put(t, s, noise(2, 1000))
	unpinned := put(t, s, noise(3, 1000))
	again := put(t, s, noise(4, 1000))
	during := put(t, s, noise(5, 1000))
	for _, id := range []chunk.CID{pinned.Root, unpinned.Root} {
		for _, name := range []string{"one", "two\n words"} {
			if err := s.Pin(id, name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range []string{"one", "two\n words", "three"} {
		if err := s.Unpin(unpinned.Root, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Unpin(pinned.Root, "one"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = mustOpen(t, s.cfg)
	if !s.Pinned(pinned.Root) || s.Pinned(unpinned.Root) || s.Pinned(old.Root) {
		t.Fatal("pins are not remembered")
	}
	if err := s.Quarantine(pinned.Root); err != nil || !s.Has(pinned.Root) {
		t.Fatal("a pinned piece is set aside", err)
	}

	clk.t = clk.t.Add(time.Hour)
	b := s.NewBatch()
	if _, err := b.Add(context.Background(), bytes.NewReader(noise(4, 1000))); err != nil {
		t.Fatal(err)
	}
	if err := s.Quarantine(again.Root); err != nil || !s.Has(again.Root) {
		t.Fatal("a locked piece is set aside", err)
	}
	young := put(t, s, noise(6, 1000))
	clk.t = clk.t.Add(youth - time.Second)
	started := false
	collect(t, s, func(chunk.CID) bool {
		if !started { // a batch that begins and ends while live is asked
			started = true
			b := s.NewBatch()
			if _, err := b.Add(context.Background(), bytes.NewReader(noise(5, 1000))); err != nil {
				t.Error(err)
			}
			if err := b.Commit(); err != nil {
				t.Error(err)
			}
			b.Close()
			s.mu.Lock()
			delete(s.young, during.Root) // so that only the mark keeps it
			s.mu.Unlock()
		}
		return false
	})
	for name, x := range map[string]struct {
		File
		want bool
	}{"old": {old, false}, "pinned": {pinned, true}, "unpinned": {unpinned, false}, "locked": {again, true},
		"found while marking": {during, true}, "young": {young, true}} {
		if s.Has(x.Root) != x.want {
			t.Errorf("%s: held %v", name, !x.want)
		}
	}
	b.Close()
	checkUsage(t, s, s.dir)
}

func TestQuotaIsHard(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Dir: dir, Quota: 8 << 20})
	n := 0
	for i := 0; ; i++ {
		b := s.NewBatch()
		size := 1 + (i*7919)%SmallMax
		if i%4 == 3 {
			size += SmallMax
		}
		_, err := b.Add(context.Background(), bytes.NewReader(noise(uint64(i), size)))
		if err == nil {
			err = b.Commit()
		}
		b.Close()
		if real := onDisk(t, dir); real > s.cfg.Quota {
			t.Fatalf("%d bytes on disk", real)
		}
		checkUsage(t, s, dir)
		if errors.Is(err, ErrQuota) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	u := s.Usage()
	if u.Free > 2*SmallMax || u.Held < s.cfg.Quota*5/8 {
		t.Fatalf("full with %d files: %+v", n, u)
	}
	if err := s.Quarantine(ids(s)...); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Purge(true); err != nil {
		t.Fatal(err)
	}
	if u = s.Usage(); u.Held != 0 || u.Quarantined != 0 || u.Waste > 64<<10 || u.Free < 6<<20 {
		t.Fatalf("empty: %+v", u)
	}
}

func ids(s *Store) (out []chunk.CID) {
	for p := range s.All() {
		out = append(out, p.ID)
	}
	return out
}

func TestNothingLent(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Quota: -1}
	s := mustOpen(t, cfg)
	s.cfg.Quota = 0
	b := s.NewBatch()
	defer b.Close()
	if _, err := b.Add(context.Background(), bytes.NewReader([]byte("x"))); !errors.Is(err, ErrQuota) {
		t.Fatal(err)
	}
	if err := s.Cache(chunk.SumRaw([]byte("x")), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadSmall(chunk.SumRaw([]byte("x")), nil); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
}

func TestCacheGoesFirst(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Dir: dir, Quota: 16 << 20})
	cached := func(i int) chunk.CID {
		data := noise(uint64(1000+i), 30_000)
		id := chunk.SumRaw(data)
		if err := s.Cache(id, data); err != nil {
			t.Fatal(err)
		}
		return id
	}
	has := func(id chunk.CID) bool {
		got, err := s.ReadSmall(id, []byte("x"))
		if err == nil && (got[0] != 'x' || chunk.SumRaw(got[1:]) != id) {
			t.Fatal("other bytes")
		}
		return err == nil
	}
	hot := cached(0)
	cold := cached(1)
	for i := range 400 {
		cached(2 + i)
		if !has(hot) {
			t.Fatalf("what is read all the time is gone after %d more", i)
		}
		if u := s.Usage(); u.Cached > s.cfg.Quota/cacheShare {
			t.Fatalf("%+v", u)
		}
	}
	if s.cache.has(cold) {
		t.Fatal("what was never read is there still")
	}
	if s.Has(hot) || s.Usage().Pieces != 0 {
		t.Fatal("what is cached is held")
	}
	s.Close()
	s = mustOpen(t, s.cfg)
	if u := s.Usage(); u.Cached < 2<<20 {
		t.Fatalf("the cache is lost: %+v", u)
	}
	for i := 0; ; i++ {
		b := s.NewBatch()
		_, err := b.Add(context.Background(), bytes.NewReader(noise(uint64(i), 200_000)))
		if err == nil {
			err = b.Commit()
		}
		b.Close()
		if errors.Is(err, ErrQuota) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if u := s.Usage(); u.Cached != 0 || u.Held < 12<<20 {
		t.Fatalf("the cache is in the way: %+v", u)
	}
	checkUsage(t, s, dir)
}

func TestCompaction(t *testing.T) {
	dir, clk := t.TempDir(), newClock()
	s := mustOpen(t, Config{Dir: dir, Quota: 64 << 20, Now: clk.now})
	var files []File
	var data [][]byte
	for i := range 200 {
		data = append(data, noise(uint64(i), 50_000))
		files = append(files, put(t, s, data[i]))
	}
	var odd []chunk.CID
	for i := range files {
		if i%3 != 0 {
			odd = append(odd, files[i].Root)
		}
	}
	if err := s.Quarantine(odd...); err != nil {
		t.Fatal(err)
	}
	before := s.packs.Bytes()
	c, err := s.Purge(true)
	if err != nil || c.Purged != len(odd) {
		t.Fatal(c, err)
	}
	if after := s.packs.Bytes(); after > before/2 || c.Freed < before/3 {
		t.Fatalf("packs took %d bytes and take %d: %+v", before, after, c)
	}
	check := func() {
		t.Helper()
		for i := range files {
			if i%3 == 0 {
				mustRead(t, s, files[i], data[i])
			} else if s.Has(files[i].Root) {
				t.Fatal("purged and held")
			}
		}
		checkUsage(t, s, dir)
	}
	check()
	s.Close()
	s = mustOpen(t, s.cfg)
	check()
}

// TestCompactionWaitsForBatches: a pack with frames that a batch has yet to commit is not waste.
func TestCompactionWaitsForBatches(t *testing.T) {
	s := mustOpen(t, Config{Dir: t.TempDir()})
	b := s.NewBatch()
	defer b.Close()
	mine, err := b.Add(context.Background(), bytes.NewReader(noise(1, 1000)))
	if err != nil {
		t.Fatal(err)
	}
	others := []chunk.CID{put(t, s, noise(2, 500_000)).Root, put(t, s, noise(3, 500_000)).Root}
	if err := errors.Join(s.packs.Seal(), s.Quarantine(others...)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Purge(true); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	mustRead(t, s, mine, noise(1, 1000))
	s.Close()
	s = mustOpen(t, s.cfg)
	mustRead(t, s, mine, noise(1, 1000))
	if s.Has(others[0]) {
		t.Fatal("purged, and held again")
	}
}

// TestKeepLiveSeesAFrameInBetween: a frame that is in its pack, and not yet counted as one of a batch, is not taken for waste
// when the pack's index is written anew.
func TestKeepLiveSeesAFrameInBetween(t *testing.T) {
	s := mustOpen(t, Config{Dir: t.TempDir()})
	id, data := dag(noise(1, 1000)), noise(1, 1000)
	// What Store.append does, with the rest of the world in its middle.
	s.appending.RLock()
	fails := s.packs.Fails()
	at, err := s.packs.Append(pack.Head{ID: id, Length: uint32(len(data)), Extent: uint32(len(data))}, data)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.packs.Seal(); err != nil { // as the next append does when the pack is full
		t.Fatal(err)
	}
	kept := make(chan error, 1)
	go func() { kept <- s.keepLive(at.Pack) }()
	for waits := false; !waits && len(kept) == 0; runtime.Gosched() {
		if waits = !s.appending.TryRLock(); !waits {
			s.appending.RUnlock()
		}
	}
	l := loc{at, uint32(len(data)), uint32(len(data))}
	s.mu.Lock()
	s.pending[at.Pack]++
	s.mu.Unlock()
	s.appending.RUnlock()
	if err := errors.Join(<-kept, s.packs.Sync(fails)); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.take(id, l)
	s.settle(l)
	s.mu.Unlock()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, s.cfg)
	mustRead(t, s, File{id, int64(len(data)), []Piece{{id, int64(len(data))}}}, data)
}

func TestManyStartsFewPacks(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	var files []File
	for i := range 3 * smallPacksMax {
		s := mustOpen(t, cfg)
		files = append(files, put(t, s, noise(uint64(i), 1000)))
		collect(t, s, all)
		if n := len(s.packs.Packs()); n > smallPacksMax+1 {
			t.Fatalf("%d packs after %d starts", n, i+1)
		}
		s.Close()
	}
	s := mustOpen(t, cfg)
	for i, f := range files {
		mustRead(t, s, f, noise(uint64(i), 1000))
	}
}

// follow replays what changed, as a peer that keeps this one's inventory does.
type follower struct {
	epoch [16]byte
	next  uint64
	has   map[chunk.CID]int64
	alls  int
}

func (f *follower) follow(s *Store) {
	if f.epoch != s.Epoch() {
		f.epoch, f.next = s.Epoch(), 0
	}
	for {
		list, next, ok := s.Changes(f.next)
		f.next = next
		if !ok {
			f.alls++
			f.has = map[chunk.CID]int64{}
			for p := range s.All() {
				f.has[p.ID] = p.Size
			}
			continue
		}
		for _, c := range list {
			if c.Added {
				f.has[c.ID] = c.Size
			} else {
				delete(f.has, c.ID)
			}
		}
		if len(list) == 0 {
			return
		}
	}
}

func (f *follower) check(t testing.TB, s *Store) {
	t.Helper()
	f.follow(s)
	want := map[chunk.CID]int64{}
	for p := range s.All() {
		want[p.ID] = p.Size
	}
	if fmt.Sprint(f.has) != fmt.Sprint(want) {
		t.Fatalf("follows to %v, holds %v", f.has, want)
	}
}

func TestChanges(t *testing.T) {
	clk := newClock()
	cfg := Config{Dir: t.TempDir(), Now: clk.now}
	s := mustOpen(t, cfg)
	var f follower
	f.check(t, s)
	wake := s.Changed()
	a, b := put(t, s, noise(1, 100)), put(t, s, noise(2, 2*SmallMax))
	select {
	case <-wake:
	default:
		t.Fatal("nobody was woken")
	}
	f.check(t, s)
	if err := s.Quarantine(a.Root); err != nil {
		t.Fatal(err)
	}
	f.check(t, s)
	epoch := s.Epoch()
	s.Close()
	s = mustOpen(t, cfg)
	if s.Epoch() != epoch {
		t.Fatal("an orderly end begins a new epoch")
	}
	put(t, s, noise(1, 100))
	f.check(t, s)
	if f.alls != 1 {
		t.Fatalf("All was taken %d times", f.alls)
	}
	// A crash: whoever opens the folder next must not go on with the numbers.
	crashed := mustOpen(t, Config{Dir: cfg.Dir, Now: clk.now})
	if crashed.Epoch() == epoch {
		t.Fatal("a crash goes on with the epoch")
	}
	_ = b
	for i := range 2*changesMax + 10 {
		crashed.mu.Lock()
		crashed.changed(Piece{a.Pieces[0].ID, 100}, i%2 == 1)
		crashed.mu.Unlock()
	}
	if _, _, ok := crashed.Changes(1); ok {
		t.Fatal("more is remembered than may be")
	}
	if _, _, ok := crashed.Changes(1 << 40); ok {
		t.Fatal("a number of the future is taken")
	}
}
