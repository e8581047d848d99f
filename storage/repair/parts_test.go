package repair

import (
	"context"
	"errors"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/folder"
	"github.com/shoal-os/shoal/storage/folder/crash"
	"github.com/shoal-os/shoal/storage/repair/inventory"
	"github.com/shoal-os/shoal/storage/repair/pb"
)

func TestUptime(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	cfg := Config{Dir: t.TempDir(), Now: func() time.Time { return now }}
	var u uptime
	u.open(cfg)
	if c := u.class(); c != 50 {
		t.Errorf("a new peer is of class %d", c)
	}
	days := func(n int, awake time.Duration) (changes int) {
		was := u.class()
		for range n {
			for range 24 {
				now = now.Add(time.Hour)
				if c := u.class(); c != was {
					was, changes = c, changes+1
				}
				u.count(cfg, time.Duration(now.Hour())*time.Hour >= awake)
			}
		}
		return changes
	}
	days(40, 8*time.Hour)
	if c := u.class(); c < 30 || c > 40 {
		t.Errorf("awake a third of the time: class %d", c)
	}
	if n := days(40, 8*time.Hour); n > 1 {
		t.Errorf("the class changed %d times though the habit did not", n)
	}
	days(60, 24*time.Hour)
	if c := u.class(); c < 80 {
		t.Errorf("always there: class %d", c)
	}
	u.save(cfg)
	now = now.Add(60 * 24 * time.Hour) // off
	var later uptime
	later.open(cfg)
	if c := later.class(); c > 60 {
		t.Errorf("after two months off: class %d", c)
	}
	now = now.Add(-300 * 24 * time.Hour) // a clock set back
	later.count(cfg, false)
	if c := later.class(); c > 100 {
		t.Errorf("class %d", c)
	}
}

func TestOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := poolOf(t, 2, nil)
		a, b := nodes[0], nodes[1]
		forged, err := proto.Marshal(&pb.Lends{Space: 1 << 60})
		if err != nil {
			t.Fatal(err)
		}
		key := lendsPrefix + a.id.ID.String()
		if err := (recordsOf{b}).Put(key, forged); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		if m, ok := b.readOffers()[a.id.ID]; ok {
			t.Errorf("a record by another author counts: %+v", m)
		}
		settle(2 * time.Minute)
		if m := b.readOffers()[a.id.ID]; m.Space != gib {
			t.Errorf("the peer does not say it again: %+v", m)
		}
		// A little more is not worth moving pieces for, much more is.
		for space, want := range map[uint64]uint64{gib + gib/20: gib, 2 * gib: 2 * gib} {
			a.offer.Space = space
			a.publishOffer()
			if m := b.readOffers()[a.id.ID]; m.Space != want {
				t.Errorf("%d: %d bytes are published, want %d", space, m.Space, want)
			}
			a.offer.Space = gib
			a.publishOffer()
		}
		for name, rec := range map[string]*directory.Record{
			"noise":        {Key: key, Author: a.id.ID, Value: []byte{0xff}},
			"another's":    {Key: key, Author: b.id.ID},
			"a stray name": {Key: lendsPrefix + "x", Author: a.id.ID},
		} {
			if m, ok := readOffer(rec); ok {
				t.Errorf("%s: %+v", name, m)
			}
		}
		_ = w
	})
}

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1000, 100)
		began := time.Now()
		for range 50 {
			if err := l.wait(t.Context(), 100); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 4800*time.Millisecond || took > 5*time.Second {
			t.Errorf("5,000 units took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.wait(ctx, 1e6); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if err := newLimiter(-1, 0).wait(t.Context(), 1<<60); err != nil {
			t.Errorf("without a bound: %v", err)
		}
		var m meter
		m.add(3000)
		if r := m.rate(); r < 90 || r > 110 {
			t.Errorf("a rate of %v", r)
		}
	})
}

// TestRepairIsSlowFromAfar: mending does not take more than its rate from beyond the network, a writer takes what it can.
func TestRepairIsSlowFromAfar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 500 // a piece in 200 s
		w, nodes := poolOf(t, 4, func(c *Config) { c.Near, c.Rate = nil, rate })
		began := time.Now()
		pieces := nodes[0].put(1, 100, 100_000, 3, 2)
		if took := time.Since(began); took > time.Minute {
			t.Errorf("a writer waited for %v", took)
		}
		settle(time.Minute)
		w.setUp(nodes[1], false)
		settle(72*time.Hour - time.Minute)
		base := nodes[2].counted.mended.Load()
		for n := range int64(120) {
			settle(time.Minute)
			if got := nodes[2].counted.mended.Load() - base; got > (n+1)*60*rate+100_000 {
				t.Fatalf("%d bytes after %d minutes", got, n+1)
			}
		}
		settle(3 * time.Hour)
		if n := w.least(pieces); n != 3 {
			t.Errorf("%d copies", n)
		}
	})
}

