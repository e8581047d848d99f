package directory

import (
	"time"
)

const (
	// cleanEvery is how often the directory looks after itself.
	cleanEvery = 10 * time.Second
	// expireEvery is how often it looks for deletions that need not be remembered any more.
	expireEvery = time.Hour

	// stepMin is by how much this machine's clock must move against the time that really went by to count as set.
	stepMin = 30 * time.Second
)

// keepClean does what is due by the clock alone.
func (d *Directory) keepClean() {
	ticker := time.NewTicker(cleanEvery)
	defer ticker.Stop()
	var expired time.Time
	wall, ran := d.cfg.Now().Round(0), time.Now()
	for {
		select {
		case <-ticker.C:
		case <-d.ctx.Done():
			return
		}
		// Round strips the monotonic reading, which would hide that the clock was set.
		if step := d.cfg.Now().Round(0).Sub(wall) - time.Since(ran); step.Abs() > stepMin {
			d.clockSet()
		}
		wall, ran = d.cfg.Now().Round(0), time.Now()
		d.retryWaiting()
		if time.Since(expired) >= expireEvery {
			expired = time.Now()
			d.expire()
		}
	}
}

// clockSet is for when this machine's clock was set, or the machine slept: what others' clocks were away from it has
// to be heard anew.
func (d *Directory) clockSet() {
	_ = d.submit(d.ctx, &job{decide: func(*batch) error {
		d.replica.Clock.Stepped()
		return nil
	}})
	d.contacts.hurry()
}

// expire drops the deletions that everybody has seen. With a clock that nobody confirms it drops none, for it may be
// a year ahead, unless there never was anybody else.
func (d *Directory) expire() {
	d.mu.RLock()
	if !d.replica.Clock.Confirmed() && !d.replica.Synced.IsZero() {
		d.mu.RUnlock()
		return
	}
	keys := d.replica.Expire(d.cfg.Now())
	dead := make([]*Record, 0, len(keys))
	for _, key := range keys {
		dead = append(dead, d.replica.Set.Get(key))
	}
	d.mu.RUnlock()
	if len(dead) > 0 {
		_ = d.drop(dead) // a failing disk says so to those who write
	}
}
