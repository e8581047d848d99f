package repair

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/placement"
	"github.com/shoal-os/shoal/storage/repair/inventory"
	"github.com/shoal-os/shoal/storage/repair/pb"
	"github.com/shoal-os/shoal/storage/tree"
)

// poolOf makes a world of n peers that have met.
func poolOf(t testing.TB, n int, edit func(*Config)) (*world, []*fakeNode) {
	t.Helper()
	w := newWorld(t)
	var nodes []*fakeNode
	for i := range n {
		nodes = append(nodes, w.joinWith(i+1, Offer{Space: gib}, edit))
	}
	settle(10 * time.Second)
	return w, nodes
}

func TestSecureGivesCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := poolOf(t, 5, nil)
		pieces := nodes[0].put(1, 200, 1000, 3, 2)
		settle(time.Second)
		if n := w.least(pieces); n != 3 {
			t.Errorf("%d copies", n)
		}
		if n := w.fileBytes(); n != 2*200*1000 {
			t.Errorf("%d bytes were sent", n)
		}
		s := nodes[0].Safety(pieces, 3)
		if s != (tree.Safety{Copies: 3, Wanted: 3, Online: 3, Survives: 2}) {
			t.Errorf("%+v", s)
		}
		// Again, it costs proofs and no bytes.
		if got, err := nodes[0].Secure(t.Context(), pieces, 3, 3, nil); err != nil || got.Copies != 3 {
			t.Errorf("again: %+v, %v", got, err)
		}
		if n := w.fileBytes(); n != 2*200*1000 {
			t.Errorf("%d bytes after securing what is secure", n)
		}
	})
}

func TestSecureAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.join(1)
		pieces := a.files(1, 3, 1000)
		told := 0
		got, err := a.Secure(t.Context(), pieces, 3, 2, func(done, total int) { told = total })
		if err != nil || got.Copies != 1 || told != 3 {
			t.Errorf("%+v, %v, of %d", got, err, told)
		}
		if got, err := a.Secure(t.Context(), nil, 3, 2, nil); err != nil || got.Copies != 3 {
			t.Errorf("of nothing: %+v, %v", got, err)
		}
	})
}

// TestWhatIsOwedIsGivenLater has a peer write before others join: they get their copies at once then, and not only after
// the quarter of an hour for which planners leave a shortfall to the writer.
func TestWhatIsOwedIsGivenLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.join(1)
		settle(time.Minute)
		pieces := a.put(1, 50, 1000, 3, 1)
		nameless := a.files(2, 10, 1000)
		if _, err := a.Secure(t.Context(), nameless, 3, 1, nil); err != nil {
			t.Fatal(err)
		}
		w.join(2)
		settle(10 * time.Second)
		if n := w.least(pieces); n != 2 {
			t.Errorf("%d copies of two", n)
		}
		w.join(3)
		settle(10 * time.Second)
		if n := w.least(pieces); n != 3 {
			t.Errorf("%d copies of three", n)
		}
		if n := w.least(nameless); n != 1 {
			t.Errorf("%d copies of what no name wants", n)
		}
		if n := w.fileBytes(); n != 2*50*1000 {
			t.Errorf("%d bytes were sent", n)
		}
		a.owed.mu.Lock()
		defer a.owed.mu.Unlock()
		if n := len(a.owed.debts); n != 10 {
			t.Errorf("%d pieces are still owed", n)
		}
	})
}

// TestSecureWhenMembersFail has the members that should hold pieces full, silent, or gone.
func TestSecureWhenMembersFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := poolOf(t, 3, nil)
		full := w.joinWith(4, Offer{Space: 3000}, nil)
		silent := w.join(5)
		settle(10 * time.Second)
		silent.mu.Lock()
		silent.handler = nil
		silent.mu.Unlock()
		pieces := nodes[0].put(1, 100, 1000, 3, 2)
		settle(time.Minute)
		if n := w.least(pieces); n != 3 {
			t.Errorf("%d copies", n)
		}
		if n := full.pieces.Usage().Held; n > 3000 {
			t.Errorf("the full peer holds %d bytes", n)
		}
	})
}

func TestSecureEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := poolOf(t, 2, nil)
		hole := func(x *fakeNode) { // takes everything and never answers
			x.mu.Lock()
			defer x.mu.Unlock()
			x.handler = func(s stream) { _, _ = io.Copy(io.Discard, s) }
		}
		hole(nodes[1])
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := nodes[0].Secure(ctx, nodes[0].files(1, 3, 1000), 3, 2, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		// With time it gives up by itself.
		got, err := nodes[0].Secure(t.Context(), nodes[0].files(2, 3, 1000), 3, 2, nil)
		if err != nil || got.Copies != 1 {
			t.Errorf("%+v, %v", got, err)
		}
		_ = w
	})
}

// TestTwoOfFiveDie: three copies of everything again, for not more bytes than were lost, and not before the patience is
// over unless a single copy is left.
func TestTwoOfFiveDie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := poolOf(t, 5, nil)
		pieces := nodes[0].put(1, 300, 5000, 3, 2)
		settle(time.Hour)
		missing, before := int64(0), int64(0)
		for _, x := range nodes[3:] {
			w.setUp(x, false)
		}
		for _, x := range nodes[:3] {
			before += x.counted.mended.Load()
		}
		for _, p := range pieces {
			missing += int64(3-w.copies(p.ID)) * p.Size
		}
		settle(80 * time.Hour)
		if n := w.least(pieces); n != 3 {
			t.Errorf("%d copies", n)
		}
		moved := int64(0)
		for _, x := range nodes[:3] {
			moved += x.counted.mended.Load()
		}
		moved -= before
		t.Logf("%d bytes of copies were missing, %d were moved", missing, moved)
		if moved != missing {
			t.Errorf("%d bytes moved for %d that were missing: two peers mended the same", moved, missing)
		}
	})
}

// TestASleeperReturns: nobody moves a byte of a file for a night's sleep, nor for the morning after.
func TestASleeperReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := poolOf(t, 5, nil)
		nodes[0].put(1, 200, 5000, 3, 2)
		settle(time.Hour)
		before := w.fileBytes()
		sleeper := nodes[2]
		news := sleeper.counted.news.Load()
		w.setUp(sleeper, false)
		settle(10 * time.Hour)
		w.setUp(sleeper, true)
		settle(time.Hour)
		if n := w.fileBytes() - before; n != 0 {
			t.Errorf("%d bytes of files moved", n)
		}
		n := sleeper.counted.news.Load() - news
		t.Logf("the sleeper heard %d bytes of inventories from four members", n)
		if n > 4*1000 {
			t.Errorf("%d bytes of inventories", n)
		}
	})
}

