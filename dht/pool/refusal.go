package pool

import (
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pb"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/dht/wire"
)

const (
	// verdictMax bounds a verdict on the wire, in bytes.
	verdictMax = ident.RecordMax + wire.TextMax + 64
	// verdictWait bounds the sending of one.
	verdictWait = 5 * time.Second
)

// Refusal is the error of whoever was not let in, at this peer or at another. errors.Is compares reasons only.
type Refusal struct {
	Reason roster.Reason
	// Text says more than the reason, for people; it may be empty. Text from others has been made safe for a screen.
	Text string
	// Remote says that the other side refused; otherwise this peer did so by itself.
	Remote bool

	proof ident.Record
}

// refuse makes a refusal of this peer.
func refuse(r roster.Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: r, Text: fmt.Sprintf(format, args...)}
}

func (r *Refusal) Error() string {
	s := "refused: " + r.Reason.String()
	if r.Remote {
		s = "the other peer refused: " + r.Reason.String()
	}
	if r.Text != "" {
		s += " (" + r.Text + ")"
	}
	return s
}

// Hint says what to do next, or "".
func (r *Refusal) Hint() string { return r.Reason.Hint() }

// Unwrap makes the refusal one of kind wire.Refused.
func (r *Refusal) Unwrap() error { return &wire.Error{Kind: wire.Refused, Text: r.Reason.String()} }

// Is reports whether target is a refusal for the same reason.
func (r *Refusal) Is(target error) bool {
	t, ok := target.(*Refusal)
	return ok && t.Reason == r.Reason
}

// ReasonOf returns why an error refused somebody, or roster.OK when it is no refusal.
func ReasonOf(err error) roster.Reason {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return roster.OK
}

// verdict writes a refusal down for the wire.
func (r *Refusal) verdict() *pb.Verdict {
	v := &pb.Verdict{Reason: uint32(r.Reason), Text: r.Text}
	if r.proof != nil {
		v.Proof = r.proof.Raw()
	}
	return v
}

// fromVerdict reads what another peer sent. It is nil for a welcome.
func fromVerdict(v *pb.Verdict) *Refusal {
	if v.GetReason() == uint32(roster.OK) {
		return nil
	}
	r := &Refusal{Reason: roster.Reason(v.GetReason()), Text: wire.CleanText(v.GetText()), Remote: true}
	if rec, err := ident.ParseRecord(v.GetProof()); err == nil {
		r.proof = rec
	}
	return r
}

// readVerdict waits for the other side's word. A refusal is returned as the *Refusal that it is.
func readVerdict(s network.Stream) error {
	var v pb.Verdict
	if err := wire.ReadMsg(s, &v, verdictMax); err != nil {
		return fmt.Errorf("pool: no answer: %w", err)
	}
	if r := fromVerdict(&v); r != nil {
		return r
	}
	return nil
}

// sendRefusal ends a stream with a reason. What the other side may have sent is not read.
func sendRefusal(s network.Stream, r *Refusal) {
	if s.SetDeadline(time.Now().Add(verdictWait)) != nil || wire.WriteMsg(s, r.verdict(), verdictMax) != nil {
		_ = wire.Reset(s, r)
		return
	}
	_ = s.Close()
}
