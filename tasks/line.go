package tasks

import (
	"bufio"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

const (
	// dialWait bounds the opening of a worker's stream.
	dialWait = 10 * time.Second
	// reportsWait is how many reports wait to be sent to one steward; a stream with more is given up.
	reportsWait = 256
	// ordersMute is how long a steward may say nothing on a stream. The worker gives it up long before.
	ordersMute = time.Minute
	// flushLook is how often flush looks whether all is sent.
	flushLook = 2 * time.Millisecond
)

// line is the worker's end of a standing stream. Only the worker's goroutine, or who stops it, calls it; flush may be called on any.
type line interface {
	post(*market.Report) bool // false: there is no room
	flush(context.Context)    // waits until what was posted is sent, the stream ended, or the context did
	close()
}

// dial opens a standing stream, here or elsewhere.
func (h *hand) dial(d market.Dial) {
	if d.Peer == h.t.self {
		h.dialHere(d)
		return
	}
	l := &remoteLine{h: h, job: d.Job, number: d.Stream, reports: make(chan *market.Report, reportsWait)}
	l.ctx, l.cancel = context.WithCancel(h.t.ctx)
	h.lines[d.Stream] = l
	h.t.start(func() { l.run(d) })
}

// said tells the worker what happened on a stream.
func (h *hand) said(kind market.WorkerKind, id job.ID, stream uint64) handEvent {
	return handEvent{WorkerEvent: market.WorkerEvent{Kind: kind, Job: id, Stream: stream}}
}

// localLine is a stream to this peer's own seat.
type localLine struct {
	seat   *seat
	number uint64 // the seat's
}

func (h *hand) dialHere(d market.Dial) {
	s := h.t.seat(d.Job)
	if s == nil {
		h.box.put(h.said(market.Hungup, d.Job, d.Stream))
		return
	}
	k := &sink{peer: h.t.self, close: func() { h.box.put(h.said(market.Hungup, d.Job, d.Stream)) }, send: func(o *market.Order) bool {
		ev := h.said(market.Ordered, d.Job, d.Stream)
		ev.Order = o
		h.box.put(ev)
		return true
	}}
	h.lines[d.Stream] = &localLine{s, s.join(k)}
	h.box.put(h.said(market.Connected, d.Job, d.Stream))
}

func (l *localLine) post(r *market.Report) bool {
	l.seat.box.put(l.seat.reported(l.seat.t.self, l.number, r))
	return true
}

func (l *localLine) flush(context.Context) {}

func (l *localLine) close() { l.seat.leave(l.number) }

// remoteLine is a stream to another peer.
type remoteLine struct {
	h       *hand
	job     job.ID
	number  uint64
	ctx     context.Context
	cancel  context.CancelFunc
	reports chan *market.Report
	waiting atomic.Int64 // posted and not sent
}

func (l *remoteLine) post(r *market.Report) bool {
	l.waiting.Add(1)
	select {
	case l.reports <- r:
		return true
	default:
		l.waiting.Add(-1)
		return false
	}
}

func (l *remoteLine) flush(ctx context.Context) {
	look := time.NewTicker(flushLook)
	defer look.Stop()
	for l.waiting.Load() > 0 {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		case <-l.ctx.Done():
			return
		}
	}
}

func (l *remoteLine) close() { l.cancel() }

// run opens the stream and carries it until it ends.
func (l *remoteLine) run(d market.Dial) {
	defer l.h.box.put(l.h.said(market.Hungup, l.job, l.number))
	defer l.cancel()
	ctx, cancel := context.WithTimeout(l.ctx, dialWait)
	raw, err := l.h.t.cfg.Streams.NewStream(ctx, d.Peer, talk.Market)
	cancel()
	if err != nil {
		return
	}
	defer func() { _ = raw.Reset() }()
	_ = raw.SetWriteDeadline(time.Now().Add(writeWait))
	if err := wire.WriteMsg(raw, &pb.Opening{Bid: l.job[:]}, talk.AskMax); err != nil {
		return
	}
	stop := context.AfterFunc(l.ctx, func() { _ = raw.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	l.h.box.put(l.h.said(market.Connected, l.job, l.number))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.cancel()
	wg.Go(func() {
		defer l.cancel()
		send(l.ctx, raw, l.reports, func(w *bufio.Writer, r *market.Report) error {
			err := wire.WriteMsg(w, talk.ReportMessage(r), talk.FrameMax)
			if err == nil && l.waiting.Load() == 1 { // before flush may believe that it is sent
				err = w.Flush()
			}
			l.waiting.Add(-1)
			return err
		})
	})
	r := bufio.NewReaderSize(raw, readBuffer)
	for {
		var m pb.Order
		_ = raw.SetReadDeadline(time.Now().Add(ordersMute))
		if l.ctx.Err() != nil || wire.ReadMsg(r, &m, talk.FrameMax) != nil {
			return
		}
		o, err := talk.OrderFrom(&m)
		if err != nil {
			l.h.t.log.Warn("tasks: a steward's order", "job", l.job.Short(), "from", d.Peer, "err", err)
			return
		}
		ev := l.h.said(market.Ordered, l.job, l.number)
		ev.Order = o
		if !l.h.box.putWait(l.ctx, ev) {
			return
		}
	}
}