// TestAFlippedBit is found whoever meets it first, never given away, and mended.
func TestAFlippedBit(t *testing.T) {
	for name, find := range map[string]func(t *testing.T, victim, other *fakeNode, p piece.Piece){
		"by a scrub": func(t *testing.T, victim, _ *fakeNode, p piece.Piece) {
			rep, err := victim.ScrubNow(t.Context(), nil)
			if err != nil || rep.Damaged != 1 || rep.Repaired != 1 {
				t.Errorf("%+v, %v", rep, err)
			}
			if rep, err = victim.ScrubNow(t.Context(), nil); err != nil || rep.Damaged != 0 || rep.Missing != 0 || rep.Orphans != 0 {
				t.Errorf("again: %+v, %v", rep, err)
			}
		},
		"by the scrub in the background": func(t *testing.T, _, _ *fakeNode, _ piece.Piece) { settle(25 * time.Hour) },
		"by an audit": func(t *testing.T, victim, other *fakeNode, p piece.Piece) {
			if err := other.auditRange(t.Context(), victim.id.ID, p.ID, 0, p.Size); !errors.Is(err, errAudit) {
				t.Errorf("%v", err)
			}
		},
		"by a reader": func(t *testing.T, victim, other *fakeNode, p piece.Piece) {
			got := read(t, victim, p)
			if chunk.SumRaw(got) != p.ID {
				t.Error("other bytes were read")
			}
		},
		"by another's read": func(t *testing.T, victim, other *fakeNode, p piece.Piece) {
			err := other.readFrom(t.Context(), victim.id.ID, []piece.Piece{p}, func(chunk.CID, []byte) error {
				t.Error("it was given away")
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, nodes := poolOf(t, 3, func(c *Config) { c.Scrub = 24 * time.Hour })
				pieces := nodes[0].put(1, 20, 5000, 3, 2)
				settle(time.Hour)
				victim, p := nodes[1], pieces[7]
				victim.flip(p)
				find(t, victim, nodes[2], p)
				settle(time.Hour)
				if n := w.copies(p.ID); n != 3 {
					t.Errorf("%d copies", n)
				}
				if err := victim.pieces.Verify(t.Context(), p.ID); err != nil {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// read reads a file of one piece as a user does.
func read(t *testing.T, x *fakeNode, p piece.Piece) []byte {
	t.Helper()
	f, err := x.Open(t.Context(), piece.File{Root: p.ID, Size: p.Size, Pieces: []piece.Piece{p}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, p.Size)
	if n, err := f.ReadAt(got, 0); err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	return got
}

func TestReadingWhatIsElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := poolOf(t, 5, nil)
		pieces := nodes[0].put(1, 50, 5000, 2, 2)
		settle(time.Minute)
		reader := w.joinWith(9, Offer{}, nil)
		settle(time.Minute)
		reader.Warm(t.Context(), pieces[:40])
		asked := reader.sent.Load()
		for _, p := range pieces {
			if chunk.SumRaw(read(t, reader, p)) != p.ID {
				t.Error("other bytes were read")
			}
		}
		if n := reader.pieces.Usage().Pieces; n != 0 {
			t.Errorf("it holds %d pieces", n)
		}
		t.Logf("%d bytes of questions after warming", reader.sent.Load()-asked)
		for _, x := range nodes {
			w.setUp(x, false)
		}
		lost := nodes[0].files(9, 1, 100)[0]
		f, err := reader.Open(t.Context(), piece.File{Root: lost.ID, Size: 100, Pieces: []piece.Piece{lost}})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.ReadAt(make([]byte, 10), 0); !errors.Is(err, ErrNotHere) {
			t.Errorf("nobody is there: %v", err)
		}
	})
}

// TestALiar says that it holds what it does not.
func TestALiar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := poolOf(t, 4, nil)
		pieces := nodes[0].put(1, 60, 5000, 2, 2)
		settle(time.Minute)
		liar := nodes[3]
		liar.mu.Lock()
		honest := liar.handler
		liar.handler = func(s stream) { lie(liar, honest, s) }
		liar.mu.Unlock()
		w.setUp(liar, false)
		settle(time.Minute)
		ids := []chunk.CID{}
		for _, p := range pieces {
			ids = append(ids, p.ID)
		}
		claims.Store(liar, ids)
		w.setUp(liar, true)
		settle(time.Minute)
		s := nodes[0].Safety(pieces, 2)
		t.Logf("believed: %+v", s)
		settle(24 * time.Hour)
		o := nodes[0].Overview()
		i := slices.IndexFunc(o.Members, func(m MemberHolds) bool { return m.ID == liar.id.ID })
		if i < 0 || !o.Members[i].Untrusted {
			t.Errorf("the liar is trusted after a day: %+v", o.Members)
		}
		if n := w.least(pieces); n < 2 {
			t.Errorf("%d copies", n)
		}
	})
}

func TestOnAnEmptyBatteryNothingIsMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := poolOf(t, 4, nil)
		for _, x := range nodes {
			x.battery.Store(LowBattery - 1)
		}
		pieces := nodes[0].put(1, 30, 5000, 3, 3) // writers are not held back
		settle(time.Hour)
		w.setUp(nodes[1], false)
		settle(100 * time.Hour)
		for _, x := range nodes {
			if n := x.counted.mended.Load(); n != 0 {
				t.Errorf("%d bytes were mended", n)
			}
		}
		if o := nodes[0].Overview(); o.Paused == "" {
			t.Error("it does not say so")
		}
		for _, x := range nodes {
			x.battery.Store(80)
		}
		settle(3 * time.Hour)
		if n := w.least(pieces); n != 3 {
			t.Errorf("%d copies", n)
		}
	})
}

// TestSurplusGoes: copies beyond what is wanted go when room is short, and only then.
func TestSurplusGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := poolOf(t, 3, nil)
		tight := w.joinWith(4, Offer{Space: 1 << 20}, func(c *Config) { c.Reserve = 1 << 20 })
		settle(10 * time.Second)
		pieces := tight.put(1, 50, 5000, 3, 3)
		settle(10 * time.Minute)
		for _, x := range nodes { // all others hold it too, so that the writer's copy is too many
			if _, err := x.Secure(t.Context(), pieces, 4, 2, nil); err != nil {
				t.Fatal(err)
			}
		}
		settle(10 * time.Second)
		held := tight.pieces.Usage().Pieces
		settle(12 * time.Hour)
		if n := w.least(pieces); n < 3 {
			t.Errorf("%d copies", n)
		}
		t.Logf("held %d, then %d", held, tight.pieces.Usage().Pieces)
		if tight.pieces.Usage().Pieces >= held {
			t.Error("nothing was let go")
		}
	})
}

