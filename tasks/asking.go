package tasks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/tasks/card"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/talk"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

const (
	// askWait bounds a question to one peer, from opening the stream to the first answer, and the time between two answers.
	askWait = 5 * time.Second
	// searchWait is how long a job's leading steward is looked for, and searchEvery how often.
	searchWait  = 8 * time.Second
	searchEvery = 50 * time.Millisecond
)

// ask asks a peer, this one too, and returns its one answer.
func (t *Tasks) ask(ctx context.Context, to peer.ID, q *pb.Ask) (out *pb.Answer, err error) {
	err = t.askEach(ctx, to, q, func(a *pb.Answer) (bool, error) {
		out = a
		return true, nil
	})
	return out, err
}

// askEach asks a peer, and has each called for every answer, until it says that this was the last. An error is the peer's refusal, or
// why there is no answer.
func (t *Tasks) askEach(ctx context.Context, to peer.ID, q *pb.Ask, each func(*pb.Answer) (last bool, err error)) error {
	if to == t.self {
		var last bool
		err := t.answer(ctx, t.self, q, func(a *pb.Answer) (err error) {
			last, err = each(a)
			return err
		})
		if err == nil && !last {
			err = errors.New("tasks: the answer ended early")
		}
		if err != nil {
			return refusalOr(err)
		}
		return nil
	}
	open, cancel := context.WithTimeout(ctx, askWait)
	raw, err := t.cfg.Streams.NewStream(open, to, talk.Market)
	cancel()
	if err != nil {
		return fmt.Errorf("tasks: ask %s: %w", t.name(to), errors.Join(errNotAsked, err))
	}
	defer func() { _ = raw.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = raw.Reset() })
	defer stop()
	_ = raw.SetWriteDeadline(time.Now().Add(writeWait))
	if err := wire.WriteMsg(raw, &pb.Opening{}, talk.AskMax); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	if err := wire.WriteMsg(raw, q, talk.AskMax); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	r := bufio.NewReaderSize(raw, readBuffer)
	for {
		wait := askWait
		switch q.GetKind() {
		case talk.AskWatch:
			wait = newsMute
		case talk.AskCancel:
			wait += cancelWait
		case talk.AskSubmit:
			wait += submitWait
		}
		if err := readAnswer(raw, r, wait, each); err != nil {
			if errors.Is(err, errLast) {
				return nil
			}
			return errors.Join(ctx.Err(), err)
		}
	}
}

// errNotAsked says that a question did not reach whom it was for.
var errNotAsked = errors.New("there is no way to it")

// refusalOr leaves a context's error as it is, and makes a refusal of all else, as if another peer had answered.
func refusalOr(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return refusalOf(err)
}

var errLast = errors.New("that was the last")

type deadlined interface{ SetReadDeadline(time.Time) error }

func readAnswer(raw deadlined, r *bufio.Reader, wait time.Duration, each func(*pb.Answer) (bool, error)) error {
	_ = raw.SetReadDeadline(time.Now().Add(wait))
	var a pb.Answer
	if err := wire.ReadMsg(r, &a, talk.FrameMax); err != nil {
		return err
	}
	if err := talk.RefusalFrom(&a); err != nil {
		return err
	}
	last, err := each(&a)
	if err == nil && last {
		err = errLast
	}
	return err
}

// stewards lists the peers that may be a job's stewards, the likeliest leader first: by this peer's own seat, the job's card, and what
// was announced.
func (t *Tasks) stewards(id job.ID) []peer.ID {
	var out []peer.ID
	add := func(ids ...peer.ID) {
		for _, p := range ids {
			if p != "" && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	if s := t.seat(id); s != nil {
		st := s.group.Status()
		add(st.Leader, t.self)
		add(votersOf(st)...)
	}
	if c, ok := t.cardOf(id); ok {
		slices.SortStableFunc(c.Stewards, func(a, b peer.ID) int { // those that are there first
			return boolOrder(t.online(a), t.online(b))
		})
		add(c.Stewards...)
	}
	add(t.hand.heardOf(id)...)
	if len(out) > 0 {
		return out
	}
	// A job so young that its card has not come here yet: whoever is there may be a steward of it.
	for _, m := range t.cfg.Members.Members() {
		if m.State == roster.Online && m.Role >= ident.RoleMember && len(out) < strangersMax {
			add(m.ID)
		}
	}
	return out
}

// strangersMax bounds the members that are asked about a job of which there is no trace here.
const strangersMax = 64

func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// cardOf reads a job's card.
func (t *Tasks) cardOf(id job.ID) (*card.Card, bool) {
	r, ok := t.cfg.Records.Get(card.KeyOf(id))
	if !ok {
		return nil, false
	}
	c, err := card.Decode(id, r.Value)
	return c, err == nil
}

// seeker asks a job's stewards one after the other.
type seeker struct {
	t     *Tasks
	id    job.ID
	tried map[peer.ID]bool
	next  []peer.ID // asked before others
	last  error
}

func (t *Tasks) seek(id job.ID) *seeker { return &seeker{t: t, id: id, tried: map[peer.ID]bool{}} }

// pick returns the next steward to ask, or "" when all were.
func (k *seeker) pick() peer.ID {
	for _, p := range append(k.next, k.t.stewards(k.id)...) {
		if !k.tried[p] {
			k.tried[p] = true
			return p
		}
	}
	return ""
}

// note looks at why one did not answer. It reports true when it is no use to ask another.
func (k *seeker) note(err error) (final bool) {
	var r *talk.Refusal
	if !errors.As(err, &r) {
		k.last = errors.Join(ErrUnreachable, err)
		return false
	}
	switch r.Code {
	case talk.NotLeader:
		k.last = errors.Join(ErrUnreachable, err)
		if r.Leader != "" {
			k.next = []peer.ID{r.Leader}
		}
	case talk.Closing: // it may be back soon
		k.last = errors.Join(ErrUnreachable, known(r))
	case talk.NoJob, talk.Busy:
		if k.last == nil || errors.Is(k.last, ErrNoJob) {
			k.last = known(r)
		}
	case talk.NoQuorum:
		k.last = errors.Join(ErrUnreachable, err)
	default:
		k.last = known(r)
		return true
	}
	return false
}

// err is why nobody answered.
func (k *seeker) err() error {
	if k.last == nil {
		return ErrNoJob // there is no trace of it
	}
	return k.last
}

// askSteward asks the job's stewards until one answers. It goes on for a while when none does but they are known: a new leader may
// have to be chosen first.
func (t *Tasks) askSteward(ctx context.Context, q *pb.Ask, each func(*pb.Answer) (last bool, err error)) error {
	id := job.ID(q.GetJob())
	end := time.Now().Add(searchWait)
	wait := searchEvery
	for {
		k := t.seek(id)
		for p := k.pick(); p != ""; p = k.pick() {
			err := t.askEach(ctx, p, q, each)
			switch {
			case err == nil:
				return nil
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, errStop):
				return err
			}
			if k.note(err) {
				return k.err()
			}
		}
		if errors.Is(k.err(), ErrNoJob) || time.Now().After(end) {
			return k.err()
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, time.Second)
	}
}

// errStop is what each of askSteward returns to end it.
var errStop = errors.New("tasks: stopped")

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// askOne is askSteward for questions with one answer.
func (t *Tasks) askOne(ctx context.Context, q *pb.Ask) (out *pb.Answer, err error) {
	err = t.askSteward(ctx, q, func(a *pb.Answer) (bool, error) {
		out = a
		return true, nil
	})
	return out, err
}
