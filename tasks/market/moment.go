package market

import "time"

// Moment is a reading of one peer's boot-time clock, which counts the time that the machine sleeps. Moments of different
// peers, and of different boots of a peer, cannot be compared. The zero value is no moment.
type Moment time.Duration

// Add returns the moment d later.
func (m Moment) Add(d time.Duration) Moment { return m + Moment(d) }

// Sub returns the time from u to m.
func (m Moment) Sub(u Moment) time.Duration { return time.Duration(m - u) }

// earlier returns the earlier of two moments, where zero is none.
func earlier(a, b Moment) Moment {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

const (
	// LeaseTTL is how long a lease lasts at the leader, from the moment at which it granted or renewed it.
	LeaseTTL = 10 * time.Second
	// RenewEvery is how often a worker renews all its leases.
	RenewEvery = 3 * time.Second
	// SafeTTL is how long a worker takes its lease to last, from the moment at which it sent what the leader answered,
	// which was before the leader's clock started. It leaves room for a worker's clock that is slow by a tenth
	// against the leader's, and half a second to freeze: (8.5 s + 0.5 s) / 0.9 = LeaseTTL.
	SafeTTL = 8500 * time.Millisecond

	// authorityTTL is how long a leader may act after a moment at which a quorum still followed it. Of exclusive jobs
	// alone: a leader that was deposed unawares can do no harm to others.
	authorityTTL = 2 * time.Second
	// skew stretches a wait so that it is long enough on a clock that is slow by a tenth against another, and more.
	skewNum, skewDen = 5, 4
)

// stretched is d with room for clocks whose rates differ.
func stretched(d time.Duration) time.Duration { return d * skewNum / skewDen }
