package tasks

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
)

// named finds a box.
func find(boxes []*box, id peer.ID) *box {
	for _, b := range boxes {
		if b.self.ID == id {
			return b
		}
	}
	return nil
}

// withGates makes a pool of n whose guests wait at gates of their own, one core each.
func withGates(t testing.TB, n int) (boxes []*box, runners []*fakeRunner) {
	opt := func(b *box) {
		r := &fakeRunner{}
		b.runner, b.lends.Cores = r, 1
		runners = append(runners, r)
	}
	return newPool(t, n, opt), runners
}

// busy waits until each of some runners has a guest.
func busy(t testing.TB, runners ...*fakeRunner) {
	t.Helper()
	wait(t, "guests run", func() bool {
		return !slices.ContainsFunc(runners, func(r *fakeRunner) bool { return r.running() == 0 })
	})
}

func checkOnce(t testing.TB, results []TaskResult, n int) {
	t.Helper()
	if len(results) != n {
		t.Fatalf("%d results", len(results))
	}
	for i, r := range results {
		if r.Task != i || r.State != market.Succeeded || len(r.Results) != 1 {
			t.Errorf("task %d: %d is %v", i, r.Task, r.State)
		}
	}
}

func TestAWorkerDies(t *testing.T) {
	t.Parallel()
	boxes, runners := withGates(t, 4)
	s := boxes[0].submit(count(4, "gate"))
	busy(t, runners...)
	victim := slices.IndexFunc(boxes, func(b *box) bool { return !slices.Contains(s.Stewards, b.self.ID) })
	began := time.Now()
	boxes[victim].die()
	for i, r := range runners {
		if i != victim {
			r.open()
		}
	}
	wait(t, "its task runs elsewhere", func() bool {
		n := 0
		for i, r := range runners {
			if i != victim {
				n += len(r.starts())
			}
		}
		return n == 4
	})
	t.Logf("its task ran elsewhere %v after its end", time.Since(began))
	results := boxes[0].all(s.ID)
	checkOnce(t, results, 4)
	for _, r := range results {
		if r.Worker == boxes[victim].self.ID {
			t.Errorf("task %d is said to be the dead one's", r.Task)
		}
	}
}

func TestTheLeadingStewardDies(t *testing.T) {
	t.Parallel()
	boxes, runners := withGates(t, 4)
	watcher := slices.IndexFunc(boxes, func(b *box) bool { return b.n == 4 })
	s := boxes[0].submit(count(40, "gate"))
	busy(t, runners...)
	info, err := boxes[watcher].Job(t.Context(), s.ID)
	if err != nil || info.Leader == "" || len(info.Leases) < 4 {
		t.Fatalf("%+v, %v", info, err)
	}
	leader := find(boxes, info.Leader)
	if leader == boxes[watcher] {
		watcher = 0
	}
	ended := make(chan []TaskResult, 1)
	go func() { ended <- boxes[watcher].all(s.ID) }()
	began := time.Now()
	leader.die()
	wait(t, "another leads", func() bool {
		info, err := boxes[watcher].Job(t.Context(), s.ID)
		return err == nil && info.Leader != "" && info.Leader != leader.self.ID && len(info.Leases) > 0
	})
	t.Logf("another leads, and has leases, %v after", time.Since(began))
	for i, r := range runners {
		if boxes[i] != leader {
			r.open()
		}
	}
	checkOnce(t, <-ended, 40)
	// What was under way on the living went on under the new leader.
	for i, r := range runners {
		if boxes[i] == leader {
			continue
		}
		seen := map[string]int{}
		for _, task := range r.starts() {
			if seen[task]++; seen[task] > 1 {
				t.Errorf("%s ran task %s twice", boxes[i].self.Name, task)
			}
		}
	}
}

func TestTheSubmitterLeaves(t *testing.T) {
	t.Parallel()
	boxes, runners := withGates(t, 4)
	s := boxes[1].submit(count(20, "gate"))
	busy(t, runners...)
	boxes[1].stop() // closes its lid, and says so
	for _, r := range runners {
		r.open()
	}
	checkOnce(t, boxes[3].all(s.ID), 20)
}

func TestALateJoinerWorks(t *testing.T) {
	t.Parallel()
	boxes, runners := withGates(t, 3)
	s := boxes[0].submit(count(12, "gate"))
	busy(t, runners...)
	late := &fakeRunner{}
	late.open()
	joiner := newBox(t, 9, runs(late), cores(4)).invited(boxes[0], ident.RoleMember)
	wait(t, "the newcomer does what is left", func() bool { return len(late.starts()) == 9 })
	for _, r := range runners {
		r.open()
	}
	checkOnce(t, joiner.all(s.ID), 12)
}

