package sim

import (
	"slices"
	"time"
)

const (
	lookEvery = time.Hour
	enough    = 3 // looks at which a repair could have gone on: then it was late for no reason
)

// death is the end of a laptop: when, and when it was last awake.
type death struct {
	at, awake time.Duration
	who       uint8
}

// sight is what the world saw when it looked.
type sight struct {
	at     time.Duration
	online held
	frozen bool // too few were online, or too many had just gone, for anything to be mended
}

// mourn counts a file whose last copy is gone, by how it came to that: its last holders died within the patience; or later
// than that, but its repair was held up by brakes, or by its holders being asleep; or otherwise.
func (w *world) mourn(f *file) {
	if !f.live || f.held.count() > 0 {
		return
	}
	f.lost, f.live = true, false
	w.live = slices.DeleteFunc(w.live, func(n int32) bool { return &w.files[n] == f })
	last, from, due := f.deaths, f.made, f.made
	if k := len(f.deaths) - w.cfg.Copies; k >= 0 {
		last = f.deaths[k:]
		from, due = last[0].at, last[0].awake+patience
	}
	switch {
	case !f.said:
		w.res.Unsaid++
	case w.now-from <= patience:
		w.res.Together++
	case w.mendable(last, due) <= enough:
		w.res.Late++
	default:
		w.res.Other++
	}
}

// mendable counts the looks, from half an hour after a repair was due, at which nothing stood against it.
func (w *world) mendable(holders []death, due time.Duration) (looks int) {
	var held held
	for _, d := range holders {
		held.add(int(d.who))
	}
	for _, s := range w.sights {
		if source := held.and(s.online); s.at > due+30*time.Minute && !s.frozen && source.count() > 0 {
			looks++
		}
	}
	return looks
}

// look sees which files can be read now, and whether anything can be mended.
func (w *world) look() {
	w.at(w.now+lookEvery, event{kind: looks})
	members, gone := 0, 0
	for _, l := range w.all {
		if l.member.ID == "" {
			continue
		}
		members++
		if !l.online && w.now-l.slept < time.Hour {
			gone++
		}
	}
	frozen := 2*w.online.count() < members || gone > 1 && 4*gone >= members
	w.sights = append(w.sights, sight{w.now, w.online, frozen})
	for _, n := range w.live {
		w.looked[0]++
		if at := w.files[n].held.and(w.online); at.count() > 0 {
			w.looked[1]++
		}
	}
}
