package tasks

import (
	"errors"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/tree"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
)

// The errors that callers tell apart; all else is internal or a context's.
var (
	// ErrNoJob: nobody knows of such a job, or its results' time is over.
	ErrNoJob = errors.New("there is no such job")
	// ErrNoTask: the job has no task of this number.
	ErrNoTask = errors.New("the job has no such task")
	// ErrUnreachable: none of the job's stewards can be reached now, or no majority of them.
	ErrUnreachable = errors.New("none of the job's stewards can be reached")
	// ErrSpec: the spec is not one that can be submitted.
	ErrSpec = errors.New("this job cannot be submitted")
	// ErrRole: this peer's role does not allow it.
	ErrRole = errors.New("the role of this peer does not allow it")
	// ErrOver: the job is over already.
	ErrOver = errors.New("the job is over")
	// ErrClosed is what the methods of a closed Tasks return.
	ErrClosed = errors.New("tasks: closed")
)

// SubmitOptions say how a job is submitted. The zero value is good.
type SubmitOptions struct {
	Fresh bool // run it though the same work's results are stored
}

// Submitted says what became of a submission.
type Submitted struct {
	ID       job.ID
	Cached   bool // the job of that ID did the same work before, and its results are stored
	Stewards []peer.ID
	Spare    int // stewards that may go away now without the job being held up
}

// State is how a job as a whole stands, in one word.
type State string

// The states of a job.
const (
	Waiting     State = "waiting"     // no task runs now, some are open
	Running     State = "running"     // some do
	Done        State = "done"        // every task has its result
	Failed      State = "failed"      // over, with tasks that failed for good
	Canceled    State = "canceled"    //
	Unreachable State = "unreachable" // not known: none of its stewards can be reached
)

// Over reports whether nothing more happens to the job.
func (s State) Over() bool { return s == Done || s == Failed || s == Canceled }

// Info describes a job. What a directory record alone says is in the first group, the rest comes from its stewards and is
// zero when State is Unreachable.
type Info struct {
	ID        job.ID
	Name      string
	Kind      job.Kind
	Command   string // the command line, for people; shortened
	Submitter peer.ID
	Created   time.Time
	Tasks     int // with the reduce
	Stewards  []peer.ID
	State     State

	Spec     *job.Spec
	Progress market.Progress
	Leader   peer.ID // "" if there is none now
	Term     uint64
	Spare    int // stewards that may go away now without the job being held up
	// What follows is the leading steward's, since it leads.
	Leases   []Lease
	Workers  int     // that stand by
	Slots    int     // tasks that they could begin now
	Attempts int     // leases granted
	Retries  int     // of these, second and later ones of a task
	Rate     float64 // tasks done a second, lately
}

// Lease is one attempt under way.
type Lease struct {
	Task   int
	Token  job.Token
	Worker peer.ID
	Phase  market.Phase
	Ran    time.Duration
	Copy   bool // a second attempt at a task that is late
}

// Event is what Watch tells.
type Event struct {
	Progress market.Progress
	Leader   peer.ID
	Closed   []Closed // tasks that came to be closed, each told once in a Watch
}

// Closed is a task that has its end.
type Closed struct {
	Task  int
	State market.State
}

// TaskResult is what one task came to.
type TaskResult struct {
	Task   int
	State  market.State
	Token  job.Token // of the attempt that closed it
	Worker peer.ID   // whose attempt that was
	Ran    time.Duration
	At     time.Time
	// Results is the result of a task that succeeded; of one that failed, those of the last few attempts, with their reasons.
	Results []*job.Result
}

// LogSink takes a task's output as it comes. Note, which may be nil, is told in words when an attempt ended and another
// one's output does not go on where that of the first ended; what follows then begins anew.
type LogSink struct {
	Stdout, Stderr io.Writer
	Note           func(string)
}

// PeerReason is one peer's sentence about a task.
type PeerReason struct {
	Peer    peer.ID
	Steward bool // it speaks as the job's leading steward, about the task; else as a worker, about itself
	Reason  string
}

// WorkerStatus is what this peer does for the pool's jobs.
type WorkerStatus struct {
	Lends  market.Lends
	Mine   bool // its owner took it back
	Asleep bool
	Held   []Held
	Seats  int // jobs of which this peer is a steward
	Leads  int // of these, it leads
}

// Held is one attempt in this peer's hands.
type Held struct {
	Job  job.ID
	Name string
	Lease
}

// File is an open file of a job.
type File = tree.Reader
