package sched

import (
	"slices"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

// clocked is a scheduler of leaves of 1 MiB whose steps are taken at a time after its start.
func clocked(t *testing.T, leaves int) (*Scheduler, func(at time.Duration, ev Event) *Out) {
	s := New(Config{Leaves: leaves, Self: 1, Size: func(int) int { return 1 << 20 }})
	began := time.Unix(1000, 0)
	return s, func(at time.Duration, ev Event) *Out {
		t.Helper()
		out := s.Step(began.Add(at), ev)
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		return out
	}
}

// set makes the set of some leaves.
func set(n int, leaves ...int) *bitfield.Bitfield {
	b := bitfield.New(n)
	for _, i := range leaves {
		b.Set(i)
	}
	return b
}

func leafRun(leaf int) bitfield.Run { return bitfield.Run{First: leaf, Count: 1} }

// What a peer is snubbed for goes to the others at once, whatever the event was that came when its time was up: an idle fellow
// sends nothing that would have it asked later.
func TestSnubAtAnyEvent(t *testing.T) {
	for name, ev := range map[string]Event{
		"tick": {Kind: Tick}, "heard": {Kind: Heard, Name: 9}, "soon": {Kind: Soon, Peer: 2, Run: leafRun(3)},
	} {
		t.Run(name, func(t *testing.T) {
			_, step := clocked(t, 4)
			if got := asked(step(0, Event{Kind: Joined, Peer: 1, Name: 2, Have: set(4, 0, 1)})); len(got) != 2 {
				t.Fatalf("asked for %v", got)
			}
			step(0, Event{Kind: Joined, Peer: 2, Name: 3, Have: set(4, 0, 1)})
			if got := asked(step(snubAfter, ev)); !slices.Contains(got, 1) {
				t.Errorf("asked for %v when the first peer was snubbed", got)
			}
		})
	}
}

// A snubbed peer that moves again is asked again, though it may send no leaf to its end.
func TestSnubbedMoves(t *testing.T) {
	_, step := clocked(t, 2)
	step(0, Event{Kind: Joined, Peer: 1, Name: 2, Have: set(2, 0, 1)})
	if got := asked(step(snubAfter, Event{Kind: Tick})); len(got) != 0 {
		t.Fatalf("asked a snubbed peer for %v", got)
	}
	out := step(snubAfter+time.Second, Event{Kind: Moving, Peer: 1, Bytes: 1})
	if got := asked(out); len(got) == 0 || out.Wake.IsZero() {
		t.Errorf("asked for %v, next look at %v", got, out.Wake)
	}
}

// Choking puts aside what was asked for, and with it what the peer is snubbed for.
func TestSnubbedThenChoked(t *testing.T) {
	_, step := clocked(t, 2)
	step(0, Event{Kind: Joined, Peer: 1, Name: 2, Have: set(2, 0, 1)})
	step(snubAfter, Event{Kind: Tick})
	step(snubAfter+time.Second, Event{Kind: Choked, Peer: 1})
	if got := asked(step(snubAfter+2*time.Second, Event{Kind: Unchoked, Peer: 1})); len(got) == 0 {
		t.Error("a peer that takes requests again is not asked")
	}
}

// Whoever loses a leaf to another in the endgame is asked for what came free meanwhile.
func TestSecondAskedIsFilled(t *testing.T) {
	s, step := clocked(t, 2)
	// A fellow with a full window of the one leaf that two are asked for …
	step(0, Event{Kind: Joined, Peer: 1, Name: 2, Have: set(2, 0)})
	step(0, Event{Kind: Joined, Peer: 3, Name: 4, Have: set(2, 1)})
	step(100*time.Millisecond, Event{Kind: Arrived, Peer: 3, Run: leafRun(1), Bytes: 1 << 20})
	step(200*time.Millisecond, Event{Kind: Joined, Peer: 2, Name: 3, Have: set(2, 0, 1)})
	at := 200 * time.Millisecond
	for ; s.twice[0] == 0 && at < 8*time.Second; at += 50 * time.Millisecond {
		step(at, Event{Kind: Tick})
	}
	if s.twice[0] != 2 {
		t.Fatal("the second is not asked for the leaf that the first holds up")
	}
	s.peer(2).grown = 1 << 20 // as one has that is slow
	// … and another leaf that turns out to be wrong, so that it is missing again.
	if got := asked(step(at, Event{Kind: Corrupt, Peer: 3, Run: leafRun(1)})); len(got) != 0 {
		t.Fatalf("asked for %v beyond the window", got)
	}
	step(at, Event{Kind: Arrived, Peer: 1, Run: leafRun(0), Bytes: 1 << 20})
	if got := asked(step(at, Event{Kind: Verified, Run: leafRun(0)})); !slices.Equal(got, []int{1}) {
		t.Errorf("asked for %v when the second had nothing to send any more", got)
	}
}

// A leaf that has come from one of the two who were asked for it is kept when it is not wanted any more, as any that is here.
func TestUnwantedIsHereAndAskedTwice(t *testing.T) {
	s, step := clocked(t, 1)
	step(0, Event{Kind: Joined, Peer: 1})
	at := time.Duration(0)
	step(at, Event{Kind: Joined, Peer: 2})
	for ; s.twice[0] == 0 && at < 8*time.Second; at += 50 * time.Millisecond {
		step(at, Event{Kind: Tick})
	}
	step(at, Event{Kind: Arrived, Peer: 1, Run: leafRun(0), Bytes: 1 << 20})
	step(at, Event{Kind: Unwanted, Run: leafRun(0)})
	if !s.Needs(0) {
		t.Error("a leaf that has arrived was given up")
	}
	if got := asked(step(at, Event{Kind: Wanted, Run: leafRun(0)})); len(got) != 0 {
		t.Errorf("asked for %v, which is here", got)
	}
}