func TestPositionOfHashes(t *testing.T) {
	for sum, want := range map[string]float64{"": 0, "\x80": 0.5, "\xff\xff\xff\xff\xff\xff": 1, "\x00\x80": 0.5 / 256} {
		if got := position32([]byte(sum)); got < want-1e-9 || got > want+1e-9 {
			t.Errorf("%x: %v, want %v", sum, got, want)
		}
	}
}

// TestAWholeInventory is what two members that meet for the first time, and again, cost each other.
func TestAWholeInventory(t *testing.T) {
	if testing.Short() {
		t.Skip("it writes 100,000 pieces")
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.join(1)
		const pieces = 100_000
		for range 10 {
			a.files(int(a.pieces.Usage().Pieces), pieces/10, 16)
		}
		b := w.join(2)
		settle(time.Minute)
		heard := b.counted.news.Load()
		t.Logf("%d pieces: %d bytes the first time, %.1f each", b.Overview().Members[0].Pieces+b.Overview().Members[1].Pieces, heard, float64(heard)/pieces)
		if heard > 40*pieces {
			t.Error("that is too much")
		}
		w.setUp(a, false)
		settle(time.Minute)
		w.setUp(a, true)
		settle(time.Minute)
		again := b.counted.news.Load() - heard
		// The same without a position to go on from: the sums of the buckets alone.
		b.mu2(func() {
			h := b.told[a.id.ID]
			h.known = false
			b.told[a.id.ID] = h
		})
		a.files(12345, 10, 16)
		settle(time.Second)
		w.setUp(a, false)
		settle(time.Minute)
		a.files(12346, 1, 16)
		b.mu2(func() {
			h := b.told[a.id.ID]
			h.known = false
			b.told[a.id.ID] = h
		})
		before := b.counted.news.Load()
		w.setUp(a, true)
		settle(time.Minute)
		t.Logf("again: %d bytes; by sums, for one piece that came: %d", again, b.counted.news.Load()-before)
		b.mu2(func() {
			slot, _ := b.book.Slot(a.id.ID)
			if n := b.book.Count(slot); n != pieces+11 || *b.book.Sums(slot) != *a.bookSums() {
				t.Errorf("%d pieces", n)
			}
		})
	})
}

func (x *fakeNode) bookSums() *inventory.Sums {
	x.Repair.mu.Lock()
	defer x.Repair.mu.Unlock()
	return x.book.Sums(x.self)
}

// TestADiskThatForgets: when a write of what others hold fails, at whatever step, the next start believes what was heard, or
// asks from where it has a whole account of.
func TestADiskThatForgets(t *testing.T) {
	w := newWorld(t)
	a := w.joinWith(1, Offer{}, nil)
	from := newIdentity(t, 2).ID
	start := func(fs folder.FS) *Repair {
		r := newRepair(a.Repair.cfg)
		if err := r.openKeep(fs); err != nil {
			t.Fatal(err)
		}
		var err error
		if r.self, err = r.book.Member(r.cfg.Self); err != nil {
			t.Fatal(err)
		}
		return r
	}
	id := func(n int) chunk.CID { return chunk.SumRaw([]byte{byte(n)}) }
	holds := func(r *Repair) map[chunk.CID]bool {
		out := map[chunk.CID]bool{}
		slot, _ := r.book.Slot(from)
		for n := range 40 {
			if r.book.Has(slot, id(n)) {
				out[id(n)] = true
			}
		}
		return out
	}
	for step := 1; step < 60; step++ {
		fs := crash.New(uint64(step))
		r := start(fs)
		fs.FailAt(step)
		truth, after := map[chunk.CID]bool{}, map[uint64]map[chunk.CID]bool{}
		for n := range 40 { // each message brings one and takes another away
			d := &pb.Delta{Added: inventory.Append(nil, id(n)), Epoch: make([]byte, 16), Next: uint64(n + 1)}
			if truth[id(n)] = true; n%2 == 1 {
				d.Removed = inventory.Append(nil, id(n/2))
				delete(truth, id(n/2))
			}
			after[d.Next] = maps.Clone(truth)
			if _, err := r.hear(from, d); err != nil {
				t.Fatal(err)
			}
			if n%5 == 4 {
				r.syncKeep()
			}
		}
		again := start(fs.Reboot())
		if got, at := holds(again), again.told[from]; !at.known || !maps.Equal(got, after[at.next]) {
			t.Errorf("step %d: %d pieces at %d, it had %d", step, len(got), at.next, len(after[at.next]))
		}
		if got := holds(r); !maps.Equal(got, truth) {
			t.Fatalf("%d pieces in memory, not %d", len(got), len(truth))
		}
	}
}
