package sched

import (
	"slices"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

// demand is a scheduler that wants nothing yet, with one peer that has all.
func demand(t *testing.T, leaves int) (*Scheduler, func(Event) *Out) {
	s := New(Config{Leaves: leaves, Want: bitfield.New(leaves), Sequential: true, Size: func(int) int { return 1 << 20 }})
	now := time.Unix(1000, 0)
	step := func(ev Event) *Out {
		now = now.Add(time.Millisecond)
		out := s.Step(now, ev)
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := step(Event{Kind: Joined, Peer: 1}); len(out.Asks) > 0 || !out.Done {
		t.Fatalf("asks %v before anything is wanted", out.Asks)
	}
	return s, step
}

func asked(out *Out) (leaves []int) {
	for _, a := range out.Asks {
		for i := a.Run.First; i < a.Run.First+a.Run.Count; i++ {
			leaves = append(leaves, i)
		}
	}
	return leaves
}

func TestWantedAndUnwanted(t *testing.T) {
	s, step := demand(t, 100)
	if got := asked(step(Event{Kind: Wanted, Run: bitfield.Run{First: 50, Count: 5}})); !slices.Equal(got, []int{50, 51}) {
		t.Fatalf("asked for %v", got) // the window of a peer that is not known holds two
	}
	out := step(Event{Kind: Unwanted, Run: bitfield.Run{First: 51, Count: 4}})
	if len(out.Cancels) != 1 || out.Cancels[0].Run != (bitfield.Run{First: 51, Count: 1}) || s.Left() != 1 {
		t.Fatalf("cancels %v, %d left", out.Cancels, s.Left())
	}
	// It comes all the same: no harm.
	step(Event{Kind: Arrived, Peer: 1, Run: bitfield.Run{First: 51, Count: 1}, Bytes: 1 << 20})
	step(Event{Kind: Verified, Run: bitfield.Run{First: 51, Count: 1}})
	step(Event{Kind: Arrived, Peer: 1, Run: bitfield.Run{First: 50, Count: 1}, Bytes: 1 << 20})
	// What is here and not verified yet stays wanted.
	step(Event{Kind: Unwanted, Run: bitfield.Run{First: 50, Count: 1}})
	if !s.Needs(50) {
		t.Error("a leaf that has arrived was given up")
	}
	if out := step(Event{Kind: Verified, Run: bitfield.Run{First: 50, Count: 1}}); !out.Done || len(out.Drops) > 0 {
		t.Errorf("%+v", out)
	}
	// Wanted again, it is fetched again: the caller lost it.
	if got := asked(step(Event{Kind: Wanted, Run: bitfield.Run{First: 50, Count: 1}})); !slices.Equal(got, []int{50}) {
		t.Errorf("asked for %v", got)
	}
}

func TestSeekGoesFirst(t *testing.T) {
	_, step := demand(t, 100)
	step(Event{Kind: Wanted, Run: bitfield.Run{First: 10, Count: 8}}) // 10 and 11 are asked for
	step(Event{Kind: Wanted, Run: bitfield.Run{First: 80, Count: 8}})
	step(Event{Kind: Seek, Run: bitfield.Run{First: 80}})
	out := step(Event{Kind: Arrived, Peer: 1, Run: bitfield.Run{First: 10, Count: 1}, Bytes: 1 << 20})
	if got := asked(out); len(got) == 0 || got[0] != 80 {
		t.Errorf("asked for %v after the seek", got)
	}
}
