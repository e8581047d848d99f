// Package scale asks what shoal costs each of its peers as a pool grows from 10 to 100,000, and what gives way first.
//
// It owns two kinds of answer, and a page that keeps them apart. Real ones come from outside: hosts of the real packages,
// 10 to 100 in one process, which testnet/bench starts, watches and writes down as a Measured. The others are made here, by
// running the pure code of the product itself (placement, roster, names, inventory, market) on virtual time with as many
// peers as are asked for, and, where what matters is a library's (Kademlia, GossipSub), by a model of it that is held
// against the real figures.
//
// All counts follow from the seed. Times and bytes of memory are of the machine that ran it. The package refuses to draw a
// line beyond what it ran: a figure for a size that the product's own bounds exclude is reported as excluded.
package scale

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Basis says what a figure rests on.
type Basis string

// The bases, the firmest first.
const (
	OfHosts Basis = "measured"  // real hosts, real streams
	OfCode  Basis = "simulated" // the product's pure code, on virtual time
	OfModel Basis = "model"     // a model of code that is not ours, or arithmetic over measured figures
)

// Config says what to run. The zero value of each field but Seed is a default.
type Config struct {
	Seed     uint64
	Sizes    []int                            // of pools; 10, 100, 1,000, 10,000 and 100,000
	Only     []string                         // the names of sections; all
	Measured Measured                         // what real hosts cost
	Progress func(format string, args ...any) // nil: nobody looks on
	CPU      func() float64                   // seconds that this process has used so far; nil: the clock on the wall

	found map[string]map[int]float64 // what sections found out by size, for those that sum up
}

// note keeps a figure for later sections.
func (c Config) note(name string, n int, v float64) {
	if c.found[name] == nil {
		c.found[name] = map[int]float64{}
	}
	c.found[name][n] = v
}

func (c Config) withDefaults() Config {
	if len(c.Sizes) == 0 {
		c.Sizes = []int{10, 100, 1_000, 10_000, 100_000}
	}
	if c.Progress == nil {
		c.Progress = func(string, ...any) {}
	}
	if c.CPU == nil {
		began := time.Now()
		c.CPU = func() float64 { return time.Since(began).Seconds() }
	}
	c.found = map[string]map[int]float64{}
	return c
}

// rng is the chance of one part of a run, which does not depend on what other parts drew.
func (c Config) rng(part string, n int) *rand.Rand {
	h := c.Seed
	for _, b := range []byte(part) {
		h = (h ^ uint64(b)) * 1099511628211 // FNV-1a
	}
	return rand.New(rand.NewPCG(h, uint64(n)))
}

// Section is one protocol.
type Section struct {
	Name   string // of the marks in the page
	Tables []Table
	Plots  []Plot
}

// Table is figures against sizes.
type Table struct {
	Name    string
	Columns []string // after "peers" and "basis", unless Plain
	Plain   bool     // the rows are not of sizes
	Rows    []Row
}

// Row is the figures of one size.
type Row struct {
	N     int
	Basis Basis
	Cells []string
}

// Plot is curves on logarithmic axes.
type Plot struct {
	Name   string // of its file
	Title  string
	X, Y   string // what the axes show, with units
	Series []Series
}

// Series is one curve.
type Series struct {
	Name   string
	Basis  Basis
	Points []Point
}

// Point is one of a curve.
type Point struct{ X, Y float64 }

func (s *Series) add(x int, y float64) { s.Points = append(s.Points, Point{float64(x), y}) }

// Run runs all sections.
func Run(c Config) ([]Section, error) {
	c = c.withDefaults()
	var out []Section
	for _, part := range []struct {
		name string
		run  func(Config) (Section, error)
	}{
		{"lookup", lookups}, {"gossip", gossiping}, {"links", links}, {"roster", rosters}, {"names", directories},
		{"placement", placements}, {"inventory", inventories}, {"market", markets}, {"summary", summary},
	} {
		if len(c.Only) > 0 && !slices.Contains(c.Only, part.name) {
			continue
		}
		began := time.Now()
		s, err := part.run(c)
		if err != nil {
			return nil, fmt.Errorf("scale: %s: %w", part.name, err)
		}
		s.Name = part.name
		out = append(out, s)
		c.Progress("%s: %.1f s", part.name, time.Since(began).Seconds())
	}
	return out, nil
}

// inUse is the memory that is in use now, in bytes.
func inUse() uint64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC() // what finalizers and pools held back
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// count writes a number with thousands apart, and three digits of what is not whole.
func count(v float64) string {
	switch {
	case v != v:
		return "–"
	case v != 0 && v < 10:
		return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
	case v < 100 && v != float64(int64(v)):
		return fmt.Sprintf("%.1f", v)
	}
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size writes bytes in the unit that suits.
func size(v float64) string {
	for _, u := range []struct {
		of   float64
		name string
	}{{1e12, "TB"}, {1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}} {
		if v >= u.of {
			return short(v/u.of) + " " + u.name
		}
	}
	return short(v) + " B"
}

// span writes a duration in the unit that suits.
func span(d time.Duration) string {
	s := d.Seconds()
	switch {
	case d == 0:
		return "0"
	case s < 1e-6:
		return short(s*1e9) + " ns"
	case s < 1e-3:
		return short(s*1e6) + " µs"
	case s < 1:
		return short(s*1e3) + " ms"
	}
	return short(s) + " s"
}

// short writes two or three digits.
func short(v float64) string {
	switch {
	case v >= 100 || v == 0:
		return count(v)
	case v >= 10:
		return fmt.Sprintf("%.0f", v)
	case v >= 0.095:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2g", v)
}

// percent writes a share.
func percent(v float64) string { return short(100*v) + " %" }

// took is how long the processor takes for f, on average over as many runs as make it certain, at most so many.
func (c Config) took(most int, f func()) time.Duration {
	const enough = 0.05 // seconds
	began := c.CPU()
	for n := 1; ; n++ {
		f()
		if used := c.CPU() - began; n >= most || used >= enough {
			return seconds(used / float64(n))
		}
	}
}
