package tasks

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/tasks/card"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

const (
	// jobsAtOnce is how many jobs' stewards are asked at a time, and jobWait how long each may take in a list.
	jobsAtOnce = 16
	jobWait    = 3 * time.Second
	// whyWait bounds what a peer has to say about a task.
	whyWait = 3 * time.Second
)

// Jobs returns the pool's jobs, newest first. Those whose stewards do not answer within ctx, or three seconds, are Unreachable.
func (t *Tasks) Jobs(ctx context.Context) ([]Info, error) {
	known := t.known()
	out := make([]Info, len(known))
	var wg sync.WaitGroup
	slots := make(chan struct{}, jobsAtOnce)
	for i, c := range known {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, jobWait)
			defer cancel()
			out[i] = t.info(ctx, c, false)
		})
	}
	wg.Wait()
	slices.SortStableFunc(out, func(a, b Info) int { return b.Created.Compare(a.Created) })
	return out, nil
}

// known lists the jobs that have a card, and those that this peer has a seat in.
func (t *Tasks) known() (out []*card.Card) {
	seen := map[job.ID]bool{}
	for r := range t.cfg.Records.Scan(card.Prefix) {
		id, err := card.IDOf(r.Key)
		if err != nil {
			continue
		}
		if c, err := card.Decode(id, r.Value); err == nil {
			out = append(out, c)
			seen[id] = true
		}
	}
	for _, s := range t.allSeats() {
		if c := s.cardNow(); c != nil && !seen[s.id] {
			out = append(out, c)
		}
	}
	return out
}

// cardNow makes the card of a seat's job; nil before the submission.
func (s *seat) cardNow() *card.Card {
	signed := s.ledger.Job()
	if signed == nil {
		return nil
	}
	return card.Of(s.id, &signed.Spec, votersOf(s.group.Status()), s.ledger.Progress())
}

// Find returns the jobs whose ids begin with a text, or whose name it is, newest first.
func (t *Tasks) Find(_ context.Context, text string) ([]job.ID, error) {
	known := t.known()
	slices.SortStableFunc(known, func(a, b *card.Card) int { return b.Created.Compare(a.Created) })
	var out []job.ID
	for _, c := range known {
		if text != "" && (strings.HasPrefix(c.ID.String(), text) || c.Name == text) {
			out = append(out, c.ID)
		}
	}
	return out, nil
}

// Job describes one job. Errors: ErrNoJob.
func (t *Tasks) Job(ctx context.Context, id job.ID) (Info, error) {
	c, ok := t.cardOf(id)
	if s := t.seat(id); !ok && s != nil {
		c = s.cardNow()
	}
	if c == nil {
		if _, err := t.view(ctx, id); err != nil {
			return Info{}, err
		}
		c = &card.Card{ID: id}
	}
	info := t.info(ctx, c, true)
	return info, ctx.Err()
}

// info completes what a card says by what the stewards do. With spec it asks for the job's spec too.
func (t *Tasks) info(ctx context.Context, c *card.Card, spec bool) Info {
	out := Info{
		ID: c.ID, Name: c.Name, Kind: c.Kind, Command: c.Command, Submitter: c.Submitter, Created: c.Created, Tasks: c.Tasks,
		Stewards: c.Stewards, State: Unreachable,
	}
	v, err := t.view(ctx, c.ID)
	if err != nil {
		return out
	}
	out.Progress, out.Leader, out.Term, out.Spare, out.State = v.Progress, v.Leader, v.Term, v.Spare, stateOf(v)
	if len(v.Stewards) > 0 {
		out.Stewards = v.Stewards
	}
	for _, l := range v.Leases {
		out.Leases = append(out.Leases, leaseOf(l))
	}
	out.Workers, out.Slots, out.Attempts, out.Retries, out.Rate = v.Workers, v.Slots, int(v.Attempts), int(v.Retries), v.Rate
	if !spec {
		return out
	}
	if signed, err := t.specOf(ctx, c.ID); err == nil {
		s := &signed.Spec
		out.Spec, out.Name, out.Kind, out.Command, out.Submitter = s, s.Name, s.Command.Kind, card.CommandLine(s), s.Submitter
		out.Created, out.Tasks = s.Created, s.All()
	}
	return out
}

// specOf returns a job's spec.
func (t *Tasks) specOf(ctx context.Context, id job.ID) (*job.Signed, error) {
	if b := t.hand.briefOf(id); b != nil {
		return b.signed, nil
	}
	return t.fetchSpec(ctx, id, t.stewards(id))
}

// stateOf says in one word how a job stands.
func stateOf(v *talk.View) State {
	p := &v.Progress
	switch {
	case p.Canceled != "":
		return Canceled
	case p.Over && p.Done == p.Tasks:
		return Done
	case p.Over:
		return Failed
	case slices.ContainsFunc(v.Leases, func(l market.Standing) bool { return l.Phase == market.Running || l.Phase == market.Done }):
		return Running
	}
	return Waiting
}

// view asks a job's stewards how it stands: the leading one if it can be reached, else any.
func (t *Tasks) view(ctx context.Context, id job.ID) (*talk.View, error) {
	q := &pb.Ask{Kind: talk.AskView, Job: id[:]}
	var first *talk.View
	k := t.seek(id)
	for p := k.pick(); p != ""; p = k.pick() {
		a, err := t.ask(ctx, p, q)
		var v *talk.View
		if err == nil {
			v, err = talk.ViewFrom(a.GetView())
		}
		if err != nil {
			if k.note(err) || ctx.Err() != nil {
				break
			}
			continue
		}
		if v.Leading || v.Progress.Over {
			return v, nil
		}
		if first == nil {
			first = v
		}
		if v.Leader == "" || k.tried[v.Leader] {
			break
		}
		k.next = []peer.ID{v.Leader}
	}
	if first != nil {
		return first, nil
	}
	return nil, k.err()
}

