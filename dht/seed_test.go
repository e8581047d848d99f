package dht

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestSchedule(t *testing.T) {
	now := time.Unix(1000, 0)
	s := newSchedule()
	a, b := Key{1}, Key{2}
	s.add(a, now)
	s.add(a, now.Add(time.Hour)) // keeps its time
	if _, ok := s.next(now); ok {
		t.Fatal("due with nobody to tell")
	}
	if _, ok := s.wake(); ok {
		t.Fatal("wakes with nobody to tell")
	}
	s.setOpen(true)
	if k, ok := s.next(now); !ok || k != a {
		t.Fatal("a is not due")
	}
	if _, ok := s.next(now); ok {
		t.Fatal("a is due twice")
	}
	s.done(a, true, now)
	if s.provided(a) != now {
		t.Error("the success is not noted")
	}
	if wake, ok := s.wake(); !ok || wake != now.Add(reprovideEvery) {
		t.Errorf("wakes at %v", wake)
	}
	// b fails, at waits that double up to a bound.
	s.add(b, now)
	for wait := retryFirst; wait < 4*retryMax; wait *= 2 {
		if k, ok := s.next(now); !ok || k != b {
			t.Fatalf("b is not due after %v", wait)
		}
		s.done(b, false, now)
		wake, _ := s.wake()
		if want := now.Add(min(wait, retryMax)); wake != want {
			t.Fatalf("wakes after %v, want %v", wake.Sub(now), want.Sub(now))
		}
		now = wake
	}
	if !s.provided(b).IsZero() {
		t.Error("a failure counts as a success")
	}
	s.remove(a)
	s.remove(a)
	s.remove(b)
	if _, ok := s.wake(); ok {
		t.Error("something is left")
	}
}

func TestScheduleAgain(t *testing.T) {
	now := time.Unix(1000, 0)
	s := newSchedule()
	s.setOpen(true)
	a, b := Key{1}, Key{2}
	s.add(a, now)
	s.add(b, now)
	first, _ := s.next(now)
	second, _ := s.next(now)
	s.done(first, true, now)
	s.again(now) // second is in flight
	if k, ok := s.next(now); !ok || k != first {
		t.Fatal("the one that landed is not due again")
	}
	s.done(second, true, now)
	if k, ok := s.next(now); !ok || k != second {
		t.Fatal("the one in flight is not due again when it lands")
	}
	s.done(first, true, now)
	s.done(second, true, now)
	if _, ok := s.next(now); ok {
		t.Error("due a third time")
	}
}

func TestScheduleRemoveInFlight(t *testing.T) {
	now := time.Unix(1000, 0)
	s := newSchedule()
	s.setOpen(true)
	s.add(Key{1}, now)
	k, _ := s.next(now)
	s.remove(k)
	s.done(k, true, now)
	if len(s.items) != 0 || len(s.queue) != 0 {
		t.Error("a removed key came back")
	}
	s.add(k, now)
	s.done(k, true, now) // of the flight before
	if got, ok := s.next(now); !ok || got != k || !s.provided(k).IsZero() {
		t.Error("the flight before counts for the key added anew")
	}
}

// recorder is a table that notes what is announced to it, and when.
type recorder struct {
	mu    sync.Mutex
	calls []time.Duration // since start
	start time.Time
	fail  bool
	size  int
	slow  time.Duration
	now   int // under way
	most  int
}

func (r *recorder) announce(ctx context.Context, _ Key) error {
	r.mu.Lock()
	r.calls = append(r.calls, time.Since(r.start))
	r.now++
	r.most = max(r.most, r.now)
	fail, slow := r.fail, r.slow
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.now--
		r.mu.Unlock()
	}()
	if slow > 0 {
		t := time.NewTimer(slow)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if fail {
		return errors.New("nobody answered")
	}
	return nil
}

func (r *recorder) tableSize() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.size
}

func (r *recorder) since() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// pass lets virtual time go by.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func withSeeder(t *testing.T, f func(r *recorder, s *seeder)) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{start: time.Now(), size: 1}
		s := newSeeder(r.announce, r.tableSize)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.run(ctx)
		}()
		f(r, s)
		cancel()
		<-done
	})
}

