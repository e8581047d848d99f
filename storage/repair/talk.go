package repair

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/repair/pb"
)

// Protocol is the id of the streams by which members hold files for each other.
const Protocol protocol.ID = "/shoal/hold/1"

const (
	// askMax and answerMax are the largest messages, in bytes: a full Run's header, and a bucket of bucketPart pieces.
	askMax    = 64 << 10
	answerMax = 512 << 10

	// answerTime is how long the other side may take for one answer, the bytes of a run included.
	answerTime = 30 * time.Second

	// idleMax and idleTime bound the streams to one member that are kept for the next question.
	idleMax  = 3
	idleTime = 30 * time.Second
)

// talk is a stream on which this side asks, one thing after the other.
type talk struct {
	raw  network.Stream
	in   *bufio.Reader
	peer peer.ID
	used bool // a question was answered on it before
}

// talks keeps streams that have nothing to do for a moment.
type talks struct {
	mu   sync.Mutex
	idle map[peer.ID][]idleTalk
}

type idleTalk struct {
	*talk
	since time.Time
}

// talkTo returns a stream to a member: one that is idle, or a new one.
func (r *Repair) talkTo(ctx context.Context, p peer.ID) (*talk, error) {
	if t := r.talks.take(p); t != nil {
		return t, nil
	}
	return r.newTalk(ctx, p)
}

func (r *Repair) newTalk(ctx context.Context, p peer.ID) (*talk, error) {
	raw, err := r.cfg.Streams.NewBulkStream(ctx, p, Protocol)
	if err != nil {
		return nil, fmt.Errorf("repair: %w", err)
	}
	return &talk{raw: raw, in: newReader(raw), peer: p}, nil
}

// newReader buffers what comes in, so that small messages are not many reads.
func newReader(raw network.Stream) *bufio.Reader { return bufio.NewReaderSize(raw, 16<<10) }

// take returns the stream that was used last, and ends those that idled for too long.
func (ts *talks) take(p peer.ID) *talk {
	ts.mu.Lock()
	list := ts.idle[p]
	var t *talk
	if n := len(list); n > 0 && time.Since(list[n-1].since) < idleTime {
		t = list[n-1].talk
		list = list[:n-1]
		ts.idle[p] = list
	}
	ts.mu.Unlock()
	ts.sweep()
	return t
}

// sweep ends streams that idled for too long.
func (ts *talks) sweep() {
	ts.mu.Lock()
	var old []idleTalk
	for p, list := range ts.idle {
		keep := list[:0]
		for _, t := range list {
			if time.Since(t.since) < idleTime {
				keep = append(keep, t)
			} else {
				old = append(old, t)
			}
		}
		if ts.idle[p] = keep; len(keep) == 0 {
			delete(ts.idle, p)
		}
	}
	ts.mu.Unlock()
	for _, t := range old {
		_ = t.raw.Close() // it said all it had to say
	}
}

// give takes back a stream whose last question was answered; any other is ended.
func (r *Repair) give(t *talk, err error) {
	if err != nil {
		_ = wire.Reset(t.raw, err)
		return
	}
	ts := &r.talks
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if r.ctx.Err() != nil || len(ts.idle[t.peer]) >= idleMax {
		_ = t.raw.Close()
		return
	}
	t.used = true
	ts.idle[t.peer] = append(ts.idle[t.peer], idleTalk{t, time.Now()})
}

// drop ends the idle streams to a member, or to all if p is "".
func (ts *talks) drop(p peer.ID) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for q, list := range ts.idle {
		if p != "" && p != q {
			continue
		}
		for _, t := range list {
			_ = t.raw.Reset()
		}
		delete(ts.idle, q)
	}
}

// with runs one exchange with a member. An idle stream that turns out to be dead is replaced once.
func (r *Repair) with(ctx context.Context, p peer.ID, f func(*talk) error) error {
	t, err := r.talkTo(ctx, p)
	if err != nil {
		return err
	}
	used := t.used // t is another's once the exchange ended
	err = r.exchange(ctx, t, f)
	if err == nil || !used || ctx.Err() != nil || isAnswer(err) {
		return err
	}
	if t, err = r.newTalk(ctx, p); err != nil {
		return err
	}
	return r.exchange(ctx, t, f)
}

// exchange runs f, which ends when ctx or the peer does.
func (r *Repair) exchange(ctx context.Context, t *talk, f func(*talk) error) error {
	stop := context.AfterFunc(ctx, func() { _ = t.raw.Reset() })
	stopped := context.AfterFunc(r.ctx, func() { _ = t.raw.Reset() })
	err := f(t)
	stopped()
	if !stop() && ctx.Err() != nil {
		err = ctx.Err()
	}
	if isAnswer(err) {
		r.give(t, nil)
		return err
	}
	r.give(t, err)
	return err
}

// answerError is a refusal after which the stream goes on.
type answerError struct{ why *wire.Error }

func (e answerError) Error() string { return e.why.Error() }
func (e answerError) Unwrap() error { return e.why }

func isAnswer(err error) bool { var e answerError; return errors.As(err, &e) }

// send says something, with time for the answer.
func (t *talk) send(ask *pb.Ask, blobs ...[]byte) error {
	_ = t.raw.SetDeadline(time.Now().Add(answerTime)) // a stream without deadlines has its own ends
	if err := wire.WriteMsg(t.raw, ask, askMax); err != nil {
		return err
	}
	for _, b := range blobs {
		if _, err := t.raw.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// receive hears one answer.
func (t *talk) receive() (*pb.Answer, error) {
	_ = t.raw.SetDeadline(time.Now().Add(answerTime))
	return readAnswer(t.in)
}

func readAnswer(in *bufio.Reader) (*pb.Answer, error) {
	var a pb.Answer
	if err := wire.ReadMsg(in, &a, answerMax); err != nil {
		return nil, err
	}
	if x := a.GetRefusal(); x != nil {
		kind := wire.ErrKind(min(x.GetKind(), 1<<12))
		return nil, answerError{&wire.Error{Kind: kind, Text: wire.CleanText(x.GetText())}}
	}
	return &a, nil
}

// ask is one question with a short answer.
func (r *Repair) ask(ctx context.Context, p peer.ID, ask *pb.Ask) (a *pb.Answer, err error) {
	err = r.with(ctx, p, func(t *talk) error {
		if err := t.send(ask); err != nil {
			return err
		}
		a, err = t.receive()
		return err
	})
	return a, err
}

// errAnswer is for an answer to another question.
func errAnswer(what string) error { return wire.Errorf(wire.Malformed, "a %s was expected", what) }