func TestAnExclusiveJob(t *testing.T) {
	t.Parallel()
	boxes, runners := withGates(t, 4)
	spec := count(4, "gate")
	spec.Exclusive = true
	s := boxes[0].submit(spec)
	busy(t, runners...)
	victim := slices.IndexFunc(boxes, func(b *box) bool { return !slices.Contains(s.Stewards, b.self.ID) })
	began := time.Now()
	boxes[victim].die()
	for i, r := range runners {
		if i != victim {
			r.open()
		}
	}
	checkOnce(t, boxes[0].all(s.ID), 4)
	// A lease of ten seconds, of which up to three had passed, must have lapsed first.
	if d := time.Since(began); d < 5*time.Second {
		t.Errorf("its task was given to another after %v", d)
	}
}

func TestSingle(t *testing.T) {
	t.Parallel()
	boxes := newPool(t, 1)
	s := boxes[0].submit(job.Spec{Command: command("echo", "alone")})
	if len(s.Stewards) != 1 || s.Spare != 0 {
		t.Errorf("%+v", s)
	}
	results := boxes[0].all(s.ID)
	checkOnce(t, results, 1)
	if got := string(results[0].Results[0].Stdout.Inline); got != "alone\n" {
		t.Errorf("%q", got)
	}
}

func TestTheOwnerTakesItBack(t *testing.T) {
	t.Parallel()
	boxes, runners := withGates(t, 2)
	s := boxes[0].submit(count(2, "gate"))
	busy(t, runners...)
	began := time.Now()
	boxes[1].Mine(true)
	wait(t, "it is frozen", func() bool { return runners[1].running() == 0 })
	t.Logf("its guest stopped after %v", time.Since(began))
	runners[0].open()
	checkOnce(t, boxes[0].all(s.ID), 2)
	if st := boxes[1].Status(); !st.Mine || len(st.Held) > 0 {
		t.Errorf("%+v", st)
	}
	boxes[1].Mine(false)
	runners[1].open()
	s = boxes[0].submit(count(30, "slow", "20ms"))
	checkOnce(t, boxes[0].all(s.ID), 30)
	wait(t, "it works again", func() bool { return len(runners[1].starts()) > 1 })
}

func TestASleeperIsFrozen(t *testing.T) {
	t.Parallel()
	boxes, runners := withGates(t, 2)
	s := boxes[0].submit(count(2, "gate"))
	busy(t, runners...)
	boxes[1].Sleep(t.Context(), true)
	if st := boxes[1].Status(); !st.Asleep || len(st.Held) > 0 {
		t.Errorf("%+v", st)
	}
	wait(t, "it is frozen", func() bool { return runners[1].running() == 0 })
	wait(t, "its steward knows", func() bool {
		info, err := boxes[0].Job(t.Context(), s.ID)
		return err == nil && len(info.Leases) == 1 && info.Leases[0].Worker == boxes[0].self.ID
	})
	runners[0].open()
	checkOnce(t, boxes[0].all(s.ID), 2)
	boxes[1].Sleep(t.Context(), false)
	runners[1].open()
	s = boxes[0].submit(count(30, "slow", "20ms"))
	checkOnce(t, boxes[0].all(s.ID), 30)
	wait(t, "it works again", func() bool { return len(runners[1].starts()) > 1 })
}

func TestPoison(t *testing.T) {
	t.Parallel()
	boxes := newPool(t, 3)
	spec := count(3, "fail")
	s := boxes[0].submit(spec)
	results := boxes[1].all(s.ID)
	for _, r := range results {
		if r.State != market.Failed || len(r.Results) != 3 {
			t.Fatalf("%+v", r)
		}
		for _, res := range r.Results {
			if res.Exit != 3 || res.Reason == "" || string(res.Stderr.Inline) != "it does not work\n" {
				t.Errorf("%+v", res)
			}
		}
	}
	info, err := boxes[2].Job(t.Context(), s.ID)
	if err != nil || info.State != Failed || info.Progress.Failed != 3 {
		t.Errorf("%+v, %v", info, err)
	}
	// With AnyExit an exit code is a result.
	spec.AnyExit = true
	s = boxes[0].submit(spec)
	for _, r := range boxes[0].all(s.ID) {
		if r.State != market.Succeeded || r.Results[0].Exit != 3 || r.Results[0].Reason != "" {
			t.Errorf("%+v", r)
		}
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	boxes, runners := withGates(t, 3)
	s := boxes[0].submit(count(9, "gate"))
	busy(t, runners...)
	if err := boxes[2].Kill(t.Context(), s.ID, "enough"); err != nil {
		t.Fatal(err)
	}
	wait(t, "all guests are gone", func() bool {
		return !slices.ContainsFunc(runners, func(r *fakeRunner) bool { return r.running() > 0 })
	})
	info, err := boxes[1].Job(t.Context(), s.ID)
	if err != nil || info.State != Canceled || info.Progress.Canceled != "enough" || info.Progress.Canceler != boxes[2].self.ID {
		t.Errorf("%+v, %v", info, err)
	}
	if err := boxes[1].Kill(t.Context(), s.ID, "again"); fmt.Sprint(err) == "<nil>" {
		t.Error("it was canceled twice")
	}
	if results := boxes[1].all(s.ID); len(results) != 9 || results[0].State != market.Dropped {
		t.Errorf("%+v", results)
	}
}
