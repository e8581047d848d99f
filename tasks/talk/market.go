package talk

import (
	"time"

	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

func leaseOf(task uint32, term, seq uint64) (market.Lease, error) {
	if task > job.TasksMax {
		return market.Lease{}, malformed("task %d", task)
	}
	return market.Lease{Task: task, Token: job.Token{Term: term, Seq: seq}}, nil
}

func durationOf(us uint64) (time.Duration, error) {
	if us > durationMax {
		return 0, malformed("a running time out of bounds")
	}
	return time.Duration(us) * time.Microsecond, nil
}

func micros(d time.Duration) uint64 { return uint64(max(0, d.Microseconds())) }

func leases(list []market.Lease) (out []*pb.Lease) {
	for _, l := range list {
		out = append(out, &pb.Lease{Task: l.Task, Term: l.Token.Term, Seq: l.Token.Seq})
	}
	return out
}

func leasesOf(list []*pb.Lease, limit int) (out []market.Lease, err error) {
	if len(list) > limit {
		return nil, malformed("%d leases", len(list))
	}
	for _, m := range list {
		l, err := leaseOf(m.GetTask(), m.GetTerm(), m.GetSeq())
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// ReportMessage writes a report.
func ReportMessage(r *market.Report) *pb.Report {
	m := &pb.Report{Seq: r.Seq, Ack: r.Ack, Full: r.Full, Term: r.Term, Released: leases(r.Released), Why: uint32(r.Why)}
	if o := r.Offer; o != nil {
		m.Offer = &pb.Offer{Slots: uint32(max(0, o.Slots)), Ahead: uint32(max(0, o.Ahead)), Fit: uint32(o.Fit)}
		for _, s := range o.Prefer {
			m.Offer.Prefer = append(m.Offer.Prefer, s.First, s.Count)
		}
	}
	for _, h := range r.Held {
		m.Held = append(m.Held, &pb.Held{
			Task: h.Task, Term: h.Token.Term, Seq: h.Token.Seq, Phase: uint32(h.Phase), Live: h.Live, RanUs: micros(h.Ran),
		})
	}
	for i := range r.Commits {
		c := &r.Commits[i]
		m.Commits = append(m.Commits, &pb.Commit{Task: c.Task, Term: c.Token.Term, Seq: c.Token.Seq, RanUs: micros(c.Ran), Result: c.Result})
	}
	for i := range r.Failures {
		f := &r.Failures[i]
		m.Failures = append(m.Failures, &pb.Commit{Task: f.Task, Term: f.Token.Term, Seq: f.Token.Seq, Result: f.Result})
	}
	return m
}

// ReportFrom reads a report.
func ReportFrom(m *pb.Report) (*market.Report, error) {
	r := &market.Report{Seq: m.GetSeq(), Ack: m.GetAck(), Full: m.GetFull(), Term: m.GetTerm(), Why: market.Reason(m.GetWhy())}
	switch {
	case m.GetSeq() == 0 || m.GetWhy() > uint32(market.Leaving):
		return nil, malformed("report %d for the reason %d", m.GetSeq(), m.GetWhy())
	case len(m.GetHeld()) > market.HeldMax || len(m.GetCommits())+len(m.GetFailures()) > market.CommitsMax:
		return nil, malformed("a report of %d leases, %d and %d results", len(m.GetHeld()), len(m.GetCommits()), len(m.GetFailures()))
	}
	var err error
	if m.Offer != nil {
		if r.Offer, err = offerOf(m.Offer); err != nil {
			return nil, err
		}
	}
	if r.Released, err = leasesOf(m.GetReleased(), market.HeldMax); err != nil {
		return nil, err
	}
	for _, h := range m.GetHeld() {
		l, err := leaseOf(h.GetTask(), h.GetTerm(), h.GetSeq())
		if err != nil {
			return nil, err
		}
		ran, err := durationOf(h.GetRanUs())
		if err != nil || h.GetPhase() < uint32(market.Queued) || h.GetPhase() > uint32(market.Done) {
			return nil, malformed("a lease in phase %d: %v", h.GetPhase(), err)
		}
		r.Held = append(r.Held, market.Held{Lease: l, Phase: market.Phase(h.GetPhase()), Live: h.GetLive(), Ran: ran})
	}
	for _, c := range m.GetCommits() {
		l, ran, err := commitOf(c, job.ResultMax)
		if err != nil {
			return nil, err
		}
		r.Commits = append(r.Commits, market.Commit{Lease: l, Ran: ran, Result: c.GetResult()})
	}
	for _, c := range m.GetFailures() {
		l, _, err := commitOf(c, market.FailureMax)
		if err != nil {
			return nil, err
		}
		r.Failures = append(r.Failures, market.Failure{Lease: l, Result: c.GetResult()})
	}
	return r, nil
}

func offerOf(m *pb.Offer) (*market.Offer, error) {
	list := m.GetPrefer()
	if m.GetSlots() > market.SlotsMax || m.GetAhead() > market.SlotsMax || m.GetFit() > market.FitMax ||
		len(list) > 2*market.PreferMax || len(list)%2 != 0 {
		return nil, malformed("an offer of %d and %d slots", m.GetSlots(), m.GetAhead())
	}
	o := &market.Offer{Slots: int(m.GetSlots()), Ahead: int(m.GetAhead()), Fit: uint16(m.GetFit())}
	for i := 0; i < len(list); i += 2 {
		o.Prefer = append(o.Prefer, market.Span{First: list[i], Count: list[i+1]})
	}
	return o, nil
}

func commitOf(m *pb.Commit, limit int) (l market.Lease, ran time.Duration, err error) {
	if len(m.GetResult()) > limit {
		return l, 0, malformed("a result of %d bytes", len(m.GetResult()))
	}
	if ran, err = durationOf(m.GetRanUs()); err != nil {
		return l, 0, err
	}
	l, err = leaseOf(m.GetTask(), m.GetTerm(), m.GetSeq())
	return l, ran, err
}

// OrderMessage writes an order.
func OrderMessage(o *market.Order) *pb.Order {
	m := &pb.Order{
		Seq: o.Seq, Ack: o.Ack, Full: o.Full, Term: o.Term, Welcome: o.Welcome, NotLeader: o.NotLeader, Leader: []byte(o.Leader),
		Over: o.Over, Open: o.Open, Grants: leases(o.Grants), Revoked: leases(o.Revoked),
	}
	for _, v := range o.Verdicts {
		m.Verdicts = append(m.Verdicts, &pb.Verdict{Task: v.Task, Term: v.Token.Term, Seq: v.Token.Seq, Status: uint32(v.Status)})
	}
	return m
}

// OrderFrom reads an order.
func OrderFrom(m *pb.Order) (*market.Order, error) {
	o := &market.Order{
		Seq: m.GetSeq(), Ack: m.GetAck(), Full: m.GetFull(), Term: m.GetTerm(), Welcome: m.GetWelcome(), NotLeader: m.GetNotLeader(),
		Over: m.GetOver(), Open: m.GetOpen(),
	}
	if m.GetSeq() == 0 || m.GetOpen() > job.TasksMax+1 || len(m.GetVerdicts()) > verdictsMax {
		return nil, malformed("order %d of %d tasks with %d verdicts", m.GetSeq(), m.GetOpen(), len(m.GetVerdicts()))
	}
	var err error
	if o.Leader, err = PeerOf(m.GetLeader()); err != nil {
		return nil, err
	}
	if o.Grants, err = leasesOf(m.GetGrants(), market.GrantsMax); err != nil {
		return nil, err
	}
	if o.Revoked, err = leasesOf(m.GetRevoked(), verdictsMax); err != nil {
		return nil, err
	}
	for _, v := range m.GetVerdicts() {
		l, err := leaseOf(v.GetTask(), v.GetTerm(), v.GetSeq())
		if err != nil || v.GetStatus() == 0 || v.GetStatus() > uint32(market.Repeated) {
			return nil, malformed("a verdict %d: %v", v.GetStatus(), err)
		}
		o.Verdicts = append(o.Verdicts, market.Verdict{Lease: l, Status: market.Status(v.GetStatus())})
	}
	return o, nil
}
