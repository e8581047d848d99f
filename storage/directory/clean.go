package directory

import (
	"time"
)

const (
	// cleanEvery is how often the directory looks after itself.
	cleanEvery = 10 * time.Second
	// expireEvery is how often it looks for deletions that need not be remembered any more.
	expireEvery = time.Hour
)

// keepClean does what is due by the clock alone.
func (d *Directory) keepClean() {
	ticker := time.NewTicker(cleanEvery)
	defer ticker.Stop()
	var expired time.Time
	for {
		select {
		case <-ticker.C:
			d.clock.now() // a leap is noticed by who looks
		case <-d.clock.wake:
		case <-d.ctx.Done():
			return
		}
		if d.clock.leapt() != 0 {
			d.clockSet()
		}
		d.retryWaiting()
		if time.Since(expired) >= expireEvery {
			expired = time.Now()
			d.expire()
		}
	}
}

// expire drops the deletions that everybody has seen. With a clock that nobody confirms it drops none, for it may be
// a year ahead, unless there never was anybody else.
func (d *Directory) expire() {
	d.mu.RLock()
	if !d.replica.Clock.Confirmed() && !d.replica.Synced.IsZero() {
		d.mu.RUnlock()
		return
	}
	keys := d.replica.Expire(d.clock.now())
	dead := make([]*Record, 0, len(keys))
	for _, key := range keys {
		dead = append(dead, d.replica.Set.Get(key))
	}
	d.mu.RUnlock()
	if len(dead) > 0 {
		_ = d.drop(dead) // a failing disk says so to those who write
	}
}
