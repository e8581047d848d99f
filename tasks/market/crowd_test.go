package market

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/tasks/job"
)

// crowdAd announces a plain job that asks so many.
func crowdAd(n byte, seq uint64, crowd uint32) *Ad {
	return &Ad{Job: job.ID{n}, Submitter: "submitter", Term: 1, Seq: seq, Open: 1, Stewards: []peer.ID{"s1", "s2"}, Leader: "s1",
		Needs: Needs{Kind: job.Wasm, Cores: 1, Memory: 1}, Crowd: crowd}
}

// askedOf counts the workers, of so many, that look at a job.
func askedOf(workers []*Worker, now Moment, ad *Ad) (looks int) {
	for _, w := range workers {
		looks += len(w.Step(now, WorkerEvent{Kind: Announced, Ad: ad}).Looks)
	}
	return looks
}

func crowdWorkers(n, peers int) (out []*Worker) {
	for i := range n {
		w := NewWorker(peer.ID(fmt.Sprint("w", i)))
		w.Step(1, WorkerEvent{Kind: Changed, Lends: Lends{Cores: 1, Memory: 1 << 30, Wasm: true, Peers: peers}})
		out = append(out, w)
	}
	return out
}

// TestCrowd: about as many look at a job as are asked, others at each job; more when more are asked, and in the end all.
func TestCrowd(t *testing.T) {
	const n = 5000
	workers := crowdWorkers(n, n)
	for i, crowd := range []uint32{20, 200, 1000} {
		got := askedOf(workers, 2, crowdAd(byte(i), 1, crowd))
		if want := int(crowd); got < want/2 || got > want*3/2 {
			t.Errorf("%d were asked, %d look", crowd, got)
		}
	}
	sum, now := askedOf(workers, 3, crowdAd(9, 1, 20)), Moment(3)
	for seq := uint64(2); seq < 10; seq++ {
		now = now.Add(time.Second)
		sum += askedOf(workers, now, crowdAd(9, seq, 20<<(2*(seq-1))))
	}
	if sum != n {
		t.Errorf("%d of %d looked in the end", sum, n)
	}
}

// TestCrowdOfAll: where either side does not know how many there are, or the pool is small, or it is one's own job,
// everybody bids.
func TestCrowdOfAll(t *testing.T) {
	for name, c := range map[string]struct {
		peers int
		crowd uint32
		self  peer.ID
	}{
		"the worker knows no number":  {0, 1, "w"},
		"the leader asks all":         {100_000, 0, "w"},
		"all are as many as is asked": {18, 18, "w"},
		"one's own job":               {1 << 40, 1, "submitter"},
		"a steward":                   {1 << 40, 1, "s2"},
	} {
		w := NewWorker(c.self)
		w.Step(1, WorkerEvent{Kind: Changed, Lends: Lends{Cores: 1, Memory: 1 << 30, Wasm: true, Peers: c.peers}})
		if n := askedOf([]*Worker{w}, 2, crowdAd(1, 1, c.crowd)); n != 1 {
			t.Errorf("%s: it does not look", name)
		}
	}
	w := crowdWorkers(1, 1<<40)[0]
	if askedOf([]*Worker{w}, 2, crowdAd(1, 1, 1)); w.Why(job.ID{1}) == "" || w.jobs[job.ID{1}].stage != unasked {
		t.Errorf("it looks although it was not asked: %s", w.Why(job.ID{1}))
	}
	if err := w.Check(); err != nil {
		t.Error(err)
	}
}

// TestCrowdGrows: the leader asks more while tasks stay open, no more than fill its room, and few again for what opens
// anew.
func TestCrowdGrows(t *testing.T) {
	s := newSteward(t, 100)
	ask := func(at Moment) uint32 {
		t.Helper()
		out := s.Step(at)
		if out.Announce == nil {
			t.Fatalf("at %v nothing is announced", time.Duration(at))
		}
		return out.Announce.Crowd
	}
	first := s.out.Announce.Crowd
	if want := uint32(crowdMin + 100*crowdEach); first != want {
		t.Errorf("%d are asked first, want %d", first, want)
	}
	if second := ask(s.out.Wake); second != crowdGrow*first {
		t.Errorf("%d are asked second", second)
	}
	for i := range crowdMost / 2 { // every second one of those came
		s.Step(s.now, StewardEvent{Kind: Joined, Peer: peer.ID(fmt.Sprint("w", i)), Stream: uint64(i + 1)})
	}
	third := ask(s.adAt)
	if third != 2*crowdGrow*first {
		t.Errorf("%d are asked although %d came of %d", third, crowdMost/2, crowdGrow*first)
	}
	for i := range crowdMost {
		s.Step(s.now, StewardEvent{Kind: Joined, Peer: peer.ID(fmt.Sprint("w", i)), Stream: uint64(i + 10_000)})
	}
	if fourth := ask(s.adAt); fourth != third {
		t.Errorf("%d are asked although there is no room", fourth)
	}
	s.wasDry = true
	if again := ask(s.adLast.Add(adFirst)); again != first {
		t.Errorf("%d are asked for what opened anew, %d at first", again, first)
	}
}

// newSteward leads a job of so many tasks and has announced it once.
func newSteward(t *testing.T, tasks uint32) *Steward {
	t.Helper()
	signed := testJob(t, func(s *job.Spec) { s.Split.Count = tasks })
	m := newMill(t, signed, 0)
	if m.s.Step(m.now, m.steward...).Announce == nil {
		t.Fatal("it announces nothing")
	}
	return m.s
}