// TestNobodyReliesOnWhoLetsGo: when all holders are short of room at once, no piece falls below what is wanted at any
// moment.
func TestNobodyReliesOnWhoLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var nodes []*fakeNode
		for n := range 5 {
			nodes = append(nodes, w.joinWith(n+1, Offer{Space: 8 << 20}, func(c *Config) { c.Reserve = 8 << 20 }))
		}
		settle(10 * time.Second)
		pieces := nodes[0].put(1, 100, 1000, 2, 2)
		for _, x := range nodes {
			if _, err := x.Secure(t.Context(), pieces, 5, 5, nil); err != nil {
				t.Fatal(err)
			}
		}
		if n := w.least(pieces); n != 5 {
			t.Fatalf("%d copies to begin with", n)
		}
		for range 6 * 360 {
			settle(10 * time.Second)
			if n := w.least(pieces); n < 2 {
				t.Fatalf("%d copies of a piece", n)
			}
		}
		total := 0
		for _, x := range nodes {
			total += x.pieces.Usage().Pieces
		}
		t.Logf("%d copies of %d pieces are left of 500", total, len(pieces))
		if total >= 300 {
			t.Error("little was let go")
		}
	})
}

// TestWhoLetsGoProvesNothing: a peer that waits for the proofs of others gives none for the same pieces.
func TestWhoLetsGoProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := poolOf(t, 2, nil)
		tight := w.joinWith(3, Offer{Space: 8 << 20}, func(c *Config) { c.Reserve = 8 << 20 })
		settle(10 * time.Second)
		pieces := nodes[0].put(1, 20, 1000, 2, 2)
		ids := []chunk.CID{}
		for _, p := range pieces {
			ids = append(ids, p.ID)
		}
		for _, x := range append(nodes, tight) {
			if _, err := x.Secure(t.Context(), pieces, 3, 3, nil); err != nil {
				t.Fatal(err)
			}
		}
		asked := make(chan bool, 100)
		for _, x := range nodes { // they think for long before they prove anything
			x.mu.Lock()
			honest := x.handler
			x.handler = func(s stream) {
				var ask pb.Ask
				if wire.ReadMsg(s, &ask, askMax) != nil {
					return
				}
				if ask.GetProve() == nil {
					honest(&replay{Stream: s, ask: &ask})
					return
				}
				asked <- true
				_, _ = io.Copy(io.Discard, s)
			}
			x.mu.Unlock()
			x.talks.drop("")
			tight.talks.drop("")
		}
		select {
		case <-asked:
		case <-time.After(time.Hour):
			t.Fatal("it does not let anything go")
		}
		kept, err := nodes[0].askProof(t.Context(), tight.id.ID, ids)
		if err != nil || !slices.Contains(kept, false) {
			t.Errorf("it promises to keep what it is letting go: %v, %v", kept, err)
		}
		settle(time.Hour)
		if n := tight.pieces.Usage().Pieces; n != len(pieces) {
			t.Errorf("%d pieces are left, and nobody proved anything", n)
		}
	})
}

// TestNoCopyGoesForOldPromises: a machine may fall asleep at any moment, also between its look at the clock and the deletion
// that relies on what others promised until then.
func TestNoCopyGoesForOldPromises(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		began := time.Now()
		var slept, nap atomic.Int64 // a nap follows on the next look at the clock
		x := w.joinWith(1, Offer{Space: gib}, func(c *Config) {
			c.Boot = func() time.Duration {
				now := time.Since(began) + time.Duration(slept.Load())
				slept.Add(nap.Swap(0))
				return now
			}
		})
		y := w.join(2)
		settle(10 * time.Second)
		pieces := x.put(1, 2, 5000, 1, 2) // one copy more than is wanted
		settle(time.Second)
		trim := func(p piece.Piece, sleep time.Duration) {
			until := x.now().Boot + placement.ProofLife
			nap.Store(int64(sleep))
			x.trimRun([]placement.Trim{{Piece: p.ID, Size: p.Size, Need: 1, From: []peer.ID{y.id.ID}, Until: until}})
		}
		trim(pieces[0], 0)
		trim(pieces[1], time.Hour)
		if x.pieces.Has(pieces[0].ID) {
			t.Error("it was promised, and not let go")
		}
		if !x.pieces.Has(pieces[1].ID) {
			t.Error("it was let go when nobody had to keep another any more")
		}
		x.checkPlanner(pieces[1].ID)
	})
}