func TestSeederReprovides(t *testing.T) {
	withSeeder(t, func(r *recorder, s *seeder) {
		s.add(Key{1})
		pass(time.Minute)
		if got := r.since(); len(got) != 0 {
			t.Fatalf("announced to nobody at %v", got)
		}
		s.tableGrew()
		pass(2 * reprovideEvery)
		want := []time.Duration{time.Minute, time.Minute + reprovideEvery, time.Minute + 2*reprovideEvery}
		if got := r.since(); !slices.Equal(got, want) {
			t.Errorf("announced at %v, want %v", got, want)
		}
		if s.provided(Key{1}) != r.start.Add(want[2]) {
			t.Errorf("provided at %v", s.provided(Key{1}))
		}
		s.remove(Key{1})
		pass(2 * reprovideEvery)
		if len(r.since()) != len(want) {
			t.Error("announced after it was removed")
		}
	})
}

func TestSeederRetries(t *testing.T) {
	withSeeder(t, func(r *recorder, s *seeder) {
		r.fail = true
		s.tableGrew()
		s.add(Key{1})
		pass(4 * retryFirst)
		want := []time.Duration{0, retryFirst, 3 * retryFirst}
		if got := r.since(); !slices.Equal(got, want) {
			t.Errorf("announced at %v, want %v", got, want)
		}
	})
}

func TestSeederFollowsASmallTable(t *testing.T) {
	withSeeder(t, func(r *recorder, s *seeder) {
		s.tableGrew()
		s.add(Key{1})
		pass(10 * time.Second)
		for range 5 { // five newcomers within a second make one round
			s.tableGrew()
			pass(200 * time.Millisecond)
		}
		pass(time.Minute)
		settle := tableSettle + tableSettlePerKey
		want := []time.Duration{0, 10*time.Second + 800*time.Millisecond + settle}
		if got := r.since(); !slices.Equal(got, want) {
			t.Fatalf("announced at %v, want %v", got, want)
		}
		r.mu.Lock()
		r.size = tableSmall + 1
		r.mu.Unlock()
		s.tableGrew()
		pass(time.Minute)
		if got := r.since(); len(got) != len(want) {
			t.Errorf("a newcomer to a large table set off %v", got)
		}
	})
}

func TestSeederIsNotStarvedByARestlessTable(t *testing.T) {
	withSeeder(t, func(r *recorder, s *seeder) {
		s.tableGrew()
		s.add(Key{1})
		synctest.Wait()
		for range int(tableSettleMax/(tableSettle/2)) + 4 {
			s.tableGrew()
			pass(tableSettle / 2)
		}
		if got := r.since(); len(got) != 2 || got[1] != tableSettleMax {
			t.Errorf("announced at %v", got)
		}
	})
}

func TestSeederIsBounded(t *testing.T) {
	withSeeder(t, func(r *recorder, s *seeder) {
		r.slow = time.Second
		for i := range 10 {
			s.add(Key{byte(i)})
		}
		s.tableGrew()
		pass(10 * time.Second)
		if got := r.since(); len(got) != 10 {
			t.Errorf("%d announcements", len(got))
		}
		if r.most != provideParallel {
			t.Errorf("%d at once", r.most)
		}
		r.slow = time.Hour
		s.add(Key{100})
		synctest.Wait()
		begun := time.Now()
		pass(provideWait)
		if s.provided(Key{100}).After(begun) {
			t.Error("an announcement that hangs counts as made")
		}
	})
}

// The routing table tells of new peers while it is locked. A seeder that asked it something under its own lock would wait for
// it for ever, and it for the seeder.
func TestSeederAsksTheTableUnlocked(t *testing.T) {
	asked := false
	var s *seeder
	s = newSeeder(func(context.Context, Key) error { return nil }, func() int {
		asked = true
		if !s.mu.TryLock() {
			t.Error("the table is asked while the seeder is locked")
			return 1
		}
		s.mu.Unlock()
		return 1
	})
	s.tableGrew()
	s.tableGrew()
	s.launch(t.Context(), time.Now().Add(time.Hour))
	if !asked {
		t.Error("the table was not asked")
	}
}
