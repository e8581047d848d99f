package tasks

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/quorum"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

const (
	// answerMax bounds the results in one answer, in bytes; one more result may pass it.
	answerMax = 512 << 10
	// catchUpWait is how long whoever asks for results of open tasks waits for a quorum to say that they are.
	catchUpWait = 3 * time.Second
	// cancelWait bounds the writing of a cancellation.
	cancelWait = 10 * time.Second
)

// codes are the errors that have a number.
var codes = []struct {
	err  error
	code talk.Code
}{
	{ErrNoJob, talk.NoJob}, {ErrNoTask, talk.NoTask}, {ErrRole, talk.Role}, {ErrOver, talk.Over}, {ErrUnreachable, talk.NoQuorum},
	{ErrSpec, talk.BadSpec}, {ErrClosed, talk.Closing}, {quorum.ErrNoQuorum, talk.NoQuorum}, {quorum.ErrDissolved, talk.NoJob},
}

// known turns a refusal of another peer into an error that callers tell apart.
func known(err error) error {
	var r *talk.Refusal
	if !errors.As(err, &r) {
		return err
	}
	for _, c := range codes {
		if c.code != r.Code {
			continue
		}
		if r.Text == "" || r.Text == c.err.Error() {
			return c.err
		}
		return fmt.Errorf("%w: %s", c.err, r.Text)
	}
	return err
}

// answer answers a question of a member, or of this peer itself.
func (t *Tasks) answer(ctx context.Context, from peer.ID, q *pb.Ask, emit func(*pb.Answer) error) error {
	switch q.GetKind() {
	case talk.AskAds:
		return emit(t.openAds())
	case talk.AskSubmit:
		return t.answerSubmit(ctx, from, q.GetData(), emit)
	}
	id := job.ID(q.GetJob())
	if q.GetKind() == talk.AskAbout {
		why, err := t.hand.why(ctx, id)
		if err != nil {
			return err
		}
		return emit(&pb.Answer{Text: why})
	}
	s := t.seat(id)
	if s == nil {
		return ErrNoJob
	}
	switch q.GetKind() {
	case talk.AskView:
		v, err := s.view(ctx)
		if err != nil {
			return err
		}
		return emit(&pb.Answer{View: talk.ViewMessage(v)})
	case talk.AskWatch:
		return s.watch(ctx, func(n *talk.News, last bool) error {
			return emit(&pb.Answer{News: talk.NewsMessage(n), Last: last})
		})
	case talk.AskResults:
		return s.results(ctx, int(q.GetTask()), int(q.GetCount()), emit)
	case talk.AskCancel:
		if signed := s.ledger.Job(); t.role(from) < ident.RoleMember && (signed == nil || signed.Spec.Submitter != from) {
			return fmt.Errorf("%w to cancel another's job", ErrRole)
		}
		if err := s.cancelJob(ctx, from, q.GetWhy()); err != nil {
			return err
		}
		return emit(&pb.Answer{})
	case talk.AskWhy, talk.AskHolders:
		return s.about(ctx, q, emit)
	case talk.AskSpec:
		if signed := s.ledger.Job(); signed != nil {
			return emit(&pb.Answer{Data: signed.Raw})
		}
		return ErrNoJob
	case talk.AskPage:
		if len(q.GetData()) != len(chunk.CID{}.Sum) {
			return ErrNoTask
		}
		data, err := t.readPage(ctx, chunk.CID{Codec: chunk.Raw, Sum: [32]byte(q.GetData())})
		if err != nil {
			return err
		}
		return emit(&pb.Answer{Data: data})
	}
	return &talk.Refusal{Code: talk.Internal, Text: "an unknown question"}
}

// openAds lists what this peer's seats announced last.
func (t *Tasks) openAds() *pb.Answer {
	a := &pb.Answer{}
	for _, s := range t.allSeats() {
		if ad := s.ad.Load(); ad != nil && len(a.Ads) < talk.AdsMax && !s.ledger.Progress().Over {
			a.Ads = append(a.Ads, talk.AdMessage(ad))
		}
	}
	return a
}

// view describes the job as this seat sees it.
func (s *seat) view(ctx context.Context) (*talk.View, error) {
	st := s.group.Status()
	v := &talk.View{Progress: s.ledger.Progress(), Leader: st.Leader, Term: st.Term, Stewards: votersOf(st), Spare: spareOf(st)}
	if s.leading.Load() {
		err := s.call(ctx, func() {
			if _, v.Leading = s.steward.Leading(); v.Leading {
				v.Leases = s.steward.Leases()
				v.Workers, v.Slots = s.steward.Workers()
				v.Attempts, v.Retries = s.count.attempts, s.count.retries
			}
		})
		if err != nil {
			return nil, err
		}
		v.Rate = s.rate.get(s.t.second())
	}
	return v, nil
}

