package repair

import (
	"crypto/sha256"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/placement"
	"github.com/shoal-os/shoal/storage/repair/inventory"
	"github.com/shoal-os/shoal/storage/repair/pb"
)

const (
	// runMax and runBytes bound a run of small pieces.
	runMax   = 1024
	runBytes = 4 << 20
	// readMax bounds the pieces that are asked for at a time, and proveMax those that are to be proven.
	readMax  = 256
	proveMax = 256
	// readGroup is how many bytes gather before they are sent.
	readGroup = 256 << 10
	// auditMax bounds the range of one audit, in bytes.
	auditMax = 64 << 20
	nonceLen = 32

	// heavyMax bounds the audits and proofs that others have made here at a time, heavyWait how long one may wait.
	heavyMax  = 2
	heavyWait = 10 * time.Second
	// stillEvery is how often the asking side of a Take hears that it goes on.
	stillEvery = 5 * time.Second
)

// slots bound what others have done here at a time.
type slots struct {
	heavy      chan struct{}
	background atomic.Int32 // writes of this peer that go on after they were acknowledged
}

func (s *slots) init() { s.heavy = make(chan struct{}, heavyMax) }

// takeHeavy waits for its turn.
func (v *visit) takeHeavy() (leave func(), err error) {
	timer := time.NewTimer(heavyWait)
	defer timer.Stop()
	select {
	case v.r.slots.heavy <- struct{}{}:
		return func() { <-v.r.slots.heavy }, nil
	case <-timer.C:
	case <-v.r.ctx.Done():
	}
	return nil, wire.Errorf(wire.Busy, "this peer is examined by others")
}

// answerOf makes a refusal after which the stream goes on of an error that is about the question.
func answerOf(err error) (*pb.Answer, error) {
	switch {
	case errors.Is(err, piece.ErrNotFound), errors.Is(err, piece.ErrDamaged):
		err = wire.Errorf(wire.NotFound, "the piece is not here")
	case errors.Is(err, piece.ErrQuota):
		err = wire.Errorf(wire.Busy, "there is no room for it")
	}
	switch wire.KindOf(err) {
	case wire.NotFound, wire.Busy:
		return refusal(err), nil
	}
	return nil, err
}

// buffer returns memory for one small piece.
func (v *visit) buffer(n int) []byte {
	if cap(v.buf) < n {
		v.buf = make([]byte, n, max(n, 64<<10))
	}
	return v.buf[:n]
}

// checkRun looks at a run's header.
func checkRun(run *pb.Run) ([]chunk.CID, error) {
	ids, err := inventory.Unpack(run.GetPieces(), runMax)
	if err != nil || len(ids) != len(run.GetSizes()) || len(ids) == 0 {
		return nil, wire.Errorf(wire.Malformed, "a run of %d pieces and %d sizes, %v", len(ids), len(run.GetSizes()), err)
	}
	total := uint64(0)
	for i, n := range run.GetSizes() {
		if n > piece.SmallMax || !ids[i].IsRaw() {
			return nil, wire.Errorf(wire.Malformed, "%v of %d bytes is no small piece", ids[i], n)
		}
		total += uint64(n)
	}
	if total > runBytes {
		return nil, wire.Errorf(wire.TooLarge, "a run of %d bytes", total)
	}
	return ids, nil
}

// put takes a run of small pieces in. They are on the disk when it is answered: one sync for all.
func (v *visit) put(run *pb.Run) (*pb.Answer, error) {
	ids, err := checkRun(run)
	if err != nil {
		return nil, err
	}
	batch := v.r.store.NewBatch()
	defer batch.Close()
	ack := &pb.Ack{Stored: make([]byte, (len(ids)+7)/8)}
	fresh := int64(0)
	for i, id := range ids {
		if run.Sizes[i] == 0 {
			return nil, wire.Errorf(wire.Malformed, "a piece without bytes")
		}
		data := v.buffer(int(run.Sizes[i]))
		if _, err := io.ReadFull(v.in, data); err != nil {
			return nil, err
		}
		switch err := v.r.addSmall(batch, id, data); {
		case err == nil:
			ack.Stored[i/8] |= 1 << (i % 8)
			fresh += int64(len(data))
		case errors.Is(err, piece.ErrQuota):
			ack.Full = true
		case errors.Is(err, piece.ErrNotPiece):
			return nil, wire.Errorf(wire.Malformed, "a piece that is not what it is called")
		default:
			v.r.log.Warn("a piece was not taken", "piece", id, "from", v.peer, "err", err)
			return nil, wire.Errorf(wire.Internal, "the disk did not take it")
		}
	}
	v.r.flight.add(ids)
	if err := batch.Commit(); err != nil {
		return nil, wire.Errorf(wire.Internal, "the disk did not take it")
	}
	v.r.counted.received.Add(fresh)
	if ack.Full {
		v.r.does(placement.Need{Bytes: runBytes})
	}
	return &pb.Answer{Ack: ack}, nil
}

