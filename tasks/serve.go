package tasks

import (
	"bufio"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

const (
	// visitsMax bounds the streams of both protocols that one member has here, and visitsAll those of all.
	visitsMax = 128
	visitsAll = 2048
	// openingWait bounds the first message of a stream, idleWait the time between two questions.
	openingWait = 10 * time.Second
	idleWait    = time.Minute
	// silenceMax is how long a worker's stream may say nothing. It says something every three seconds.
	silenceMax = 30 * time.Second
	// writeWait bounds the sending of a message.
	writeWait = 10 * time.Second
	// ordersWait is how many orders wait for one worker; one with more is hung up.
	ordersWait = 256
	readBuffer = 16 << 10
	// sendGap is how close two packets on a standing stream follow each other; up to sendGapMax while what comes meanwhile is
	// at least gapGrows messages each time.
	sendGap    = time.Millisecond
	sendGapMax = 20 * time.Millisecond
	gapGrows   = 3
)

// visit runs the serving of a stream, within the bounds.
func (t *Tasks) visit(raw network.Stream, f func(ctx context.Context, from peer.ID, r *bufio.Reader) error) {
	from := raw.Conn().RemotePeer()
	end := make(chan struct{})
	ok := t.visits.Enter(from)
	if ok {
		ok = t.start(func() {
			defer close(end)
			defer t.visits.Leave(from)
			ctx, cancel := context.WithCancel(t.ctx)
			defer cancel()
			stop := context.AfterFunc(ctx, func() { _ = wire.Reset(raw, wire.Errorf(wire.Closing, "")) })
			err := f(ctx, from, bufio.NewReaderSize(raw, readBuffer))
			if !stop() {
				return
			}
			if err != nil && !errors.Is(err, io.EOF) {
				_ = wire.Reset(raw, err)
				return
			}
			_ = raw.Close()
		})
		if !ok {
			t.visits.Leave(from)
		}
	}
	if !ok {
		_ = wire.Reset(raw, wire.Errorf(wire.Busy, "too many streams"))
		return
	}
	<-end
}

// serveMarket serves a stream of /shoal/market/1.
func (t *Tasks) serveMarket(raw network.Stream) {
	t.visit(raw, func(ctx context.Context, from peer.ID, r *bufio.Reader) error {
		var o pb.Opening
		_ = raw.SetReadDeadline(time.Now().Add(openingWait))
		if err := wire.ReadMsg(r, &o, talk.AskMax); err != nil {
			return err
		}
		if len(o.GetBid()) == 0 {
			return t.serveAsks(ctx, raw, from, r)
		}
		id, err := talk.JobOf(o.GetBid())
		if err != nil {
			return err
		}
		return t.serveBid(ctx, raw, from, r, id)
	})
}

// serveBid serves a worker's standing stream.
func (t *Tasks) serveBid(ctx context.Context, raw network.Stream, from peer.ID, r *bufio.Reader, id job.ID) error {
	if t.role(from) < ident.RoleMember {
		return wire.Errorf(wire.Refused, "only members that lend may work")
	}
	s := t.seat(id)
	if s == nil {
		return wire.Errorf(wire.NotFound, "no steward of this job")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	orders := make(chan *market.Order, ordersWait)
	k := &sink{peer: from, close: cancel, send: func(o *market.Order) bool {
		select {
		case orders <- o:
			return true
		default:
			return false
		}
	}}
	number := s.join(k)
	defer s.leave(number)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		send(ctx, raw, orders, func(w *bufio.Writer, o *market.Order) error {
			return wire.WriteMsg(w, talk.OrderMessage(o), talk.FrameMax)
		})
	})
	defer wg.Wait()
	defer cancel()
	for ctx.Err() == nil {
		var m pb.Report
		_ = raw.SetReadDeadline(time.Now().Add(silenceMax))
		if ctx.Err() != nil {
			return nil // its deadline was just overwritten
		}
		if err := wire.ReadMsg(r, &m, talk.FrameMax); err != nil {
			return err
		}
		report, err := talk.ReportFrom(&m)
		if err != nil {
			return err
		}
		if !s.box.putWait(ctx, s.reported(from, number, report)) {
			return nil
		}
	}
	return nil
}

// send writes what comes on a channel until ctx ends or a write fails. What has gathered goes together: the first message after a
// silence at once, those that follow closely after a moment, for a stream of small tasks would else be one packet for each.
func send[T any](ctx context.Context, raw network.Stream, list <-chan T, write func(*bufio.Writer, T) error) {
	w := bufio.NewWriterSize(raw, readBuffer)
	var last time.Time
	gap := sendGap
	for {
		select {
		case m := <-list:
			if wait := gap - time.Since(last); wait > 0 && pause(ctx, wait) != nil {
				return
			}
			_ = raw.SetWriteDeadline(time.Now().Add(writeWait))
			err := write(w, m)
			n := 1
			for more := true; more && err == nil; {
				select {
				case m = <-list:
					err = write(w, m)
					n++
				default:
					more = false
				}
			}
			if n >= gapGrows {
				gap = min(2*gap, sendGapMax)
			} else {
				gap = sendGap
			}
			if err == nil {
				err = w.Flush()
			}
			if err != nil {
				return
			}
			last = time.Now()
		case <-ctx.Done():
			return
		}
	}
}

// serveAsks answers questions until there are no more.
func (t *Tasks) serveAsks(ctx context.Context, raw network.Stream, from peer.ID, r *bufio.Reader) error {
	for {
		var q pb.Ask
		_ = raw.SetReadDeadline(time.Now().Add(idleWait))
		if err := wire.ReadMsg(r, &q, talk.AskMax); err != nil {
			return err
		}
		if err := talk.CheckAsk(&q); err != nil {
			return err
		}
		emit := func(a *pb.Answer) error {
			_ = raw.SetWriteDeadline(time.Now().Add(writeWait))
			return wire.WriteMsg(raw, a, talk.FrameMax)
		}
		if q.GetKind() == talk.AskWatch { // which lasts: who asked may go away meanwhile
			_ = raw.SetReadDeadline(time.Time{})
			watched, cancel := context.WithCancel(ctx)
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				defer cancel()
				_, _ = r.ReadByte()
			}()
			err := t.answerOr(watched, from, &q, emit)
			cancel()
			_ = raw.SetReadDeadline(time.Unix(1, 0))
			<-gone
			return err
		}
		if err := t.answerOr(ctx, from, &q, emit); err != nil {
			return err
		}
	}
}

// answerOr answers a question, or says why not. An error is that of the stream.
func (t *Tasks) answerOr(ctx context.Context, from peer.ID, q *pb.Ask, emit func(*pb.Answer) error) error {
	var broken error
	err := t.answer(ctx, from, q, func(a *pb.Answer) error {
		broken = emit(a)
		return broken
	})
	if broken != nil || err == nil {
		return broken
	}
	return emit(talk.RefusalMessage(refusalOf(err)))
}

// refusalOf makes a refusal of an error.
func refusalOf(err error) *talk.Refusal {
	var r *talk.Refusal
	if errors.As(err, &r) {
		return r
	}
	out := &talk.Refusal{Code: talk.Internal, Text: err.Error()}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			out.Code = c.code
			break
		}
	}
	return out
}
