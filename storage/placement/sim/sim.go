// Package sim plays months of a pool of laptops that sleep, travel, die and are replaced, each with a planner of its own,
// and counts what is lost and what is moved.
//
// Every laptop runs the same placement.Planner and knows only what it was told: who came and went, inventories, takings
// and promises arrive late, and only while both sides are awake. The world around them knows everything, and checks after
// each step that no rule is broken. The same seed gives the same year. Nothing here listens, sleeps or touches a disk.
package sim

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/shoal-os/shoal/storage/placement"
)

// Config describes the runs. The zero value of each field is a default.
type Config struct {
	Seeds   int    // runs; 1
	First   uint64 // the first seed
	Workers int    // runs at a time; one a core

	Laptops int           // 20
	Pieces  int           // files of one piece each; 100
	Bytes   int64         // of each piece; 1 GiB
	Copies  int           // 3
	Time    time.Duration // a year
	Deaths  float64       // permanent deaths a year, of all laptops together; 2. Negative: none
	Trips   float64       // journeys of 2 to 10 days a year, of each laptop; 4. Negative: none
	Writes  float64       // files written a day, each in the place of an old one; 1. Negative: none
	Space   int64         // bytes each laptop offers; 2.5 times what it must hold on average
	// Eager has every laptop mend at once whatever is not reachable, and let go at once what is too much.
	Eager bool

	// Progress, if not nil, is called after each run with how many are done, from one goroutine at a time.
	Progress func(done int)
	// Calm has no laptop make a second copy because only one can be reached.
	Calm bool

	fault fault
}

const (
	day  = 24 * time.Hour
	year = 365 * day
)

func (c Config) withDefaults() Config {
	set := func(v *float64, std float64) {
		if *v == 0 {
			*v = std
		}
		*v = max(*v, 0)
	}
	c.Seeds, c.Laptops, c.Pieces, c.Copies = or(c.Seeds, 1), or(c.Laptops, 20), or(c.Pieces, 100), or(c.Copies, 3)
	c.Workers = or(c.Workers, runtime.NumCPU())
	c.Bytes, c.Time = or(c.Bytes, 1<<30), or(c.Time, year)
	set(&c.Deaths, 2)
	set(&c.Trips, 4)
	set(&c.Writes, 1)
	c.Space = or(c.Space, c.Bytes*int64(c.Pieces*c.Copies)*5/2/int64(c.Laptops))
	return c
}

func or[T int | int64 | time.Duration](v, std T) T {
	if v == 0 {
		return std
	}
	return v
}

// planner is the configuration of every laptop's planner.
func (c Config) planner() placement.Config {
	switch {
	case c.fault == reckless:
		return placement.Config{FreezeShare: -1, SeeShare: -1}
	case c.fault == lazy:
		return placement.Config{Patience: year, Urgent: -1}
	case c.Calm:
		return placement.Config{Urgent: -1}
	case !c.Eager:
		return placement.Config{}
	}
	return placement.Config{
		Patience: 10 * time.Minute, Urgent: time.Minute, Jitter: -1, FreezeShare: -1, SeeShare: -1, WakeGrace: time.Minute,
		Lease: 10 * time.Minute, Reserve: 1 << 62,
	}
}

// Result counts what happened, in one run or in several together.
type Result struct {
	Seeds    int
	Days     float64
	Steps    int64 // of planners
	Deaths   int
	Joins    int
	Together int // files lost whose last holders died within the patience of each other
	Late     int // files lost later than that, while brakes or the sleep of their holders held their repair up
	Other    int // files lost otherwise: a planner that does not do what it should
	Unsaid   int // files lost before their writer was told that they are safe
	Losing   int // runs in which any file was lost

	Repair, Urgent, Share, Writer int64   // bytes moved, by what for
	Wasted                        int64   // of Repair and Urgent, what was not needed when it was done
	Hasty                         int     // repairs begun though enough of those known to hold the file had been awake within the patience
	Trims                         int     // surplus copies let go
	ShareMost                     float64 // the most that a join moved, as a multiple of its share
	Copies                        float64 // copies of a file on living laptops at the end, on average
	Reachable                     float64 // share of looks, one an hour, in which a file could be read
}

// RepairPerDay is the bytes moved a day to mend what was missing.
func (r Result) RepairPerDay() float64 { return float64(r.Repair+r.Urgent) / r.Days }

// Lost is how many files were lost after their writer was told that they are safe.
func (r Result) Lost() int { return r.Together + r.Late + r.Other }

func (r *Result) add(o Result) {
	r.Reachable = (r.Reachable*float64(r.Seeds) + o.Reachable*float64(o.Seeds)) / float64(r.Seeds+o.Seeds)
	r.Copies = (r.Copies*float64(r.Seeds) + o.Copies*float64(o.Seeds)) / float64(r.Seeds+o.Seeds)
	r.Seeds += o.Seeds
	r.Days += o.Days
	r.Steps += o.Steps
	r.Deaths += o.Deaths
	r.Joins += o.Joins
	r.Together += o.Together
	r.Late += o.Late
	r.Other += o.Other
	r.Unsaid += o.Unsaid
	r.Losing += o.Losing
	r.Repair += o.Repair
	r.Urgent += o.Urgent
	r.Share += o.Share
	r.Writer += o.Writer
	r.Wasted += o.Wasted
	r.Hasty += o.Hasty
	r.Trims += o.Trims
	r.ShareMost = max(r.ShareMost, o.ShareMost)
}

// Run plays all seeds and adds up their results; it depends on Workers by rounding only. When a rule is broken it begins no
// further seeds, and the error names the first seed in which one was, of those played.
func Run(cfg Config) (Result, error) {
	cfg = cfg.withDefaults()
	results, errs := make([]Result, cfg.Seeds), make([]error, cfg.Seeds)
	var mu sync.Mutex
	begun, done, broken := 0, 0, false
	next := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		begun++
		return begun - 1, begun <= cfg.Seeds && !broken
	}
	ended := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		done++
		broken = broken || err != nil
		if cfg.Progress != nil {
			cfg.Progress(done)
		}
	}
	var wg sync.WaitGroup
	for range min(cfg.Workers, cfg.Seeds) {
		wg.Go(func() {
			for k, ok := next(); ok; k, ok = next() {
				results[k], errs[k] = play(cfg, cfg.First+uint64(k))
				ended(errs[k])
			}
		})
	}
	wg.Wait()
	var sum Result
	for k := range results {
		if errs[k] != nil {
			return sum, fmt.Errorf("seed %d: %w", cfg.First+uint64(k), errs[k])
		}
		sum.add(results[k])
	}
	return sum, nil
}