// take fetches a large piece from the member that asks for it.
func (v *visit) take(t *pb.Take) (*pb.Answer, error) {
	id, err := inventory.UnpackOne(t.GetPiece())
	if err != nil || t.GetSize() == 0 || t.GetSize() > piece.PieceMax {
		return nil, wire.Errorf(wire.Malformed, "a piece of %d bytes, %v", t.GetSize(), err)
	}
	v.r.flight.add([]chunk.CID{id})
	done := &pb.Answer{Ack: &pb.Ack{Stored: []byte{1}}}
	if v.r.store.Spare(id) { // a Collect that is under way may have asked about it before it was in flight
		return done, nil
	}
	v.r.mu.Lock()
	v.r.step(placement.Nudge{Piece: id, Size: int64(t.GetSize()), From: v.peer})
	j := v.r.jobs[id]
	v.r.mu.Unlock()
	if j == nil {
		return &pb.Answer{Ack: &pb.Ack{Stored: []byte{0}, Full: true}}, nil
	}
	if err := v.waitFor(j); err != nil {
		return nil, err
	}
	if v.r.store.Spare(id) {
		return done, nil
	}
	return &pb.Answer{Ack: &pb.Ack{Stored: []byte{0}, Full: errors.Is(j.err, piece.ErrQuota)}}, nil
}

// waitFor says that a fetch goes on until it does not.
func (v *visit) waitFor(j *job) error {
	still := time.NewTicker(stillEvery)
	defer still.Stop()
	for {
		select {
		case <-j.done:
			return nil
		case <-still.C:
			if err := v.send(&pb.Answer{Still: &pb.Still{Bytes: uint64(j.bytes.Load())}}); err != nil {
				return err // who asked went away; the piece is fetched nevertheless, as it may be needed
			}
		case <-v.r.ctx.Done():
			return wire.Errorf(wire.Closing, "this peer is going away")
		}
	}
}

// read sends small pieces, many in one message. What is not here has no bytes.
func (v *visit) read(ask *pb.Read) (*pb.Answer, [][]byte, error) {
	ids, err := inventory.Unpack(ask.GetPieces(), readMax)
	if err != nil || len(ids) == 0 {
		return nil, nil, wire.Errorf(wire.Malformed, "%d pieces, %v", len(ids), err)
	}
	run := &pb.Run{}
	group := v.buffer(0)
	for _, id := range ids {
		before := len(group)
		if group, err = v.r.store.ReadSmall(id, group); err != nil {
			group = group[:before]
		}
		run.Pieces = inventory.Append(run.Pieces, id)
		run.Sizes = append(run.Sizes, uint32(len(group)-before))
		if len(group) < readGroup {
			continue
		}
		if err := v.send(&pb.Answer{Run: run}, group); err != nil {
			return nil, nil, err
		}
		v.r.counted.sent.Add(int64(len(group)))
		run, group = &pb.Run{}, group[:0]
	}
	v.buf = group[:0]
	v.r.counted.sent.Add(int64(len(group)))
	return &pb.Answer{Run: run}, [][]byte{group}, nil
}

// audit hashes a range of a piece.
func (v *visit) audit(a *pb.Audit) (*pb.Answer, error) {
	id, err := inventory.UnpackOne(a.GetPiece())
	if err != nil || len(a.GetNonce()) != nonceLen || a.GetLength() > auditMax || a.GetOffset() > piece.PieceMax {
		return nil, wire.Errorf(wire.Malformed, "an audit of %d bytes, %v", a.GetLength(), err)
	}
	leave, err := v.takeHeavy()
	if err != nil {
		return answerOf(err)
	}
	defer leave()
	sum, err := v.r.store.Hash(id, a.GetNonce(), int64(a.GetOffset()), int64(a.GetLength()))
	if err != nil {
		return answerOf(err)
	}
	return &pb.Answer{Hash: &pb.Hash{Sum: sum[:]}}, nil
}

// prove says which pieces are here and will be for a while. Small ones are read for it; who deletes a large one has
// audited it.
func (v *visit) prove(p *pb.Prove) (*pb.Answer, error) {
	ids, err := inventory.Unpack(p.GetPieces(), proveMax)
	if err != nil || len(p.GetNonce()) != nonceLen || len(ids) == 0 {
		return nil, wire.Errorf(wire.Malformed, "%d pieces to prove, %v", len(ids), err)
	}
	leave, err := v.takeHeavy()
	if err != nil {
		return answerOf(err)
	}
	defer leave()
	proof := &pb.Proof{Kept: make([]byte, (len(ids)+7)/8)}
	for i, id := range ids {
		sum, small, ok := v.proveOne(id, p.GetNonce())
		if !ok {
			continue
		}
		proof.Kept[i/8] |= 1 << (i % 8)
		if small {
			proof.Sums = append(proof.Sums, sum[:]...)
		}
	}
	return &pb.Answer{Proof: proof}, nil
}

func (v *visit) proveOne(id chunk.CID, nonce []byte) (sum [32]byte, small, ok bool) {
	p, held := v.r.store.Get(id)
	if !held {
		return sum, false, false
	}
	// A writer may count on this copy of what no name needs at the moment, and name it later: that is as good as given.
	if !v.r.named(id) {
		v.r.flight.add([]chunk.CID{id})
	}
	if !v.r.store.Spare(id) {
		return sum, false, false
	}
	if small = id.IsRaw() && p.Size <= piece.SmallMax; small {
		data, err := v.r.store.ReadSmall(id, v.buffer(0))
		if err != nil {
			return sum, true, false
		}
		v.buf = data[:0]
		sum = nonceSum(nonce, data)
	}
	v.r.mu.Lock()
	defer v.r.mu.Unlock()
	return sum, small, v.r.planner.Promise(v.r.now(), id)
}

// nonceSum is the SHA-256 of the nonce followed by the bytes.
func nonceSum(nonce, data []byte) (sum [32]byte) {
	h := sha256.New()
	h.Write(nonce)
	h.Write(data)
	h.Sum(sum[:0])
	return sum
}
