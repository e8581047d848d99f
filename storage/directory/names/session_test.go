package names

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// costMax is what issue 4 allows a peer for ten differing records among 10,000, in bytes, both directions together.
const costMax = 20_000

func TestReconciliationCost(t *testing.T) {
	for name, spread := range map[string]bool{"recent": false, "spread over all times": true} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			worst := 0
			for split := 0; split <= 10; split += 5 { // how many of the ten only the first has
				a, b := NewSet(), NewSet()
				fill(t, rng, 10_000, a, b)
				for i := range 10 {
					r := randomRecord(rng, fmt.Sprintf("extra/%d", i))
					if !spread {
						r.Time = At(epoch) + HLC(i)<<counterBits
					}
					rec := bare(t, newAuthor(t, 2), r)
					if i < split {
						a.Put(rec)
					} else {
						b.Put(rec)
					}
				}
				fromA, fromB := reconcile(t, a, b)
				if !sameSet(a, b) || a.Len() != 10_010 {
					t.Fatalf("%d and %d records", a.Len(), b.Len())
				}
				worst = max(worst, fromA.bytes+fromB.bytes)
				t.Logf("%d/%d: %d + %d bytes, %d + %d turns", split, 10-split, fromA.bytes, fromB.bytes, fromA.turns, fromB.turns)
			}
			if worst > costMax {
				t.Errorf("%d bytes, the limit is %d", worst, costMax)
			}
		})
	}
}

func TestReconciliationOfAnySets(t *testing.T) {
	authors := []author{newAuthor(t, 1), newAuthor(t, 2)}
	rapid.Check(t, func(rt *rapid.T) {
		a, b, want := NewSet(), NewSet(), NewSet()
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		common := rapid.IntRange(0, 400).Draw(rt, "common")
		times := rapid.SampledFrom([]uint64{1, 5, 1 << 40}).Draw(rt, "times")
		put := func(r *Record, sets ...*Set) {
			for _, s := range append(sets, want) {
				take(s, []*Record{r})
			}
		}
		for range common + rapid.IntRange(0, 300).Draw(rt, "other") {
			r := bare(t, authors[rng.IntN(2)], Record{
				Key: fmt.Sprint(rng.IntN(500)), Value: []byte{byte(rng.Uint32())},
				Time: HLC(rng.Uint64N(times)),
			})
			switch {
			case rng.IntN(common+1) > 5:
				put(r, a, b)
			case rng.IntN(2) == 0:
				put(r, a)
			default:
				put(r, b)
			}
		}
		// One session brings both to the union of records; where the same key had other winners, the loser is
		// replaced on the way.
		reconcile(t, a, b)
		if !sameSet(a, b) || !sameSet(a, want) {
			rt.Fatalf("%d and %d records, wanted %d", a.Len(), b.Len(), want.Len())
		}
	})
}

func TestReconciliationWithNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	full, empty := NewSet(), NewSet()
	fill(t, rng, 3000, full)
	fromEmpty, fromFull := reconcile(t, empty, full)
	if !sameSet(full, empty) || fromEmpty.records != 0 || fromFull.records != 3000 {
		t.Errorf("sent %+v and %+v", fromEmpty, fromFull)
	}
	other := NewSet()
	if a, b := reconcile(t, full, other); !sameSet(full, other) || a.records != 3000 || b.records != 0 {
		t.Errorf("sent %+v and %+v", a, b)
	}
	if a, b := reconcile(t, NewSet(), NewSet()); a.records+b.records != 0 || a.bytes > 10 {
		t.Errorf("two empty sets: %+v and %+v", a, b)
	}
}

func TestFutureIsNotAskedFor(t *testing.T) {
	a, b := NewSet(), NewSet()
	who := newAuthor(t, 1)
	b.Put(bare(t, who, Record{Key: "soon", Time: 100}))
	b.Put(bare(t, who, Record{Key: "later", Time: 101}))
	s := NewSession(a, 100, 0)
	peer := NewSession(b, 100, 0)
	// The other side lists both: only one is asked for.
	out, err := s.Step(peer.Start().Ranges, nil, 0)
	if err != nil || len(out.Turn.Want) != wantSize {
		t.Errorf("%d bytes of wishes, %v", len(out.Turn.Want), err)
	}
}