// spareOf is how many stewards may go away without the rest being too few. What was agreed on is with a majority, so any majority has it; a
// steward counts that is there and knows its group.
func spareOf(st quorum.Status) int {
	voters, ready := 0, 0
	for _, m := range st.Members {
		if m.Learner {
			continue
		}
		voters++
		if m.Self || m.Present && !m.Lost && (!st.Leading || m.Match > 0) {
			ready++
		}
	}
	return max(0, ready-(voters/2+1))
}

// results sends what the ledger has of some tasks.
func (s *seat) results(ctx context.Context, first, count int, emit func(*pb.Answer) error) error {
	signed := s.ledger.Job()
	if signed == nil {
		return ErrNoJob
	}
	if first >= signed.Spec.All() {
		return ErrNoTask
	}
	end := min(first+max(count, 1), signed.Spec.All())
	s.catchUp(ctx, first, end)
	reader := pageReader{t: s.t}
	a, size := &pb.Answer{}, 0
	for task := first; task < end; task++ {
		rec, err := reader.record(ctx, s.ledger, task, false)
		if errors.Is(err, market.ErrOpen) {
			rec, err = market.Record{State: s.ledger.State(task)}, nil
		}
		if err != nil {
			return fmt.Errorf("the result of task %d: %w", task, err)
		}
		a.Results = append(a.Results, talk.ResultMessage(&talk.Result{Task: uint32(task), Record: rec}))
		for _, raw := range rec.Results {
			size += len(raw)
		}
		if a.Last = task == end-1; a.Last || len(a.Results) >= talk.ResultsMax || size >= answerMax {
			if err := emit(a); err != nil {
				return err
			}
			a, size = &pb.Answer{}, 0
		}
	}
	return nil
}

// catchUp sees to it that what is open here is open. A steward that was away, or that follows, may not have heard of the last
// results: of a group that fell silent, for as long as nobody asks it. Where no quorum answers what is known here must do.
func (s *seat) catchUp(ctx context.Context, first, end int) {
	for task := first; task < end; task++ {
		if s.ledger.State(task) == market.Open {
			ctx, cancel := context.WithTimeout(ctx, catchUpWait)
			defer cancel()
			_ = s.group.Read(ctx)
			return
		}
	}
}

// cancelJob writes into the log that the job is canceled.
func (s *seat) cancelJob(ctx context.Context, by peer.ID, why string) error {
	ctx, cancel := context.WithTimeout(ctx, cancelWait)
	defer cancel()
	data, err := market.EncodeBatch(s.t.cfg.Now(), []market.Command{{Kind: market.Cancel, By: by, Data: []byte(why)}})
	if err != nil {
		return err
	}
	status, err := s.proposeNow(ctx, data)
	switch {
	case err != nil:
		return err
	case status == market.Closed:
		return ErrOver
	case status != market.Canceled:
		return fmt.Errorf("tasks: cancel: %v", status)
	}
	return nil
}

// proposeNow has a batch of one command applied, and returns what came of it.
func (s *seat) proposeNow(ctx context.Context, data []byte) (market.Status, error) {
	raw, err := s.group.Propose(ctx, data)
	if err != nil {
		return 0, err
	}
	return statusIn(raw)
}

// statusIn reads the reply to a batch of one command.
func statusIn(raw []byte) (market.Status, error) {
	replies, err := market.DecodeReplies(raw)
	if err != nil {
		return 0, err
	}
	return replies[0], nil
}

// about answers what only the leading steward knows.
func (s *seat) about(ctx context.Context, q *pb.Ask, emit func(*pb.Answer) error) error {
	leader, _, _ := s.group.Leader()
	if !s.leading.Load() {
		return &talk.Refusal{Code: talk.NotLeader, Text: "another steward leads", Leader: leader}
	}
	a := &pb.Answer{}
	err := s.call(ctx, func() {
		if q.GetKind() == talk.AskWhy {
			a.Text = s.steward.Why(int(q.GetTask()), s.t.name)
			return
		}
		for _, l := range s.steward.Leases() {
			if l.Task == q.GetTask() && len(a.Peers) < market.StewardsMax {
				a.Peers = append(a.Peers, []byte(l.Worker))
			}
		}
	})
	if err != nil {
		return err
	}
	return emit(a)
}

// name is what a peer is called.
func (t *Tasks) name(id peer.ID) string {
	if m, ok := t.cfg.Members.Member(id); ok && m.Name != "" {
		return m.Name
	}
	s := id.String()
	return s[max(0, len(s)-8):]
}
