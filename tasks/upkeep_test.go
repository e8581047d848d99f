package tasks

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/quorum"
	"github.com/shoal-os/shoal/tasks/card"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/keep"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

// skewed gives all boxes one clock for the time of day that a test can move.
func skewed() (option, *atomic.Int64) {
	skew := new(atomic.Int64)
	return func(b *box) {
		b.edit = func(c *Config) {
			c.Now = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
		}
	}, skew
}

// leads finds the box that leads a job.
func leads(t testing.TB, boxes []*box, id job.ID) (out *box) {
	t.Helper()
	wait(t, "somebody leads", func() bool {
		for _, b := range boxes {
			if s := b.seat(id); s != nil && s.leading.Load() {
				out = b
			}
		}
		return out != nil
	})
	return out
}

// TestAJobsTimeIsOver: its group, its records and in the end its pieces go, on all peers.
func TestAJobsTimeIsOver(t *testing.T) {
	t.Parallel()
	clock, skew := skewed()
	boxes := newPool(t, 3, clock)
	spec := count(200, "task")
	spec.Inputs = []job.Input{{Name: "in", File: boxes[0].put([]byte("an input"))}}
	spec.Retention = time.Hour
	s := boxes[0].submit(spec)
	boxes[0].all(s.ID)
	lead := leads(t, boxes, s.ID)
	wait(t, "its records are written", func() bool {
		c, ok := boxes[1].cardOf(s.ID)
		return ok && c.End == card.Done && len(lead.seat(s.ID).ledger.Pages()) > 0 && boxes[2].keeper.Lists(spec.Inputs[0].File.Root)
	})
	lead.seat(s.ID).upkeep() // it is not time yet
	skew.Store(int64(2 * time.Hour))
	wait(t, "all of it is gone", func() bool {
		for _, b := range boxes {
			if x := b.seat(s.ID); x != nil {
				x.upkeep()
				return false
			}
			if _, ok := b.names.Get(card.KeyOf(s.ID)); ok {
				return false
			}
			for range b.names.Scan(keep.Of(s.ID)) {
				return false
			}
		}
		return true
	})
	if _, err := boxes[1].Job(t.Context(), s.ID); err != ErrNoJob {
		t.Errorf("%v", err)
	}
}

// TestAStewardGoesForGood: its place is taken by another.
func TestAStewardGoesForGood(t *testing.T) {
	t.Parallel()
	boxes, runners := withGates(t, 4)
	s := boxes[0].submit(count(4, "gate"))
	busy(t, runners...)
	out := find(boxes, s.Stewards[slices.IndexFunc(s.Stewards, func(id peer.ID) bool { return id != boxes[0].self.ID })])
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := boxes[0].pool.Evict(ctx, out.self.ID); err != nil {
		t.Fatal(err)
	}
	rest := slices.DeleteFunc(slices.Clone(boxes), func(b *box) bool { return b == out })
	wait(t, "three others are its stewards", func() bool {
		lead := leads(t, rest, s.ID)
		seat := lead.seat(s.ID)
		if seat == nil {
			return false
		}
		seat.upkeep()
		voters := votersOf(seat.group.Status())
		return len(voters) == 3 && !slices.Contains(voters, out.self.ID)
	})
	for _, r := range runners {
		r.open()
	}
	checkOnce(t, rest[2].all(s.ID), 4)
}

// TestASubmissionBreaksOff in each of its steps, and leaves nothing that anybody takes for a job.
func TestASubmissionBreaksOff(t *testing.T) {
	t.Parallel()
	clock, skew := skewed()
	boxes := newPool(t, 3, clock)
	spec := withPool(boxes[0], count(3, "task"))
	spec.Inputs = []job.Input{{Name: "in", File: boxes[0].put([]byte("an input"))}}
	signed, err := job.Sign(boxes[0].self.Key, spec)
	if err != nil {
		t.Fatal(err)
	}
	// After the records, and the group, and before the submission.
	changes, err := boxes[0].namedIn(t.Context(), signed)
	if err == nil {
		err = boxes[0].keepNamed(t.Context(), changes)
	}
	if err != nil {
		t.Fatal(err)
	}
	g, err := boxes[0].cfg.Quorum.Create(t.Context(), quorum.GroupID(signed.ID), KindJob, boxes[0].chooseStewards(signed.ID))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range boxes {
		if list, err := b.Jobs(t.Context()); err != nil || len(list) > 0 {
			t.Errorf("%+v, %v", list, err)
		}
	}
	wait(t, "the group has gone", func() bool {
		for _, b := range boxes {
			if s := b.seat(signed.ID); s != nil {
				s.began.Add(int64(-2 * orphanWait)) // it has waited long enough
				s.upkeep()
				return false
			}
		}
		return true
	})
	_ = g
	skew.Store(int64(2 * strayWait))
	wait(t, "so have the records", func() bool {
		if err := boxes[0].sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, b := range boxes {
			for range b.names.Scan(keep.Of(signed.ID)) {
				return false
			}
		}
		return true
	})
}