func TestStaleSideYields(t *testing.T) {
	who := newAuthor(t, 1)
	for name, begins := range map[string]bool{"it begins": true, "the other begins": false} {
		t.Run(name, func(t *testing.T) {
			stale, current := NewSet(), NewSet()
			for i := range 300 {
				r := bare(t, who, Record{Key: fmt.Sprint("common", i), Time: HLC(10 + i)})
				stale.Put(r)
				current.Put(r)
			}
			stale.Put(bare(t, who, Record{Key: "deleted meanwhile", Time: 150}))
			stale.Put(bare(t, who, Record{Key: "written while away", Time: 5000}))
			sides := [2]*Session{NewSession(current, 1<<63, 0), NewSession(stale, 1<<63, 1000)}
			if !begins {
				slices.Reverse(sides[:])
			}
			turn := sides[1].Start()
			for i, done := 0, false; !done; i = 1 - i {
				take(stale, turn.Records)
				take(current, turn.Records)
				out, err := sides[i].Step(turn.Ranges, turn.Want, len(turn.Records))
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range out.Drop {
					stale.Drop(r.Key)
				}
				turn, done = out.Turn, out.Done
			}
			if !sameSet(stale, current) || current.Get("deleted meanwhile") != nil || current.Get("written while away") == nil {
				t.Errorf("%d and %d records", stale.Len(), current.Len())
			}
		})
	}
}

func TestHostileSession(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	set := NewSet()
	fill(t, rng, 500, set)
	all := []span{{hi: endPoint, mode: modeList}}
	var w spanWriter
	w.add(all[0])
	s := NewSession(set, 1<<63, 0)
	var err error
	for i := 0; err == nil && i < 100; i++ {
		_, err = s.Step(w.buf, nil, 0) // "I have nothing", again and again
	}
	if !errors.Is(err, ErrProtocol) {
		t.Errorf("asked for everything 100 times: %v", err)
	}
	s = NewSession(set, 1<<63, 0)
	for i := 0; err == nil && i <= turnsMax; i++ {
		_, err = s.Step([]byte{0, byte(modeSkip)}, nil, 0)
	}
	if !errors.Is(err, ErrProtocol) {
		t.Errorf("endless turns: %v", err)
	}
	for name, raw := range map[string][]byte{
		"no mode":        {0},
		"unknown mode":   {0, 9},
		"after the end":  {0, 0, 0, 0},
		"backwards":      {1, 0, 0},
		"cut sum":        {0, 1, 1, 2},
		"needless":       {5, 2, 7, 0, 0},
		"long list":      {0, 2, 0xff, 0xff, 0x7f},
		"number":         {0x80},
		"needless digit": {0x85, 0, 0, 0},
	} {
		if _, err := NewSession(set, 1<<63, 0).Step(raw, nil, 0); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewSession(set, 1<<63, 0).Step(nil, make([]byte, wantSize+1), 0); !errors.Is(err, ErrProtocol) {
		t.Errorf("a cut wish: %v", err)
	}
}

func FuzzSession(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 2))
	a, b := NewSet(), NewSet()
	fill(f, rng, 100, a, b)
	fill(f, rng, 40, b)
	start := NewSession(b, 1<<63, 0).Start()
	f.Add(start.Ranges, []byte{})
	f.Add([]byte{0, 2, 0}, make([]byte, wantSize))
	f.Fuzz(func(t *testing.T, ranges, want []byte) {
		spans, err := readSpans(ranges)
		if err == nil {
			var w spanWriter
			for _, s := range spans {
				w.add(s)
			}
			if again, err := readSpans(w.buf); err != nil || len(again) != len(spans) {
				t.Fatalf("written anew: %d ranges instead of %d, %v", len(again), len(spans), err)
			}
		}
		s := NewSession(a, 1<<63, 0)
		if out, err := s.Step(ranges, want, 0); err == nil && len(out.Turn.Ranges) > rangesMax {
			t.Fatalf("%d bytes of ranges", len(out.Turn.Ranges))
		}
	})
}