// checkPlanner makes sure that the planner and the book know whether this peer holds a piece.
func (x *fakeNode) checkPlanner(id chunk.CID) {
	x.w.t.Helper()
	x.learnStore()
	x.mu2(func() {
		has := x.pieces.Has(id)
		if got := slices.Contains(x.planner.Holders(id), x.id.ID); got != has {
			x.w.t.Errorf("the store holds it: %v; the planner believes %v", has, got)
		}
		if got := x.book.Has(x.self, id); got != has {
			x.w.t.Errorf("the store holds it: %v; the book says %v", has, got)
		}
	})
}

// TestGoneAndBackInOneStep: what was let go, or damaged, and came back before the planner heard of it is held; the other way
// round it is not. Of another member, too.
func TestGoneAndBackInOneStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		x := w.join(1)
		pieces := x.files(1, 2, 5000)
		settle(time.Second)
		w.name(1, pieces...)
		x.mu2(func() { // so that nobody learns what the store says in between
			back, gone := pieces[0].ID, pieces[1].ID
			if err := x.pieces.Quarantine(back, gone); err != nil || !x.pieces.Restore(back) || !x.pieces.Restore(gone) {
				t.Error(err)
			}
			if err := x.pieces.Quarantine(gone); err != nil {
				t.Error(err)
			}
		})
		for _, p := range pieces {
			x.checkPlanner(p.ID)
		}

		y := w.join(2)
		settle(time.Second)
		other := pieces[0].ID
		for _, d := range []*pb.Delta{
			{Added: inventory.Append(nil, other)},
			{Buckets: []*pb.Bucket{{First: uint32(other.Sum[0])}}, Added: inventory.Append(nil, other)}, // one bucket in two parts
		} {
			if _, err := x.hear(y.id.ID, d); err != nil {
				t.Fatal(err)
			}
			x.mu2(func() {
				if slot, _ := x.book.Slot(y.id.ID); !x.book.Has(slot, other) || !slices.Contains(x.planner.Holders(other), y.id.ID) {
					t.Errorf("%v: the book says %v, the planner believes %v", d, x.book.Has(slot, other), x.planner.Holders(other))
				}
			})
		}
	})
}

func TestCollecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := poolOf(t, 3, nil)
		pieces := nodes[0].put(1, 20, 5000, 3, 3)
		unnamed := nodes[0].files(2, 5, 5000) // as if the writer died before it named them
		if _, err := nodes[0].Secure(t.Context(), unnamed, 3, 3, nil); err != nil {
			t.Fatal(err)
		}
		settle(2 * time.Minute)
		if c, err := nodes[1].CollectNow(t.Context(), false); err != nil || c.Quarantined != 0 {
			t.Errorf("while names may be on the way: %+v, %v", c, err)
		}
		settle(4 * time.Hour) // it collects by itself
		if n := w.least(unnamed); n != 0 {
			t.Errorf("%d copies of what nobody names", n)
		}
		if n := w.least(pieces); n != 3 {
			t.Errorf("%d copies of what is named", n)
		}
		w.name(0, pieces[:10]...)
		settle(4 * time.Hour)
		if w.least(pieces[10:]) != 3 || w.copies(pieces[0].ID) != 0 {
			t.Error("the wrong pieces went")
		}
		late := w.joinWith(7, Offer{Space: gib}, func(c *Config) { c.InStep = func() bool { return false } })
		late.files(3, 1, 100)
		if _, err := late.CollectNow(t.Context(), true); !errors.Is(err, ErrNotInStep) {
			t.Errorf("not in step: %v", err)
		}
	})
}

// nosy are names that somebody asks something of the peer about while it collects.
type nosy struct {
	Names
	ask func(chunk.CID)
}

func (n *nosy) Live() func(chunk.CID) bool {
	live := n.Names.Live()
	return func(id chunk.CID) bool {
		ok := live(id)
		n.ask(id)
		return ok
	}
}

