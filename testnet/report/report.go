// Package report owns what is told after a testnet run: one value that holds all that happened, and its three faces, a
// table for a terminal, JSON, and one HTML page that needs nothing else. It measures and decides nothing.
//
// Times are seconds since the run began. Peers are counted from 0.
package report

import (
	"fmt"
	"time"
)

// Report is a run.
type Report struct {
	Scenario string    `json:"scenario"`
	About    string    `json:"about,omitempty"`
	Seed     uint64    `json:"seed"`
	Short    bool      `json:"short,omitempty"`
	Peers    []Peer    `json:"peers"`
	Mode     string    `json:"mode"`          // namespaces or processes
	Why      string    `json:"why,omitempty"` // why not namespaces
	Version  string    `json:"version"`
	Began    time.Time `json:"began"`
	Took     float64   `json:"took_s"`
	Failed   string    `json:"failed,omitempty"` // the step that ended the run early
	Stages   []Stage   `json:"stages"`
	Spans    []Span    `json:"spans"`  // what concerned the network
	Events   []Event   `json:"events"` // what peers did and suffered
	Samples  []Sample  `json:"samples"`
	Jobs     []Job     `json:"jobs,omitempty"`
	Tally    Tally     `json:"tally"`
	Skipped  []string  `json:"skipped,omitempty"` // steps that could not be done here
	Promises []Promise `json:"promises"`
}

// Peer is one peer's life.
type Peer struct {
	Name  string  `json:"name"`
	Addr  string  `json:"addr"`
	Lives []Life  `json:"lives"`
	RSS   int64   `json:"rss_max"` // bytes
	CPU   float64 `json:"cpu_s"`
	Sent  int64   `json:"sent,omitempty"` // bytes on the emulated network
}

// Life is a time in which a peer was in one state: up, paused, starting, or evil.
type Life struct {
	From  float64 `json:"from"`
	To    float64 `json:"to"`
	State string  `json:"state"`
	End   string  `json:"end,omitempty"` // how it ended: killed, stopped, crashed
}

// Stage is a step of the scenario, or a block of steps.
type Stage struct {
	From    float64 `json:"from"`
	To      float64 `json:"to"`
	Text    string  `json:"text"`
	Line    int     `json:"line"`
	Skipped string  `json:"skipped,omitempty"`
	Err     string  `json:"error,omitempty"`
}

// Span is a time in which the network was not as it should be.
type Span struct {
	From float64 `json:"from"`
	To   float64 `json:"to"`
	Kind string  `json:"kind"` // partition, link
	Text string  `json:"text"`
}

// Event is something that happened.
type Event struct {
	From  float64 `json:"from"`
	To    float64 `json:"to"`
	Peers []int   `json:"peers,omitempty"`
	Kind  string  `json:"kind"` // the verb
	Text  string  `json:"text"`
	Err   string  `json:"error,omitempty"`
}

// Sample is the pool at one moment, as one of its peers saw it.
type Sample struct {
	At     float64          `json:"at"`
	Up     int              `json:"up"`
	Copies map[string]int64 `json:"copies,omitempty"` // bytes by how safe they are
	Names  int              `json:"names"`
	RSS    int64            `json:"rss"`            // of all peers together
	Sent   int64            `json:"sent,omitempty"` // bytes on the emulated network so far
}

// Job is a job with the attempts at its tasks.
type Job struct {
	Name      string    `json:"name"`
	ID        string    `json:"id"`
	Tasks     int       `json:"tasks"`
	Submitted float64   `json:"submitted"`
	Done      float64   `json:"done,omitempty"`
	Attempts  []Attempt `json:"attempts"`
}

// Attempt is one try at a task.
type Attempt struct {
	Task  int     `json:"task"`
	Peer  int     `json:"peer"`
	Token string  `json:"token,omitempty"`
	From  float64 `json:"from"`
	To    float64 `json:"to"`
	End   string  `json:"end"` // committed, or what else became of it
}

// Tally sums up.
type Tally struct {
	Puts      int   `json:"puts"`
	Acked     int   `json:"acked"` // puts that were acknowledged
	Files     int   `json:"files"` // in them
	Bytes     int64 `json:"bytes"` // in them
	Shares    int   `json:"shares"`
	Gets      int   `json:"gets"`
	Reads     int   `json:"reads"` // files read back
	ReadBytes int64 `json:"read_bytes"`
	Kills     int   `json:"kills"`
	Stops     int   `json:"stops"`
	Pauses    int   `json:"pauses"`
	Cuts      int   `json:"partitions"`
	Jumps     int   `json:"jumps,omitempty"` // of clocks
	Tried     int   `json:"tried"`           // steps that may fail
	TryFailed int   `json:"tries_failed"`
	Sent      int64 `json:"sent,omitempty"`
	Jobs      int   `json:"jobs,omitempty"`
	Tasks     int   `json:"tasks,omitempty"`
}

// Promise is something that must hold whatever happened.
type Promise struct {
	Name    string `json:"name"`
	Held    bool   `json:"held"`
	Skipped string `json:"skipped,omitempty"` // why it was not looked at
	Text    string `json:"text"`              // what was looked at, or what was found broken
}

// OK says that every step was done and every promise kept.
func (r *Report) OK() bool { return r.Failed == "" && len(r.Broken()) == 0 }

// Broken lists the promises that were not kept.
func (r *Report) Broken() (names []string) {
	for _, p := range r.Promises {
		if !p.Held && p.Skipped == "" {
			names = append(names, p.Name)
		}
	}
	return names
}

// Verdict is the run in one line.
func (r *Report) Verdict() string {
	switch broken := r.Broken(); {
	case len(broken) > 0:
		return fmt.Sprintf("BROKEN: %d of %d promises", len(broken), len(r.Promises))
	case r.Failed != "":
		return "FAILED: " + r.Failed
	}
	held := 0
	for _, p := range r.Promises {
		if p.Held {
			held++
		}
	}
	return fmt.Sprintf("ok: %d promises held in %.0f s", held, r.Took)
}

// Bytes is a number of bytes for a person.
func Bytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	x, u := float64(n), 0
	for x >= 1024 && u < len(units)-1 {
		x, u = x/1024, u+1
	}
	if u == 0 || x >= 100 {
		return fmt.Sprintf("%.0f %s", x, units[u])
	}
	return fmt.Sprintf("%.1f %s", x, units[u])
}