// Kill cancels a job. why is for people. Errors: ErrNoJob, ErrOver, ErrRole, ErrUnreachable.
func (t *Tasks) Kill(ctx context.Context, id job.ID, why string) error {
	if len(why) > market.NoteMax {
		why = strings.ToValidUTF8(why[:market.NoteMax], "")
	}
	_, err := t.askOne(ctx, &pb.Ask{Kind: talk.AskCancel, Job: id[:], Why: why})
	if err != nil {
		return fmt.Errorf("tasks: kill: %w", err)
	}
	return nil
}

// Why asks the job's leading steward and all peers that are there why a task does not run.
func (t *Tasks) Why(ctx context.Context, id job.ID, task int) ([]PeerReason, error) {
	if task < 0 || task > job.TasksMax {
		return nil, ErrNoTask
	}
	v, err := t.view(ctx, id)
	if errors.Is(err, ErrNoJob) {
		return nil, err
	}
	if err == nil && task >= v.Progress.Tasks {
		return nil, ErrNoTask
	}
	steward := PeerReason{Steward: true}
	switch {
	case err != nil:
		steward.Reason = "none of the job's stewards can be reached"
	case v.Leader == "":
		steward.Reason = "the job's stewards have no leader now: a majority of them is away"
	default:
		steward.Peer = v.Leader
		a, err := t.askOne(ctx, &pb.Ask{Kind: talk.AskWhy, Job: id[:], Task: uint32(task)})
		if err != nil {
			steward.Reason = "it does not answer: " + err.Error()
		} else {
			steward.Reason = reason(a.GetText())
		}
	}
	return append([]PeerReason{steward}, t.workersSay(ctx, id)...), nil
}

// workersSay asks each peer what it does about a job.
func (t *Tasks) workersSay(ctx context.Context, id job.ID) []PeerReason {
	members := t.cfg.Members.Members()
	out := make([]PeerReason, len(members))
	ctx, cancel := context.WithTimeout(ctx, whyWait)
	defer cancel()
	var wg sync.WaitGroup
	slots := make(chan struct{}, jobsAtOnce)
	for i, m := range members {
		out[i].Peer = m.ID
		if m.ID != t.self && m.State != roster.Online {
			out[i].Reason = "it is " + m.State.String()
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			a, err := t.ask(ctx, m.ID, &pb.Ask{Kind: talk.AskAbout, Job: id[:]})
			if err != nil {
				out[i].Reason = "it does not answer"
				return
			}
			out[i].Reason = reason(a.GetText())
		})
	}
	wg.Wait()
	return out
}

// Result returns what a task came to; State is market.Open if that is not known yet. Errors: ErrNoJob, ErrNoTask, ErrUnreachable.
func (t *Tasks) Result(ctx context.Context, id job.ID, task int) (TaskResult, error) {
	if task < 0 || task > job.TasksMax {
		return TaskResult{}, fmt.Errorf("tasks: result: %w", ErrNoTask)
	}
	for r, err := range t.results(ctx, id, task, 1) {
		return r, err
	}
	return TaskResult{}, fmt.Errorf("tasks: result: %w", ErrNoTask)
}

// Results returns what count tasks from first came to, in order. It ends with the first error.
func (t *Tasks) Results(ctx context.Context, id job.ID, first, count int) iter.Seq2[TaskResult, error] {
	if first < 0 || first > job.TasksMax || count < 0 {
		return func(yield func(TaskResult, error) bool) {
			yield(TaskResult{}, fmt.Errorf("tasks: results: %w", ErrNoTask))
		}
	}
	return t.results(ctx, id, first, count)
}

func (t *Tasks) results(ctx context.Context, id job.ID, first, count int) iter.Seq2[TaskResult, error] {
	return func(yield func(TaskResult, error) bool) {
		end := first + min(count, job.TasksMax+1)
		for first < end {
			q := &pb.Ask{Kind: talk.AskResults, Job: id[:], Task: uint32(first), Count: uint32(end - first)}
			stopped, began := false, first
			err := t.askSteward(ctx, q, func(a *pb.Answer) (bool, error) {
				for _, m := range a.GetResults() {
					r, err := resultOf(m)
					if err == nil && r.Task != first {
						err = fmt.Errorf("tasks: the result of task %d instead of %d", r.Task, first)
					}
					if err != nil {
						return false, err
					}
					first++
					if !yield(r, nil) {
						stopped = true
						return false, errStop
					}
				}
				if a.GetLast() {
					end = first // the job has no more
				}
				return a.GetLast(), nil
			})
			switch {
			case stopped:
				return
			case err != nil && first > began && ctx.Err() == nil:
				continue // another steward goes on
			case err != nil:
				yield(TaskResult{}, fmt.Errorf("tasks: results: %w", err))
				return
			}
		}
	}
}

// resultOf reads what a steward has of a task.
func resultOf(m *pb.Result) (TaskResult, error) {
	r, err := talk.ResultFrom(m)
	if err != nil {
		return TaskResult{}, err
	}
	out := TaskResult{Task: int(r.Task), State: r.State, Token: r.Token, Worker: r.By, Ran: r.Ran, At: r.At}
	for _, raw := range r.Results {
		res, err := job.DecodeResult(raw)
		if err != nil {
			return TaskResult{}, err
		}
		out.Results = append(out.Results, res)
	}
	return out, nil
}