// TestNotCollectedOnceCountedOn: what no name needs yet, and a writer was told that it is held, stays until the names come:
// also if it was told so in the middle of a collection, and if it was told by a proof.
func TestNotCollectedOnceCountedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := poolOf(t, 2, nil)
		x := nodes[0]
		small, large := x.files(1, 2, 5000), x.files(2, 1, piece.SmallMax+1)[0]
		settle(10 * time.Minute) // they are not young any more
		v := &visit{r: x.Repair, peer: nodes[1].id.ID}
		prove := func(id chunk.CID) {
			a, err := v.prove(&pb.Prove{Pieces: inventory.Append(nil, id), Nonce: make([]byte, nonceLen)})
			if err != nil || a.GetProof().GetKept()[0] != 1 {
				t.Errorf("no proof: %v, %v", a, err)
			}
		}
		prove(small[0].ID)
		settle(10 * time.Minute)
		x.files(3, 20, 5000) // so that hardly ever the last one that the collection asks about is one of ours
		settle(10 * time.Minute)
		names, asking := x.Repair.names, false // who is asked asks the names, too
		var passed []chunk.CID
		x.mu2(func() {
			x.Repair.names = &nosy{names, func(id chunk.CID) {
				if asking {
					return
				}
				asking = true
				defer func() { asking = false }()
				if slices.Contains(passed, small[1].ID) {
					prove(small[1].ID)
				}
				if slices.Contains(passed, large.ID) {
					a, err := v.take(&pb.Take{Piece: inventory.Append(nil, large.ID), Size: uint64(large.Size)})
					if err != nil || a.GetAck().GetStored()[0] != 1 {
						t.Errorf("not stored: %v, %v", a, err)
					}
				}
				passed = append(passed, id)
			}}
		})
		if c, err := x.CollectNow(t.Context(), true); err != nil || c.Purged < 20 {
			t.Errorf("%+v, %v", c, err)
		}
		for _, id := range []chunk.CID{small[1].ID, large.ID} { // unless they came last
			if passed[len(passed)-1] == id {
				return
			}
		}
		for _, p := range append(small, large) {
			if !x.pieces.Has(p.ID) {
				t.Errorf("%v was counted on and is gone", p.ID)
			}
		}
		x.mu2(func() { x.Repair.names = names })
		settle(4 * flightTime)
		if n := x.pieces.Usage().Pieces; n != 0 {
			t.Errorf("%d pieces that nobody named are kept for good", n)
		}
	})
}

// TestWhatSleepersHoldIsRemembered over a restart.
func TestWhatSleepersHoldIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := poolOf(t, 4, nil)
		pieces := nodes[0].put(1, 100, 1000, 3, 3)
		settle(time.Minute)
		for _, x := range nodes[1:] {
			w.setUp(x, false)
		}
		settle(time.Minute)
		was := nodes[0].Safety(pieces, 3)
		nodes[0].close()
		nodes[0].open()
		settle(time.Minute)
		if s := nodes[0].Safety(pieces, 3); s != was || s.Copies != 3 {
			t.Errorf("%+v, before the restart %+v", s, was)
		}
		nodes[0].keep.mu.Lock()
		nodes[0].compact()
		nodes[0].keep.mu.Unlock()
		nodes[0].close()
		nodes[0].open()
		settle(time.Minute)
		if s := nodes[0].Safety(pieces, 3); s != was {
			t.Errorf("%+v after a snapshot, before %+v", s, was)
		}
		for _, x := range nodes[1:] {
			w.setUp(x, true)
		}
		settle(time.Minute)
		if s := nodes[0].Safety(pieces, 3); s.Online != 3 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAMemberThatLeftIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := poolOf(t, 3, nil)
		pieces := nodes[0].put(1, 10, 1000, 3, 3)
		settle(time.Minute)
		w.setUp(nodes[2], false)
		w.mu.Lock()
		delete(w.nodes, nodes[2].id.ID)
		w.mu.Unlock()
		settle(2 * time.Minute)
		if s := nodes[0].Safety(pieces, 3); s.Copies != 2 {
			t.Errorf("%+v", s)
		}
		if o := nodes[0].Overview(); len(o.Members) != 2 {
			t.Errorf("%+v", o.Members)
		}
	})
}
