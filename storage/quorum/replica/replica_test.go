package replica

import (
	"testing"
	"time"
)

func TestThreeReplicasAgree(t *testing.T) {
	w := newWorld(1, 3)
	if !w.until(5*time.Second, func() bool { return w.leader() != nil }) {
		t.Fatal("no leader", w.failure)
	}
	t.Log("leader after", w.Now)
	start := w.Now
	done := 0
	for i := range 300 {
		w.propose(w.nodes[i%3], addCommand('a', 1), time.Minute, func(_ int, why Reason) {
			if why == OK {
				done++
			}
		})
	}
	if !w.until(5*time.Second, func() bool { return done == 300 }) {
		t.Fatal(done, w.failure)
	}
	t.Log("300 commands after", w.Now-start)
	if !w.until(10*time.Second, func() bool { return w.nodes[0].r.clock.quiet && w.nodes[1].r.clock.quiet && w.nodes[2].r.clock.quiet }) {
		t.Fatal("not quiet", w.failure)
	}
	n := w.messages
	w.run(time.Hour)
	if w.messages != n {
		t.Errorf("%d messages in an hour of quiet", w.messages-n)
	}
	got := 0
	w.read(w.nodes[2], time.Second, func(_ int, why Reason) { got = int(why) + 1 })
	if !w.until(time.Second, func() bool { return got == 1 }) || w.nodes[2].m.values['a'] != 300%256 && w.nodes[2].m.values['a'] != 300 {
		t.Fatal("read", got, w.nodes[2].m.values, w.failure)
	}
}

// TestTheFounderStandsOnce: a founder that crashes as soon as it leads, whatever of that reached its disk or the others, never
// leads in that term again: a second entry would have the index of the first.
func TestTheFounderStandsOnce(t *testing.T) {
	for seed := range uint64(300) {
		w := newWorld(seed, 3)
		founder := w.nodes[0]
		done := 0
		w.propose(founder, addCommand('a', 1), time.Second, func(int, Reason) { done++ })
		w.run(time.Duration(w.rng.Int64N(int64(12 * time.Millisecond))))
		founder.crash()
		w.run(time.Duration(w.rng.Int64N(int64(20 * time.Millisecond))))
		founder.start()
		if founder.r.term < firstOffice {
			t.Fatalf("seed %d: it could stand in term %d again", seed, founder.r.term+1)
		}
		w.propose(w.nodes[1], addCommand('b', 1), time.Minute, func(int, Reason) { done++ })
		if !w.until(time.Minute, func() bool { return done == 2 && w.leader() != nil }) {
			t.Fatalf("seed %d: %d of 2 ended, %v", seed, done, w.failure)
		}
		if term := w.leader().r.term; term == firstOffice && w.leader() == founder {
			t.Fatalf("seed %d: it leads in term %d again", seed, term)
		}
	}
}

// TestFoundedWithOlderPeers: who took the offer as a blank replica has not voted and has no log, and the group comes to be all the
// same.
func TestFoundedWithOlderPeers(t *testing.T) {
	for blank := range 3 {
		for seed := range uint64(20) {
			w := newWorldWith(seed, 3, func(w *world) { w.blank = blank })
			done := 0
			for range 20 {
				w.propose(w.nodes[0], addCommand('a', 1), time.Minute, func(_ int, why Reason) {
					if why == OK {
						done++
					}
				})
			}
			all := func() bool {
				for _, x := range w.nodes {
					if x.m.values['a'] != 20 {
						return false
					}
				}
				return done == 20
			}
			if !w.until(30*time.Second, all) {
				t.Fatalf("%d blank ones, seed %d: %d of 20 commands, %v", blank, seed, done, w.failure)
			}
		}
	}
}
