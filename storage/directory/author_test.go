package directory

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/storage/directory/names"
)

// record makes a record of any author for any pool.
func record(t testing.TB, pool names.Pool, n int, r Record) *Record {
	t.Helper()
	id := newIdentity(t, n)
	r.Author = id.ID
	if r.Time == 0 {
		r.Time = names.At(now())
	}
	out, err := r.Sign(pool, id.Key)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tell hands records to a directory as gossip would.
func (x *fakeNode) tell(records ...*Record) {
	m := &Announcement{}
	for _, r := range records {
		m.Records = append(m.Records, r.Append(nil))
	}
	data, err := proto.Marshal(m)
	if err != nil {
		x.pool.t.Fatal(err)
	}
	x.hearNews(newIdentity(x.pool.t, 2).ID, data)
}

func TestWhoMayWrite(t *testing.T) {
	forge := func(r *Record) *Record {
		raw := r.Append(nil)
		raw[len(raw)-1] ^= 1
		out, err := names.Decode(testPool, raw)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	altered := func(r *Record) *Record {
		raw := r.Append(nil)
		raw[len(raw)-65] ^= 1 // the last byte of the value
		out, err := names.Decode(testPool, raw)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	evictedAt := now().Add(-time.Hour)
	value := []byte("v")
	for name, c := range map[string]struct {
		record *Record
		in     bool
	}{
		"a member":                {record(t, testPool, 2, Record{Key: "k", Value: value}), true},
		"own, lost meanwhile":     {record(t, testPool, 1, Record{Key: "k", Value: value}), true},
		"forged signature":        {forge(record(t, testPool, 2, Record{Key: "k", Value: value})), false},
		"altered value":           {altered(record(t, testPool, 2, Record{Key: "k", Value: value})), false},
		"another pool's":          {record(t, names.Pool{'o'}, 2, Record{Key: "k", Value: value}), false},
		"no member":               {record(t, testPool, 9, Record{Key: "k", Value: value}), false},
		"before its eviction":     {record(t, testPool, 3, Record{Key: "k", Time: names.At(evictedAt.Add(-time.Minute))}), true},
		"after its eviction":      {record(t, testPool, 3, Record{Key: "k", Time: names.At(evictedAt.Add(time.Minute))}), false},
		"beyond the bound":        {record(t, testPool, 2, Record{Key: "k", Time: names.At(now().Add(6 * time.Minute))}), false},
		"just ahead":              {record(t, testPool, 2, Record{Key: "k", Time: names.At(now().Add(4 * time.Minute))}), true},
		"a deletion long ago":     {record(t, testPool, 2, Record{Key: "k", Deleted: true, Time: names.At(now().Add(-31 * 24 * time.Hour))}), false},
		"a deletion of yesterday": {record(t, testPool, 2, Record{Key: "k", Deleted: true, Time: names.At(now().Add(-24 * time.Hour))}), true},
	} {
		p := newFakePool(t)
		x := p.join(1)
		p.members[newIdentity(t, 2).ID] = time.Time{}
		p.members[newIdentity(t, 3).ID] = evictedAt
		before := x.Digest()
		x.tell(c.record)
		if in := x.Digest() != before; in != c.in {
			t.Errorf("%s: came in %v", name, in)
		}
		_ = x.Close()
	}
}

func TestForgerySpoilsItsMessage(t *testing.T) {
	p := newFakePool(t)
	x := p.join(1)
	p.members[newIdentity(t, 2).ID] = time.Time{}
	good, bad := record(t, testPool, 2, Record{Key: "good"}), record(t, names.Pool{'o'}, 2, Record{Key: "bad"})
	if _, err := x.receive([]*Record{good, mustDecode(t, bad.Append(nil))}); !errors.Is(err, names.ErrSignature) {
		t.Errorf("%v", err)
	}
	if x.Len() != 0 {
		t.Error("something came in")
	}
}

func mustDecode(t testing.TB, raw []byte) *Record {
	t.Helper()
	r, err := names.Decode(testPool, raw)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestUnknownAuthorWaits(t *testing.T) {
	virtual(t, func(t *testing.T, p *fakePool) {
		x := p.join(1)
		for i := range waitingEach + 20 {
			x.tell(record(t, testPool, 7, Record{Key: fmt.Sprint("early", i)}))
		}
		x.tell(record(t, testPool, 8, Record{Key: "never"}))
		if n := x.Status().Waiting; x.Len() != 0 || n != waitingEach+1 {
			t.Fatalf("%d came in, %d wait", x.Len(), n)
		}
		p.mu.Lock()
		p.members[newIdentity(t, 7).ID] = time.Time{}
		p.mu.Unlock()
		if err := x.Recheck(newIdentity(t, 7).ID); err != nil || x.Len() != waitingEach {
			t.Errorf("%d came in, %v", x.Len(), err)
		}
		settle(2 * waitingTime)
		if n := x.Status().Waiting; n != 0 {
			t.Errorf("%d wait for ever", n)
		}
	})
}

// TestEvictionArrivesLate: one peer learns of an eviction after it took in what the evicted wrote, the other before.
func TestEvictionArrivesLate(t *testing.T) {
	virtual(t, func(t *testing.T, p *fakePool) {
		a, b, evil := p.join(1), p.join(2), p.join(3)
		p.connect(1, a, b)
		a.put("k", "old")
		settled(t, time.Second, a, b)
		p.connect(2, a, evil)
		settled(t, 5*time.Second, a, evil)
		evil.put("before", "fine")
		settle(time.Minute)
		at := now()
		settle(time.Minute)
		evil.put("k", "spoiled")
		evil.put("late", "spoiled")
		settled(t, 5*time.Second, a, evil)
		p.mu.Lock()
		p.members[evil.id.ID] = at
		p.mu.Unlock()
		if err := a.Recheck(evil.id.ID); err != nil {
			t.Fatal(err)
		}
		if a.value("late") != "-" || a.value("before") != "fine" {
			t.Errorf("late is %q, before is %q", a.value("late"), a.value("before"))
		}
		p.connect(1, a)
		settled(t, 10*time.Second, a, b)
		if a.value("k") != "old" || b.value("before") != "fine" || b.value("late") != "-" {
			t.Errorf("k is %q, before is %q, late is %q", a.value("k"), b.value("before"), b.value("late"))
		}
		// It comes back: what it wrote is not taken in, and costs no more than the minute's comparison.
		p.connect(1, evil)
		settle(time.Minute)
		streams := a.streams.Load() + evil.streams.Load()
		for range 10 * 60 / 2 { // heartbeats tell of the difference all the time
			settle(2 * time.Second)
			a.Heard(evil.id.ID, evil.Digest())
			evil.Heard(a.id.ID, a.Digest())
		}
		if n := a.streams.Load() + evil.streams.Load() - streams; n > 35 || a.value("late") != "-" {
			t.Errorf("%d streams in ten minutes, late is %q", n, a.value("late"))
		}
	})
}

// TestClocksWrongByHours: every peer's clock is wrong by hours, the writes are made apart, and all is equal within
// seconds of healing.
func TestClocksWrongByHours(t *testing.T) {
	const h = time.Hour
	for _, skews := range [][]time.Duration{
		{0, 3 * h}, {3 * h, 0}, {0, -3 * h}, {-3 * h, 0},
		{0, 2 * h, -2 * h}, {3 * h, 0, 0}, {-3 * h, 0, 0}, {-50 * 365 * 24 * h, 0, 0}, {5 * h, 5 * h, 0}, {-2 * h, -2 * h, 0},
		{h, 2 * h, 3 * h}, {0, -20 * 365 * 24 * h}, {9 * h, -9 * h, 0, 0, 0},
	} {
		t.Run(fmt.Sprint(skews), func(t *testing.T) {
			virtual(t, func(t *testing.T, p *fakePool) {
				var nodes []*fakeNode
				for i, skew := range skews {
					x := p.join(i + 1)
					x.skew.Store(int64(skew))
					nodes = append(nodes, x)
				}
				for round := range 3 {
					for i, x := range nodes {
						x.put("same", fmt.Sprint(i, round))
						x.put(fmt.Sprint("own", i), fmt.Sprint(round))
						settle(time.Second)
					}
				}
				p.connect(1, nodes...)
				took := settled(t, 5*time.Second, nodes...)
				if nodes[0].Len() != 1+len(nodes) {
					t.Errorf("%d keys", nodes[0].Len())
				}
				for i, x := range nodes { // nobody steps back to before there was shoal
					if x.now().Add(x.Status().Offset).Year() < 2026 {
						t.Errorf("peer %d takes it for %s", i, x.now().Add(x.Status().Offset))
					}
				}
				last := nodes[len(nodes)-1]
				t.Logf("equal after %s, offset of the last %s", took, last.Status().Offset)
				// Everybody can overwrite what it has seen, the slowest and the fastest.
				for i, x := range nodes {
					x.put("same", fmt.Sprint("after ", i))
					settled(t, 2*time.Second, nodes...)
					if got := nodes[0].value("same"); got != fmt.Sprint("after ", i) {
						t.Errorf("peer %d wrote, all hold %q", i, got)
					}
				}
			})
		})
	}
}

// TestFutureDoesNotWin: a record from a clock far ahead, whose author cannot be asked to stamp it anew.
func TestFutureDoesNotWin(t *testing.T) {
	virtual(t, func(t *testing.T, p *fakePool) {
		a, b := p.join(1), p.join(2)
		p.connect(1, a, b)
		settle(5 * time.Second)
		p.mu.Lock()
		p.members[newIdentity(t, 9).ID] = time.Time{}
		p.mu.Unlock()
		future := record(t, testPool, 9, Record{Key: "k", Value: []byte("future"), Time: names.At(now().Add(3 * time.Hour))})
		a.tell(future)
		b.hold(future) // b's clock was wrong when it took this in
		if a.value("k") != "-" {
			t.Fatal("it came in")
		}
		settle(10 * time.Minute)
		if a.value("k") != "-" {
			t.Fatal("reconciliation brought it in")
		}
		// b has seen it, and overwrites it in the present.
		b.put("k", "present")
		settle(time.Second)
		if a.value("k") != "present" || b.value("k") != "present" {
			t.Errorf("a has %q, b has %q", a.value("k"), b.value("k"))
		}
		// Once its time has come it counts like any other, and can be overwritten by anybody.
		settle(4 * time.Hour)
		a.tell(future)
		settled(t, 70*time.Second, a, b)
		if b.value("k") != "future" {
			t.Errorf("b has %q", b.value("k"))
		}
		a.put("k", "last")
		settled(t, 2*time.Second, a, b)
		if b.value("k") != "last" {
			t.Errorf("b has %q", b.value("k"))
		}
	})
}

// TestClockSetRight: a peer alone writes with a clock hours ahead; the clock is set right, then it meets others.
func TestClockSetRight(t *testing.T) {
	virtual(t, func(t *testing.T, p *fakePool) {
		a, b := p.join(1), p.join(2)
		b.skew.Store(int64(7 * time.Hour))
		b.put("k", "1")
		b.put("gone", "1")
		b.skew.Store(0)
		b.put("k", "2") // in the present, over its own future
		if err := b.Delete("gone"); err != nil {
			t.Fatal(err)
		}
		b.put("future", "x")
		settle(time.Minute)
		p.connect(1, a, b)
		settled(t, 5*time.Second, a, b)
		if a.value("k") != "2" || a.value("gone") != "-" || a.value("future") != "x" {
			t.Errorf("k is %q, gone is %q", a.value("k"), a.value("gone"))
		}
		synctest.Wait()
	})
}
