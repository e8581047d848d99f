package storage

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	limitPeriod  = time.Second      // between two looks at roots that have a limit
	limitPersist = 30 * time.Second // how much of the way a crash may forget
)

// Limit says when a root has been seeded enough: it is unshared then, and its
// files stay. The zero value is never.
type Limit = block.Limit

// ErrLimit reports a limit that makes no sense.
var ErrLimit = errors.New("not a limit")

// limits watches the roots that have one, while there are any.
type limits struct {
	mu      sync.Mutex
	running bool
	roots   map[*block.Root]*watched
}

// watched is how far one root has come in this run.
type watched struct {
	limit  Limit // as it was when the watch began
	served int64 // the root's counter then
	since  time.Time
	saved  time.Time
}

// now is the limit with how far the root has come.
func (w *watched) now(r *block.Root, at time.Time) Limit {
	l := w.limit
	l.Uploaded += r.Uploaded.Load() - w.served
	l.Seeded += at.Sub(w.since)
	return l
}

// SetLimit has a root unshared once it has been seeded so much from now on, or
// never if limit is the zero value.
func (s *Storage) SetLimit(root chunk.CID, limit Limit) error {
	if limit.Ratio < 0 || limit.Time < 0 || limit.Ratio != limit.Ratio {
		return fmt.Errorf("storage: %w: ratio %v, time %v", ErrLimit, limit.Ratio, limit.Time)
	}
	r, ok := s.store.Root(root)
	if !ok {
		return fmt.Errorf("storage: %s: %w", root, ErrNotShared)
	}
	limit.Uploaded, limit.Seeded = 0, 0
	if err := r.SetLimit(limit); err != nil {
		return err
	}
	s.limits.mu.Lock()
	delete(s.limits.roots, r)
	s.limits.mu.Unlock()
	if limit.Set() {
		s.watch(r)
	}
	return nil
}

// watch begins to look after a root's limit.
func (s *Storage) watch(r *block.Root) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	l := &s.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.roots == nil {
		l.roots = map[*block.Root]*watched{}
	}
	now := time.Now()
	l.roots[r] = &watched{limit: r.Limit(), served: r.Uploaded.Load(), since: now, saved: now}
	if !l.running {
		l.running = true
		s.tasks.Go(s.watchLimits)
	}
}

// progress is a root's limit with how far it has come.
func (l *limits) progress(r *block.Root) Limit {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.roots[r]; w != nil {
		return w.now(r, time.Now())
	}
	return r.Limit()
}

// watchLimits runs while there are roots with a limit. At its end it notes how
// far they have come.
func (s *Storage) watchLimits() {
	tick := time.NewTicker(limitPeriod)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			for _, r := range s.limits.due(s, now) {
				s.seededEnough(r)
			}
			if s.limits.rest() {
				return
			}
		case <-s.ctx.Done():
			s.limits.save(s, time.Now(), 0)
			return
		}
	}
}

// due takes those that have reached their limit off the list, and those whose
// record is another's by now.
func (l *limits) due(s *Storage, now time.Time) (out []*block.Root) {
	l.save(s, now, limitPersist)
	l.mu.Lock()
	defer l.mu.Unlock()
	for r, w := range l.roots {
		current, ok := s.store.Root(r.CID())
		switch {
		case !ok || current != r:
			delete(l.roots, r)
		case w.now(r, now).Reached(r.Info().Size):
			delete(l.roots, r)
			out = append(out, r)
		}
	}
	return out
}

// save writes how far the roots have come that were last saved so long ago.
func (l *limits) save(s *Storage, now time.Time, age time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r, w := range l.roots {
		if now.Sub(w.saved) < age {
			continue
		}
		w.saved = now
		if err := r.SetLimit(w.now(r, now)); err != nil {
			s.log.Warn("record not updated", "root", r.CID(), "err", err)
		}
	}
}

// rest reports, for good, that there is nothing left to watch.
func (l *limits) rest() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.roots) > 0 {
		return false
	}
	l.running = false
	return true
}

// seededEnough ends a share.
func (s *Storage) seededEnough(r *block.Root) {
	i := r.Info()
	s.log.Info("seeded enough", "name", i.Name, "root", i.Root)
	if err := s.Unshare(i.Root); err != nil && !errors.Is(err, ErrNotShared) {
		s.log.Warn("not unshared", "root", i.Root, "err", err)
	}
}