// recorded is a directory whose writes a test sees before they are made; they are made even if who wants them is gone by then.
type recorded struct {
	Records
	see func()
}

func (r recorded) Write(ctx context.Context, changes ...directory.Change) error {
	r.see()
	return r.Records.Write(context.WithoutCancel(ctx), changes...)
}

// TestTheSameSubmissionTwice: a job that is there already loses nothing when it is submitted again, for the answer may have been lost.
func TestTheSameSubmissionTwice(t *testing.T) {
	t.Parallel()
	b := newPool(t, 1, func(b *box) { b.edit = func(c *Config) { c.Records = recorded{c.Records, func() {}} } })[0]
	spec := withPool(b, count(3, "task"))
	spec.Submitter = b.self.ID
	spec.Inputs = []job.Input{{Name: "in", File: b.put([]byte("an input"))}}
	signed, err := job.Sign(b.self.Key, spec)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.answerSubmit(t.Context(), b.self.ID, signed.Raw, func(*pb.Answer) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Tasks.Close(); err != nil { // what is done in the background is done then
		t.Fatal(err)
	}
	lists := 0
	for range b.names.Scan(keep.Of(signed.ID)) {
		lists++
	}
	if lists == 0 {
		t.Error("its input is not kept any more")
	}
}

// TestWhoSubmitsIsGone when the job has just been entered: nobody heard its name, so nobody would ever end it.
func TestWhoSubmitsIsGone(t *testing.T) {
	t.Parallel()
	ctx, gone := context.WithCancel(t.Context())
	defer gone()
	var b *box
	see := func() {
		wait(t, "the job is in the log", func() bool {
			seats := b.allSeats()
			return len(seats) == 1 && seats[0].ledger.Job() != nil || ctx.Err() != nil
		})
		gone()
	}
	b = newPool(t, 1, func(b *box) { b.edit = func(c *Config) { c.Records = recorded{c.Records, see} } })[0]
	spec := count(3, "hang")
	spec.Inputs = []job.Input{{Name: "in", File: b.put([]byte("an input"))}}
	if s, err := b.Submit(ctx, spec, SubmitOptions{Fresh: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", s, err)
	}
	wait(t, "nothing of it is left", func() bool {
		for range b.names.Scan(keep.Prefix) {
			return false
		}
		return len(b.allSeats()) == 0
	})
}

// TestStewardsStartAgain: a job goes on after all of the pool was switched off.
func TestStewardsStartAgain(t *testing.T) {
	t.Parallel()
	boxes, runners := withGates(t, 3)
	s := boxes[0].submit(count(300, "gate"))
	busy(t, runners...)
	for _, b := range boxes {
		b.die()
	}
	for i, b := range boxes {
		runners[i].open()
		b.openPool()
		b.openAll()
	}
	checkOnce(t, boxes[2].all(s.ID), 300)
	// Once more, with pages of results that are pieces.
	for _, b := range boxes {
		b.stop()
		b.openPool()
		b.openAll()
	}
	meet(t, boxes...)
	checkOnce(t, boxes[1].all(s.ID), 300)
}

// TestStewardsThatFollow tell of results that they have not heard of yet: they ask the leader first.
func TestStewardsThatFollow(t *testing.T) {
	t.Parallel()
	boxes := newPool(t, 3)
	for range 5 {
		s := boxes[0].submit(count(20, "task"))
		lead := leads(t, boxes, s.ID)
		lead.all(s.ID)
		for _, b := range boxes {
			err := b.seat(s.ID).results(t.Context(), 0, 20, func(a *pb.Answer) error {
				for _, m := range a.GetResults() {
					if r, err := resultOf(m); err != nil || r.State != market.Succeeded {
						t.Errorf("%s: task %d: %v, %v", b.self.Name, r.Task, r.State, err)
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	}
}

// TestAStewardThatCameLate fetches pages that were sealed before.
func TestAStewardThatCameLate(t *testing.T) {
	t.Parallel()
	boxes := newPool(t, 3)
	s := boxes[0].submit(count(1000, "task"))
	boxes[0].all(s.ID)
	late := newBox(t, 7).invited(boxes[0], ident.RoleMember)
	meet(t, append(boxes, late)...)
	lead := leads(t, boxes, s.ID)
	if err := lead.seat(s.ID).group.Add(t.Context(), late.self.ID); err != nil {
		t.Fatal(err)
	}
	wait(t, "it has all pages", func() bool {
		x := late.seat(s.ID)
		if x == nil || len(x.ledger.Pages()) == 0 || len(x.ledger.Missing()) > 0 {
			return false
		}
		for _, id := range x.ledger.Pages() {
			if _, ok := late.pieces.Get(id); !ok {
				return false
			}
		}
		return true
	})
	for _, b := range boxes {
		b.stop()
	}
	for r, err := range late.Results(t.Context(), s.ID, 0, 1000) {
		if err != nil || len(r.Results) != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
}
