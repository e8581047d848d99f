package tree

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/shoal-os/shoal/storage/directory"
)

const (
	// Keep is how long a version is kept after it was replaced or removed.
	Keep = 30 * 24 * time.Hour

	// expireEvery is how often each peer looks for versions to delete, give or take a half, so that not all of them
	// delete the same ones at once. Removals wait for a later look than what they removed.
	expireEvery = time.Hour
	// expireMax is how many versions are deleted at one look. The rest waits for the next.
	expireMax = 10_000
)

// Expire deletes the records of versions that were replaced or removed more than Keep before now, by the pool's time,
// at most 10,000 of them, and returns how many. A removal's own record is deleted by a call after the one that deleted
// what it removed; an hour should lie between.
func (t *Tree) Expire(ctx context.Context, now time.Time) (int, error) {
	t.mu.RLock()
	due := t.core.Expired(now.Add(-Keep), expireMax)
	t.mu.RUnlock()
	changes := make([]directory.Change, 0, len(due))
	for _, d := range due {
		changes = append(changes, deletion(d))
	}
	return len(due), t.commit(ctx, changes)
}

// keepExpiring calls Expire for as long as the tree is open.
func (t *Tree) keepExpiring() {
	for {
		timer := time.NewTimer(expireEvery/2 + rand.N(expireEvery))
		select {
		case <-timer.C:
		case <-t.ctx.Done():
			timer.Stop()
			return
		}
		if !t.cfg.Trusted() {
			continue
		}
		if n, err := t.Expire(t.ctx, t.cfg.Now()); err != nil {
			t.cfg.Log.Warn("old versions could not be deleted", "err", err)
		} else if n > 0 {
			t.cfg.Log.Debug("old versions deleted", "versions", n)
		}
	}
}
