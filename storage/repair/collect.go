package repair

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	// flightTime is how long a piece that another peer gave, or heard proof of, is kept though no name needs it yet: the names
	// come once all copies of what they name are made.
	flightTime = time.Hour
	// flightMax bounds the pieces that are remembered for this; of more the oldest are forgotten first.
	flightMax = 1 << 20
)

// ErrNotInStep is returned by CollectNow when this peer cannot know what is needed.
var ErrNotInStep = errors.New("repair: the names are not known to be in step with the pool's; nothing is collected")

// flight holds the pieces that others gave or count on, for as long as their names may be on the way. Two generations take turns,
// so that forgetting costs nothing.
type flight struct {
	mu       sync.Mutex
	now, old map[chunk.CID]struct{}
	turned   time.Time
}

func (f *flight) add(ids []chunk.CID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn()
	for _, id := range ids {
		f.now[id] = struct{}{}
	}
}

// turn forgets the older generation when its time is over. mu is held.
func (f *flight) turn() {
	if f.now != nil && time.Since(f.turned) < flightTime && len(f.now) < flightMax/2 {
		return
	}
	if time.Since(f.turned) >= 2*flightTime {
		f.now = nil
	}
	f.now, f.old, f.turned = map[chunk.CID]struct{}{}, f.now, time.Now()
}

func (f *flight) has(id chunk.CID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn()
	_, ok := f.now[id]
	if !ok {
		_, ok = f.old[id]
	}
	return ok
}

// named reports whether some name needs a piece.
func (r *Repair) named(id chunk.CID) bool {
	r.mu.Lock()
	names := r.names
	r.mu.Unlock()
	return names != nil && names.Live()(id)
}

// collect looks for what no name needs now and then.
func (r *Repair) collect() {
	if r.cfg.Collect < 0 {
		return
	}
	ticker := time.NewTicker(r.cfg.Collect)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-r.ctx.Done():
			return
		}
		if _, err := r.CollectNow(r.ctx, false); err != nil && !errors.Is(err, ErrNotInStep) {
			r.log.Warn("what is not needed is not collected", "err", err)
		}
	}
}

// CollectNow puts what no name needs, and nobody is writing, into quarantine, and deletes what has been there for a day;
// with purge, all that is there. It fails with ErrNotInStep.
func (r *Repair) CollectNow(ctx context.Context, purge bool) (piece.Collected, error) {
	r.mu.Lock()
	names := r.names
	r.mu.Unlock()
	if names == nil || !r.cfg.InStep() {
		return piece.Collected{}, ErrNotInStep
	}
	live := names.Live()
	c, err := r.store.Collect(func(id chunk.CID) bool { return live(id) || r.flight.has(id) })
	if err == nil && purge && ctx.Err() == nil {
		var p piece.Collected
		p, err = r.store.Purge(true)
		c.Purged += p.Purged
		c.Freed += p.Freed
	}
	if err != nil {
		return c, fmt.Errorf("repair: collect: %w", err)
	}
	r.learnStore()
	return c, nil
}
