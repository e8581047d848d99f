// Package script owns the language in which the testnet's scenarios are written: a step a line, in words. It parses a
// scenario, and plans it: a plan is the scenario with every choice made (which peers die when, which bytes a file has),
// and the same scenario, seed and number of peers always give the same plan.
//
// It starts nothing, reads no clock and no file, and knows of peers only that they have numbers. Whoever runs a plan does
// what its actions say.
//
// A *set* names peers; a *step* says what happens to them; a *block* (`during … end`) makes steps happen at planned times
// beside each other. DESIGN.md of testnet lists the words.
package script

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	// PeersMax bounds the peers of a scenario.
	PeersMax = 64
	// SourceMax bounds a scenario's text, in bytes.
	SourceMax = 64 << 10
	// stepsMax bounds the lines that do something.
	stepsMax = 500
	// timeMax bounds every duration that a scenario may give.
	timeMax = 24 * time.Hour
	// filesMax and sizeMax bound what one step makes.
	filesMax = 10_000
	sizeMax  = 4 << 30
	// coresMax bounds what a peer is told to lend.
	coresMax = 1024
)

// Scenario is a parsed file.
type Scenario struct {
	Name    string
	About   string // one line for a person
	Peers   int    // when nobody says otherwise
	Short   int    // the same for a short run; 0: as Peers
	Least   int    // fewer make no sense; at least 1
	Setting Setting
	Network Link // of every line between two peers
	Sites   []Site
	Steps   []Step
}

// Setting is what a scenario gives every peer.
type Setting struct {
	Store    int64         // bytes that each lends; 0 is testnet's default
	Patience time.Duration // how long it waits before an absent peer's copies are made anew; 0 is shoal's default
	RSS      int64         // most resident bytes of a peer; 0 is testnet's default
	Cores    int           // that each lends to tasks; 0: all
	Reading  time.Duration // how long all files that must be whole may take to be read at the end; 0 is testnet's default
}

// Site is a local network: peers that stand together.
type Site struct {
	Line  int
	Name  string
	Peers Set
	NAT   string // "", "cone", "port" or "symmetric": what stands between the site and the others
	Link  Link   // of lines from the site to all others
}

// Link is how packets travel. The zero value passes them on at once.
type Link struct {
	Delay, Jitter time.Duration // one way
	Loss          float64       // 0 to 1
	Rate          int64         // bits a second; 0 is unlimited
}

// Span is a duration, or a range from which the seed picks one.
type Span struct{ Least, Most time.Duration }

// Sizes is a number of bytes, or a range of which each file picks one.
type Sizes struct{ Least, Most int64 }

// Step is one line. Which fields count depends on the verb; the zero value of each means that it was not given.
type Step struct {
	Line   int
	Verb   string
	Try    bool   // it may fail
	Name   string // of the data or the job; the text of an expectation
	Arg    string // the kind of a disk, an enemy, an expectation, a program
	On     Set
	Groups []Set // partition; the two sides of a link
	For    Span  // how long a fault lasts; zero: until it is undone
	Within time.Duration
	Shift  time.Duration // of a clock
	Files  int
	Size   Sizes
	Copies int
	Tasks  int
	Last   time.Duration // how long each task sleeps before it does its work
	Count  int
	Link   Link

	// Of a block: Lasts and the steps in it, each with its own timing.
	Lasts, Brief time.Duration
	Body         []Step
	Every        Span    // of a step in a block: again and again
	At           Span    // of a step in a block: once
	Share        float64 // of churn: that part of the peers …
	Per          time.Duration
}

// Error is a mistake in a scenario.
type Error struct {
	File string
	Line int
	What string
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.What) }

func (s Span) zero() bool { return s == Span{} }

func (s Span) String() string {
	if s.Least == s.Most {
		return durationText(s.Least)
	}
	return durationText(s.Least) + ".." + durationText(s.Most)
}

func (s Sizes) String() string {
	if s.Least == s.Most {
		return sizeText(s.Least)
	}
	return sizeText(s.Least) + ".." + sizeText(s.Most)
}

// durationText leaves off the zeros that time.Duration prints.
func durationText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

var units = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

func sizeText(n int64) string {
	for _, u := range units {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

// String is the step as a scenario could have it, for reports.
func (s Step) String() string {
	var b strings.Builder
	add := func(words ...string) {
		for _, w := range words {
			if b.Len() > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(w)
		}
	}
	if !s.Every.zero() {
		add("every", s.Every.String())
	}
	if !s.At.zero() {
		add("at", s.At.String())
	}
	if s.Try {
		add("try")
	}
	add(s.Verb)
	verbs[s.Verb].print(s, add)
	return b.String()
}
