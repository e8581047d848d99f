package tasks

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

const (
	// logsAgain is how often it is looked whether a task that does not run now has an attempt, or a result.
	logsAgain = 100 * time.Millisecond
	// logsIdle bounds the silence on a log stream; what a guest does not write for longer is asked for anew.
	logsIdle = 10 * time.Minute
)

// serveLog serves a stream of /shoal/log/1.
func (t *Tasks) serveLog(raw network.Stream) {
	t.visit(raw, func(ctx context.Context, _ peer.ID, r *bufio.Reader) error {
		var l pb.Listen
		_ = raw.SetReadDeadline(time.Now().Add(openingWait))
		if err := wire.ReadMsg(r, &l, wire.MsgMax); err != nil {
			return err
		}
		_ = raw.SetReadDeadline(time.Time{})
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			defer cancel()
			_, _ = r.ReadByte() // until the other side hangs up
		}()
		err := t.tellLog(ctx, &l, func(p *pb.Piece) error {
			_ = raw.SetWriteDeadline(time.Now().Add(writeWait))
			return wire.WriteMsg(raw, p, talk.FrameMax)
		})
		_ = raw.SetReadDeadline(time.Unix(1, 0))
		<-gone
		return err
	})
}

// tellLog sends what an attempt here has written and, if that is asked for, still writes.
func (t *Tasks) tellLog(ctx context.Context, l *pb.Listen, emit func(*pb.Piece) error) error {
	id, err := talk.JobOf(l.GetJob())
	if err != nil {
		return err
	}
	x := t.hand.try(id, l.GetTask(), job.Token{Term: l.GetTerm(), Seq: l.GetSeq()})
	if x == nil {
		return wire.Errorf(wire.NotFound, "no such attempt is here")
	}
	x.out.open()
	defer x.out.close()
	x.err.open()
	defer x.err.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var once sync.Once
	var failed error
	fail := func(err error) { once.Do(func() { failed = err; cancel() }) } // nobody waits for what the other stream may still say
	for i, c := range []*capture{&x.out, &x.err} {
		wg.Go(func() {
			buf := make([]byte, talk.PieceMax)
			for off := int64(0); ; {
				n, err := c.next(ctx, buf, off, l.GetFollow())
				if err != nil {
					if !errors.Is(err, io.EOF) {
						fail(err)
					}
					return
				}
				mu.Lock()
				err = emit(&pb.Piece{Term: x.Token.Term, Seq: x.Token.Seq, Stderr: i == 1, Data: buf[:n]})
				mu.Unlock()
				if off += int64(n); err != nil {
					fail(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return failed
	}
	return emit(&pb.Piece{Term: x.Token.Term, Seq: x.Token.Seq, Last: true})
}

// Logs writes what a task has written so far to sink and, with follow, what it still writes, until the task is closed.
func (t *Tasks) Logs(ctx context.Context, id job.ID, task int, follow bool, sink LogSink) error {
	f := newFollower(sink)
	for {
		r, err := t.Result(ctx, id, task)
		if err != nil {
			return err
		}
		if r.State != market.Open {
			return t.logsOf(ctx, f, &r)
		}
		if err := t.liveLogs(ctx, id, task, follow, f); err != nil {
			return err
		}
		if !follow {
			return nil
		}
		if err := pause(ctx, logsAgain); err != nil {
			return err
		}
	}
}

// logsOf writes a closed task's output, as far as it was not written before.
func (t *Tasks) logsOf(ctx context.Context, f *follower, r *TaskResult) error {
	if len(r.Results) == 0 {
		return nil // it was dropped, or skipped
	}
	res := r.Results[len(r.Results)-1]
	err := t.logsOnce(ctx, f, res)
	if errors.Is(err, errDiffers) {
		err = t.logsOnce(ctx, f, res)
	}
	return err
}

func (t *Tasks) logsOnce(ctx context.Context, f *follower, res *job.Result) error {
	f.begin()
	for i, s := range []*job.Stream{&res.Stdout, &res.Stderr} {
		if res.Reason != "" && s.Cut {
			f.tail(i, s.Inline)
			continue
		}
		if err := f.write(i, s.Inline); err != nil {
			return err
		}
		if !s.File.Defined() {
			continue
		}
		in, err := t.OpenFile(ctx, s.File)
		if err != nil {
			return err
		}
		_, err = copyAll(streamWriter{f, i}, in, s.File.Size)
		if err = errors.Join(err, in.Close()); err != nil {
			return err
		}
	}
	return f.finish()
}

// streamWriter is one of a follower's streams.
type streamWriter struct {
	f *follower
	i int
}

func (w streamWriter) Write(p []byte) (int, error) { return len(p), w.f.write(w.i, p) }

// liveLogs writes what the attempt under way writes, until it ends. That there is none, or that it is lost, is no error.
func (t *Tasks) liveLogs(ctx context.Context, id job.ID, task int, follow bool, f *follower) error {
	a, err := t.askOne(ctx, &pb.Ask{Kind: talk.AskHolders, Job: id[:], Task: uint32(task)})
	if err != nil {
		if errors.Is(err, ErrUnreachable) && follow {
			return ctx.Err()
		}
		return err
	}
	holders, err := talk.PeersOf(a.GetPeers(), market.StewardsMax)
	if err != nil {
		return err
	}
	for i := 0; i < len(holders); i++ {
		p := holders[i]
		f.begin()
		last := false
		err := t.listen1(ctx, p, &pb.Listen{Job: id[:], Task: uint32(task), Follow: follow}, func(m *pb.Piece) error {
			if m.GetLast() {
				last = true
				return io.EOF
			}
			i := 0
			if m.GetStderr() {
				i = 1
			}
			return f.write(i, m.GetData())
		})
		switch {
		case f.broken != nil:
			return f.broken
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errDiffers):
			i-- // the same from its beginning
		case last || err == nil:
			return nil
		}
	}
	return nil
}

// listen1 reads a log stream of a peer, or this one's own.
func (t *Tasks) listen1(ctx context.Context, p peer.ID, l *pb.Listen, each func(*pb.Piece) error) error {
	if p == t.self {
		return t.tellLog(ctx, l, each)
	}
	open, cancel := context.WithTimeout(ctx, askWait)
	raw, err := t.cfg.Streams.NewStream(open, p, talk.Log)
	cancel()
	if err != nil {
		return err
	}
	defer func() { _ = raw.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = raw.Reset() })
	defer stop()
	_ = raw.SetWriteDeadline(time.Now().Add(writeWait))
	if err := wire.WriteMsg(raw, l, wire.MsgMax); err != nil {
		return err
	}
	r := bufio.NewReaderSize(raw, readBuffer)
	for {
		var m pb.Piece
		_ = raw.SetReadDeadline(time.Now().Add(logsIdle))
		if err := wire.ReadMsg(r, &m, talk.FrameMax); err != nil {
			return err
		}
		if len(m.GetData()) > talk.PieceMax {
			return wire.Errorf(wire.TooLarge, "a piece of output of %d bytes", len(m.GetData()))
		}
		if err := each(&m); err != nil {
			return err
		}
	}
}

// follower writes the output of one attempt after the other as though it were one: what a later one writes is compared with what was
// written, and goes on from there where it is the same.
type follower struct {
	sink   LogSink
	out    [2]followed
	broken error // a writer's
}

// followed is one stream of it.
type followed struct {
	to    io.Writer
	shown int64     // bytes written
	sum   hash.Hash // of them
	at    int64     // bytes of this attempt's that were compared; shown when it has caught up
	again hash.Hash // of those
	whole bool      // it has caught up, and what comes is written
}

// errDiffers says that what was written is not what another attempt writes, which is to be written from its beginning.
var errDiffers = errors.New("tasks: another attempt's output differs")

func (s *followed) reset() { s.shown, s.sum, s.whole = 0, sha256.New(), true }

func newFollower(sink LogSink) *follower {
	f := &follower{sink: sink}
	for i, w := range []io.Writer{sink.Stdout, sink.Stderr} {
		if w == nil {
			w = io.Discard
		}
		f.out[i] = followed{to: w, sum: sha256.New()}
	}
	return f
}

// begin says that another attempt's output follows.
func (f *follower) begin() {
	for i := range f.out {
		s := &f.out[i]
		s.at, s.again, s.whole = 0, sha256.New(), s.shown == 0
	}
}

func (f *follower) note(text string) {
	if f.sink.Note != nil {
		f.sink.Note(text)
	}
}

// write takes an attempt's output.
func (f *follower) write(i int, p []byte) error {
	s := &f.out[i]
	if !s.whole {
		n := min(int64(len(p)), s.shown-s.at)
		s.again.Write(p[:n])
		s.at += n
		p = p[n:]
		if s.at < s.shown {
			return nil
		}
		if string(s.again.Sum(nil)) != string(s.sum.Sum(nil)) {
			f.note("another attempt writes something else; what follows is all of that")
			f.out[0].reset()
			f.out[1].reset()
			return errDiffers
		}
		s.whole = true
	}
	if len(p) == 0 {
		return nil
	}
	s.sum.Write(p)
	s.shown += int64(len(p))
	if _, err := s.to.Write(p); err != nil {
		f.broken = fmt.Errorf("tasks: logs: %w", err)
		return f.broken
	}
	return nil
}

// tail takes the end of an output whose beginning was not kept.
func (f *follower) tail(i int, p []byte) {
	s := &f.out[i]
	if s.shown == 0 && len(p) > 0 {
		f.note("the beginning of what it wrote was not kept")
		_, _ = s.to.Write(p)
	}
}

// finish says that no more follows: a result that is shorter than what an earlier attempt wrote is noted.
func (f *follower) finish() error {
	for i := range f.out {
		if s := &f.out[i]; !s.whole && s.at < s.shown {
			f.note("the attempt whose result counts wrote less than what is shown")
		}
	}
	return nil
}
