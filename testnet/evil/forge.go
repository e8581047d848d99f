package evil

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/pool/pb"
	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/directory/names"
)

const (
	packetMax = names.TurnMax + 64<<10
	forgedMax = 200 // records in one turn
)

// forge begins a session as a replica that holds nothing, is told what there is, and answers with records of the same keys, newer, in
// the name of whoever wrote them, signed with its own key. They say that the keys are deleted, or hold something else.
func (e *enemy) forge(ctx context.Context, victim peer.ID, n int) error {
	s, err := e.open(ctx, victim, directory.Protocol)
	if err != nil {
		return err
	}
	defer s.Reset()
	// First the gate says whether this member may come in: an empty message if so.
	verdict := new(pb.Verdict)
	if err := wire.ReadMsg(s, verdict, packetMax); err != nil {
		return err
	}
	if proto.Size(verdict) > 0 {
		return fmt.Errorf("%w: not let in", errRefused)
	}
	set := names.NewReplica(names.Pool(e.pool), e.ident.ID, e.ident.Key)
	own := set.Hello(time.Now())
	hello := &directory.Hello{Digest: own.Digest[:], ClockMs: time.Now().UnixMilli(), PoolMs: time.Now().UnixMilli(), Fresh: true}
	if err := e.send(s, &directory.Packet{Hello: hello}); err != nil {
		return err
	}
	answer, err := receive(s)
	if err != nil {
		return err
	}
	if answer.Hello == nil {
		return fmt.Errorf("%w: instead of a hello: %s", errRefused, answer.GetRefusal().GetText())
	}
	session := set.Session(own, names.Hello{Len: int(answer.Hello.Records)}, time.Now())
	start := session.Start()
	if err := e.send(s, &directory.Packet{Turn: &directory.Turn{Ranges: start.Ranges}}); err != nil {
		return err
	}
	for {
		p, err := receive(s)
		if err != nil {
			return err
		}
		if p.Turn == nil {
			return fmt.Errorf("%w: instead of a turn: %s", errRefused, p.GetRefusal().GetText())
		}
		forged, err := e.forged(p.Turn.Records, victim, n)
		if err != nil {
			return err
		}
		out, err := session.Step(p.Turn.Ranges, p.Turn.Want, len(p.Turn.Records))
		if err != nil {
			return fmt.Errorf("%w: %w", errRefused, err)
		}
		if err := e.send(s, &directory.Packet{Turn: &directory.Turn{Ranges: out.Turn.Ranges, Want: out.Turn.Want, Records: forged}}); err != nil {
			return err
		}
		if len(forged) > 0 {
			e.did.sent.Add(1)
			return e.verdict(s)
		}
	}
}

// verdict is what the victim makes of forged records: anything but a refusal or an end is as good as belief.
func (e *enemy) verdict(s io.Reader) error {
	p, err := receive(s)
	if err != nil {
		return err
	}
	if p.Refusal != nil {
		return fmt.Errorf("%w: %s", errRefused, p.Refusal.Text)
	}
	return nil
}

// forged makes false records of true ones.
func (e *enemy) forged(records [][]byte, victim peer.ID, n int) (out [][]byte, err error) {
	for _, data := range records[:min(len(records), forgedMax)] {
		r, err := names.Decode(names.Pool(e.pool), data)
		if err != nil {
			return nil, fmt.Errorf("evil: %w", err)
		}
		lie := names.Record{Key: r.Key, Time: names.At(time.Now()), Author: r.Author}
		if lie.Author == e.ident.ID {
			lie.Author = victim
		}
		if lie.Deleted = n%2 == 0; !lie.Deleted {
			lie.Value = []byte("forged")
		}
		signed, err := lie.Sign(names.Pool(e.pool), e.ident.Key)
		if err != nil {
			return nil, fmt.Errorf("evil: %w", err)
		}
		out = append(out, signed.Append(nil))
	}
	return out, nil
}

func (e *enemy) send(s io.Writer, p *directory.Packet) error {
	if err := wire.WriteMsg(s, p, packetMax); err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	return nil
}

func receive(s io.Reader) (*directory.Packet, error) {
	p := new(directory.Packet)
	if err := wire.ReadMsg(s, p, packetMax); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: the stream ended", errRefused)
		}
		return nil, err
	}
	return p, nil
}
