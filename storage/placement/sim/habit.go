package sim

import (
	"math/rand/v2"
	"time"
)

// habit is when somebody uses a laptop: from some hour to some other nearly every day, with its lid closed now and then,
// and away on journeys.
type habit struct {
	opens, closes time.Duration // time of day
	trips         float64       // a year
}

const (
	startOfDay = 12 * time.Hour // time of day when the world begins
	jitter     = 40 * time.Minute
	napChance  = 0.4  // that the lid is closed once between morning and night
	idleWork   = 0.05 // that it stays closed all of a working day
	idleRest   = 0.3  // and all of a day of the weekend
	tripMin    = 2 * day
	tripMax    = 10 * day
)

func newHabit(rng *rand.Rand, trips float64) habit {
	return habit{
		opens:  between(rng, 6*time.Hour+30*time.Minute, 9*time.Hour+30*time.Minute),
		closes: between(rng, 20*time.Hour, 23*time.Hour),
		trips:  trips,
	}
}

func between(rng *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(rng.Int64N(int64(to-from)))
}

// until is when a laptop that woke now goes to sleep.
func (h habit) until(rng *rand.Rand, now time.Duration) time.Duration {
	midnight := now - (now+startOfDay)%day
	night := midnight + h.closes + between(rng, -jitter, jitter)
	if night <= now+10*time.Minute {
		return now + between(rng, 10*time.Minute, time.Hour)
	}
	if rng.Float64() < napChance {
		return between(rng, now+5*time.Minute, night)
	}
	return night
}

// from is when one that went to sleep now wakes up.
func (h habit) from(rng *rand.Rand, now time.Duration) time.Duration {
	midnight := now - (now+startOfDay)%day
	if evening := midnight + h.closes - 2*jitter; now < evening { // a nap
		return now + between(rng, 2*time.Minute, 3*time.Hour)
	}
	next := midnight + day
	if rng.Float64() < h.trips/365 {
		next += between(rng, tripMin, tripMax).Round(day)
	}
	for rng.Float64() < idle(next) {
		next += day
	}
	return next + h.opens + between(rng, -jitter, jitter)
}

func idle(midnight time.Duration) float64 {
	if weekday := (midnight + startOfDay) / day % 7; weekday >= 5 {
		return idleRest
	}
	return idleWork
}
