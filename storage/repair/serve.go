package repair

import (
	"bufio"
	"context"
	"errors"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/repair/pb"
)

const (
	// servedEach and servedMax bound the streams that one member, and all together, may have here.
	servedEach = 24
	servedMax  = 512

	// quietTime is how long a member may keep a stream without asking anything. It is more than the asking side's
	// idleTime, so that a question does not meet the end of its stream.
	quietTime = 2 * idleTime
)

// visit is a stream on which another member asks.
type visit struct {
	r    *Repair
	raw  network.Stream
	in   *bufio.Reader
	peer peer.ID
	buf  []byte // for one small piece, made when the first comes
}

// serve is the handler of Protocol.
func (r *Repair) serve(raw network.Stream) {
	v := &visit{r: r, raw: raw, in: newReader(raw), peer: raw.Conn().RemotePeer()}
	if !r.enter() {
		_ = wire.Reset(raw, wire.Errorf(wire.Closing, "this peer is going away"))
		return
	}
	defer r.wg.Done()
	if !r.served.Enter(v.peer) {
		v.refuse(wire.Errorf(wire.Busy, "too many streams"))
		_ = raw.Close()
		return
	}
	defer r.served.Leave(v.peer)
	stop := context.AfterFunc(r.ctx, func() { _ = raw.Reset() })
	defer stop()
	if err := v.run(); err != nil {
		v.refuse(err)
		_ = wire.Reset(raw, err)
		return
	}
	_ = raw.Close()
}

// run answers until the other side has nothing more to ask.
func (v *visit) run() error {
	for {
		_ = v.raw.SetDeadline(time.Now().Add(quietTime))
		var ask pb.Ask
		err := wire.ReadMsg(v.in, &ask, askMax)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		_ = v.raw.SetDeadline(time.Now().Add(answerTime))
		if f := ask.GetFollow(); f != nil {
			return v.follow(f)
		}
		answer, blobs, err := v.answer(&ask)
		if err != nil {
			return err
		}
		if err := v.send(answer, blobs...); err != nil {
			return err
		}
	}
}

// answer does what was asked. An error ends the stream; what the other side may go on after is a Refusal.
func (v *visit) answer(ask *pb.Ask) (a *pb.Answer, blobs [][]byte, err error) {
	switch {
	case ask.GetPut() != nil:
		a, err = v.put(ask.GetPut())
	case ask.GetTake() != nil:
		a, err = v.take(ask.GetTake())
	case ask.GetRead() != nil:
		return v.read(ask.GetRead())
	case ask.GetAudit() != nil:
		a, err = v.audit(ask.GetAudit())
	case ask.GetProve() != nil:
		a, err = v.prove(ask.GetProve())
	default:
		err = wire.Errorf(wire.Malformed, "nothing that this peer knows was asked")
	}
	return a, nil, err
}

func (v *visit) send(a *pb.Answer, blobs ...[]byte) error {
	_ = v.raw.SetWriteDeadline(time.Now().Add(answerTime)) // of writing alone: a Follow reads until the stream ends
	if err := wire.WriteMsg(v.raw, a, answerMax); err != nil {
		return err
	}
	for _, b := range blobs {
		if _, err := v.raw.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// refuse tells the other side why the stream ends.
func (v *visit) refuse(err error) {
	_ = v.raw.SetWriteDeadline(time.Now().Add(time.Second)) // it may not be listening any more
	_ = wire.WriteMsg(v.raw, refusal(err), answerMax)
}

func refusal(err error) *pb.Answer {
	text := "the piece cannot be had here"
	if e := (*wire.Error)(nil); errors.As(err, &e) {
		text = e.Text
	}
	return &pb.Answer{Refusal: &pb.Refusal{Kind: uint32(wire.KindOf(err)), Text: text}}
}
