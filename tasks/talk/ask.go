package talk

import (
	"fmt"
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

// The kinds of questions. Numbers are part of the protocol and append-only.
const (
	AskView    uint32 = 1  // a steward: Job; View
	AskWatch   uint32 = 2  // a steward: Job; News, again and again until Last
	AskResults uint32 = 3  // a steward: Job, Task, Count; Results, in order, until Last
	AskCancel  uint32 = 4  // a steward: Job, Why; done
	AskWhy     uint32 = 5  // the leading steward: Job, Task; Text
	AskSpec    uint32 = 6  // a steward: Job; Data is the signed spec
	AskAds     uint32 = 7  // anybody: Ads of the jobs that it leads and that have open tasks
	AskAbout   uint32 = 8  // anybody: Job; Text is what it does about it as a worker
	AskSubmit  uint32 = 9  // a member: Data is a signed spec of who asks; Submitted
	AskHolders uint32 = 10 // the leading steward: Job, Task; Peers that have it
	AskPage    uint32 = 11 // a steward: Job; Data is the hash of a page of results, and then the page
)

// Code says why a question is not answered. Numbers are part of the protocol and append-only.
type Code uint32

// The codes.
const (
	Internal  Code = 1 // a fault of who answers
	NoJob     Code = 2 // it is no steward of the job
	NoTask    Code = 3
	NotLeader Code = 4 // ask Leader, if it is named
	Role      Code = 5 // the asker's role does not allow it
	Over      Code = 6 // the job is over
	NoQuorum  Code = 7 // no majority of the stewards can be reached
	BadSpec   Code = 8
	Closing   Code = 9
	Busy      Code = 10
)

// Refusal is why a question was not answered.
type Refusal struct {
	Code   Code
	Text   string // for people
	Leader peer.ID
}

// Error says it.
func (r *Refusal) Error() string {
	if r.Text == "" {
		return fmt.Sprintf("refused with code %d", r.Code)
	}
	return r.Text
}

// Is makes errors.Is(err, &Refusal{Code: NoJob}) ask for the code alone.
func (r *Refusal) Is(target error) bool {
	t, ok := target.(*Refusal)
	return ok && t.Code == r.Code && t.Text == ""
}

// RefusalMessage writes a refusal.
func RefusalMessage(r *Refusal) *pb.Answer {
	text := r.Text
	if len(text) > market.NoteMax {
		text = text[:market.NoteMax]
	}
	return &pb.Answer{Refusal: &pb.Refusal{Code: uint32(r.Code), Text: wire.CleanText(text), Leader: []byte(r.Leader)}}
}

// RefusalFrom reads the refusal of an answer, as an error; nil if it is none.
func RefusalFrom(a *pb.Answer) error {
	m := a.GetRefusal()
	if m == nil {
		return nil
	}
	leader, err := PeerOf(m.GetLeader())
	if err != nil {
		return err
	}
	return &Refusal{Code: Code(m.GetCode()), Text: wire.CleanText(m.GetText()), Leader: leader}
}

// CheckAsk holds a question against the bounds.
func CheckAsk(a *pb.Ask) error {
	if k := a.GetKind(); k < AskView || k > AskPage {
		return malformed("a question of kind %d", k)
	}
	switch a.GetKind() {
	case AskAds, AskSubmit:
	default:
		if _, err := JobOf(a.GetJob()); err != nil {
			return err
		}
	}
	if a.GetTask() > job.TasksMax || a.GetCount() > job.TasksMax+1 || len(a.GetWhy()) > market.NoteMax || len(a.GetData()) > job.SignedMax {
		return malformed("a question out of bounds")
	}
	return nil
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(0, t.UnixMilli())
}

func timeOf(ms int64) (time.Time, error) {
	if ms < 0 || ms > timeMax {
		return time.Time{}, malformed("a time out of bounds")
	}
	if ms == 0 {
		return time.Time{}, nil
	}
	return time.UnixMilli(ms).UTC(), nil
}

// ProgressMessage writes a progress.
func ProgressMessage(p market.Progress) *pb.Progress {
	return &pb.Progress{
		Submitted: p.Submitted, Tasks: uint32(p.Tasks), Done: uint32(p.Done), Failed: uint32(p.Failed), Skipped: uint32(p.Skipped),
		Dropped: uint32(p.Dropped), Canceled: wire.CleanText(p.Canceled), Canceler: []byte(p.Canceler), Over: p.Over, EndedMs: millis(p.Ended),
	}
}

// ProgressFrom reads a progress.
func ProgressFrom(m *pb.Progress) (p market.Progress, err error) {
	for _, n := range []uint32{m.GetTasks(), m.GetDone(), m.GetFailed(), m.GetSkipped(), m.GetDropped()} {
		if n > job.TasksMax+1 {
			return p, malformed("a progress of %d tasks", n)
		}
	}
	p = market.Progress{
		Submitted: m.GetSubmitted(), Tasks: int(m.GetTasks()), Done: int(m.GetDone()), Failed: int(m.GetFailed()),
		Skipped: int(m.GetSkipped()), Dropped: int(m.GetDropped()), Canceled: wire.CleanText(m.GetCanceled()), Over: m.GetOver(),
	}
	if p.Canceler, err = PeerOf(m.GetCanceler()); err != nil {
		return p, err
	}
	p.Ended, err = timeOf(m.GetEndedMs())
	return p, err
}

// View is a job as one of its stewards sees it.
type View struct {
	Progress market.Progress
	Leader   peer.ID
	Term     uint64
	Stewards []peer.ID
	Spare    int
	// What follows is there if Leading only.
	Leading           bool
	Leases            []market.Standing // without Expires
	Workers, Slots    int
	Attempts, Retries uint64
	Rate              float64
}

// ViewMessage writes a view.
func ViewMessage(v *View) *pb.View {
	m := &pb.View{
		Progress: ProgressMessage(v.Progress), Leader: []byte(v.Leader), Term: v.Term, Stewards: Peers(v.Stewards), Spare: uint32(v.Spare),
		Leading: v.Leading, Workers: uint32(v.Workers), Slots: uint32(v.Slots), Attempts: v.Attempts, Retries: v.Retries, Rate: v.Rate,
	}
	for _, s := range v.Leases[:min(len(v.Leases), StandingMax)] {
		m.Leases = append(m.Leases, &pb.Standing{
			Task: s.Task, Term: s.Token.Term, Seq: s.Token.Seq, Worker: []byte(s.Worker), Phase: uint32(s.Phase), RanUs: micros(s.Ran), Copy: s.Copy,
		})
	}
	return m
}

// ViewFrom reads a view.
func ViewFrom(m *pb.View) (*View, error) {
	if m == nil || len(m.GetLeases()) > StandingMax || m.GetSpare() > market.StewardsMax || m.GetWorkers() > math.MaxInt32 || m.GetSlots() > math.MaxInt32 ||
		math.IsNaN(m.GetRate()) || math.IsInf(m.GetRate(), 0) || m.GetRate() < 0 {
		return nil, malformed("a view out of bounds")
	}
	v := &View{
		Term: m.GetTerm(), Spare: int(m.GetSpare()), Leading: m.GetLeading(), Workers: int(m.GetWorkers()), Slots: int(m.GetSlots()),
		Attempts: m.GetAttempts(), Retries: m.GetRetries(), Rate: m.GetRate(),
	}
	var err error
	if v.Progress, err = ProgressFrom(m.GetProgress()); err != nil {
		return nil, err
	}
	if v.Leader, err = PeerOf(m.GetLeader()); err != nil {
		return nil, err
	}
	if v.Stewards, err = PeersOf(m.GetStewards(), market.StewardsMax); err != nil {
		return nil, err
	}
	for _, s := range m.GetLeases() {
		l, err := leaseOf(s.GetTask(), s.GetTerm(), s.GetSeq())
		if err != nil {
			return nil, err
		}
		ran, err := durationOf(s.GetRanUs())
		if err != nil || s.GetPhase() > uint32(market.Done) {
			return nil, malformed("a lease in phase %d: %v", s.GetPhase(), err)
		}
		worker, err := PeerOf(s.GetWorker())
		if err != nil {
			return nil, err
		}
		v.Leases = append(v.Leases, market.Standing{Lease: l, Worker: worker, Phase: market.Phase(s.GetPhase()), Ran: ran, Copy: s.GetCopy()})
	}
	return v, nil
}

// Span is a run of tasks that are closed in one way.
type Span struct {
	market.Span
	State market.State
}

// News is what a steward tells who watches.
type News struct {
	Progress market.Progress
	Leader   peer.ID
	Closed   []Span
}

// NewsMessage writes news of at most ClosedMax runs.
func NewsMessage(n *News) *pb.News {
	m := &pb.News{Progress: ProgressMessage(n.Progress), Leader: []byte(n.Leader)}
	for _, s := range n.Closed {
		m.Closed = append(m.Closed, &pb.Closed{First: s.First, Count: s.Count, State: uint32(s.State)})
	}
	return m
}

// NewsFrom reads news.
func NewsFrom(m *pb.News) (*News, error) {
	if m == nil || len(m.GetClosed()) > ClosedMax {
		return nil, malformed("news out of bounds")
	}
	n := &News{}
	var err error
	if n.Progress, err = ProgressFrom(m.GetProgress()); err != nil {
		return nil, err
	}
	if n.Leader, err = PeerOf(m.GetLeader()); err != nil {
		return nil, err
	}
	for _, c := range m.GetClosed() {
		if c.GetCount() == 0 || uint64(c.GetFirst())+uint64(c.GetCount()) > job.TasksMax+1 || c.GetState() == 0 || c.GetState() >= uint32(market.NoSuchTask) {
			return nil, malformed("%d tasks from %d closed as %d", c.GetCount(), c.GetFirst(), c.GetState())
		}
		n.Closed = append(n.Closed, Span{market.Span{First: c.GetFirst(), Count: c.GetCount()}, market.State(c.GetState())})
	}
	return n, nil
}

// Result is what a steward has of one task.
type Result struct {
	Task uint32
	market.Record
}

// resultsOne bounds the attempts whose results one record has.
const resultsOne = 8

// ResultMessage writes a result.
func ResultMessage(r *Result) *pb.Result {
	return &pb.Result{
		Task: r.Task, State: uint32(r.State), Term: r.Token.Term, Seq: r.Token.Seq, By: []byte(r.By), RanUs: micros(r.Ran), AtMs: millis(r.At),
		Results: r.Results,
	}
}

// ResultFrom reads a result. The bytes in Results are not decoded.
func ResultFrom(m *pb.Result) (*Result, error) {
	if len(m.GetResults()) > resultsOne || m.GetState() >= uint32(market.NoSuchTask) {
		return nil, malformed("a result in state %d", m.GetState())
	}
	for _, raw := range m.GetResults() {
		if len(raw) > job.ResultMax {
			return nil, malformed("a result of %d bytes", len(raw))
		}
	}
	l, err := leaseOf(m.GetTask(), m.GetTerm(), m.GetSeq())
	if err != nil {
		return nil, err
	}
	r := &Result{Task: l.Task, Record: market.Record{State: market.State(m.GetState()), Token: l.Token, Results: m.GetResults()}}
	if r.Ran, err = durationOf(m.GetRanUs()); err != nil {
		return nil, err
	}
	if r.At, err = timeOf(m.GetAtMs()); err != nil {
		return nil, err
	}
	r.By, err = PeerOf(m.GetBy())
	return r, err
}
