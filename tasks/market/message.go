package market

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/tasks/job"
)

// Bounds of the messages. The shell's decoder refuses what passes them, and nothing here makes more.
const (
	HeldMax     = 512  // leases of one worker in one job
	CommitsMax  = 64   // results in one report: 64 of 6 KiB are under half a megabyte
	GrantsMax   = 256  // leases in one order
	PreferMax   = 32   // ranges of preferred tasks in an offer
	StewardsMax = 5    // voters of a job's group
	SlotsMax    = 1024 // slots that one worker may offer to one job
	NoteMax     = 512  // bytes of words for people
)

// Ad announces a job's open tasks by gossip. It is a hint: what counts is what the leading steward says on a stream.
type Ad struct {
	Job       job.ID
	Submitter peer.ID
	Term      uint64 // of the leading steward
	Seq       uint64 // announcements of that term, so that each differs
	Open      uint32 // tasks that nobody holds
	Stewards  []peer.ID
	Leader    peer.ID // who announces
	Needs     Needs
	Priority  int
	Exclusive bool
	Crowd     uint32 // about how many workers are asked to bid; 0: all
}

// Needs are what a worker must have for one task of a job.
type Needs struct {
	Kind   job.Kind
	Cores  int
	Memory int64 // bytes
	Labels []string
}

// Lease names one attempt at one task.
type Lease struct {
	Task  uint32
	Token job.Token
}

// Span is a range of tasks.
type Span struct {
	First, Count uint32
}

// Offer is what a worker has for one job now. A later one replaces it.
type Offer struct {
	Slots  int    // tasks that it could begin at once, beside those it holds
	Ahead  int    // further ones it would keep ready, so that small tasks stream through
	Fit    uint16 // how well it fits, from 0 to FitMax
	Prefer []Span // tasks whose inputs it holds
}

// FitMax is the fit of a worker that lacks nothing.
const FitMax = 1000

// Phase is where a worker is with an attempt. Numbers are part of the encoding and append-only.
type Phase uint8

// The phases.
const (
	Queued  Phase = 1 // waits for a free core
	Running Phase = 2
	Frozen  Phase = 3 // stopped, in memory
	Done    Phase = 4 // its result waits for the verdict
)

// Held is one lease that a worker says it holds.
type Held struct {
	Lease
	Phase Phase
	Live  bool          // it had not run out, by the worker's clock, when this was sent
	Ran   time.Duration // how long it has run so far
}

// Commit hands over a result.
type Commit struct {
	Lease
	Ran    time.Duration
	Result []byte // job.Result, encoded
}

// Failure hands over an attempt that counts against the task.
type Failure struct {
	Lease
	Result []byte // job.Result with a reason
}

// Report is a message from a worker to a steward. Every part but Seq and Ack may be absent.
type Report struct {
	Seq  uint64 // of this stream, from 1
	Ack  uint64 // the greatest Order.Seq that came on this stream
	Full bool   // Held is complete: this renews what it lists, and what it leaves out is not held
	Term uint64 // the leader's that welcomed it on this stream; 0 none yet

	Offer    *Offer // nil: as before
	Held     []Held
	Released []Lease // given back, free to be granted to others at once
	Why      Reason  // of Released
	Commits  []Commit
	Failures []Failure
}

// Reason says why a lease was given back. Numbers are part of the encoding and append-only.
type Reason uint8

// The reasons.
const (
	NoReason Reason = 0
	Busy     Reason = 1 // no core was free in time
	Owner    Reason = 2 // the machine's owner took it back
	Suspend  Reason = 3 // the machine goes to sleep
	Inputs   Reason = 4 // an input could not be fetched
	Runner   Reason = 5 // the runner broke, or cannot run this
	Leaving  Reason = 6 // the peer stops
)

// String says it in words.
func (r Reason) String() string {
	return [...]string{"", "no core was free", "its owner took the machine back", "it went to sleep",
		"an input could not be fetched", "its runner broke", "it stopped"}[min(r, Leaving)]
}

// Order is a message from a steward to a worker. Every part but Seq and Ack may be absent.
type Order struct {
	Seq  uint64 // of this stream, from 1
	Ack  uint64 // the greatest Report.Seq that was worked off
	Full uint64 // the Seq of the Full report that this answers: its leases are renewed, but for Revoked ones; 0 none
	Term uint64 // the sender's; it leads unless NotLeader

	Welcome   bool    // Term's leader is ready: send a Full report
	NotLeader bool    // ask Leader instead, if it is named
	Leader    peer.ID //
	Over      bool    // every task is closed: there is nothing more to do

	Open     uint32 // tasks that nobody holds
	Grants   []Lease
	Revoked  []Lease // these are not (or no longer) yours: stop, and give no result
	Verdicts []Verdict
}

// Verdict answers a Commit or Failure.
type Verdict struct {
	Lease
	Status Status
}

// Status says what became of a command. Numbers are part of the encoding and append-only.
type Status uint8

// The statuses.
const (
	Committed Status = 1 // this result is the task's one result
	Closed    Status = 2 // the task is closed, by another attempt or otherwise
	Stale     Status = 3 // the token is not current, and the task may not be salvaged
	Counted   Status = 4 // the failure is counted
	Poisoned  Status = 5 // the failure is counted and was the last
	Canceled  Status = 6 // the job was canceled, now or before
	Unready   Status = 7 // the job has no such task, or it cannot be done yet
	Accepted  Status = 8 // the job is submitted
	Repeated  Status = 9 // the job was submitted, or the failure counted, before
)

// String names it.
func (s Status) String() string {
	names := [...]string{"none", "committed", "closed", "stale", "counted", "poisoned", "canceled", "unready", "accepted", "repeated"}
	if int(s) < len(names) {
		return names[s]
	}
	return "unknown"
}
