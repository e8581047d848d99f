package repair

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/repair/inventory"
	"github.com/shoal-os/shoal/storage/repair/pb"
)

const (
	// runsAhead is how many runs are sent before the first is acknowledged: the other side's disk syncs one while the
	// next is on its way.
	runsAhead = 3
	// takesMax bounds the large pieces that one member is asked to take at a time.
	takesMax = 2
)

// lane is how one securing gives pieces to one member.
type lane struct {
	s     *securing
	peer  peer.ID
	heard time.Time // when it last answered; the securing's own
	takes chan struct{}

	mu      sync.Mutex
	small   []int // items to be given in runs
	claimed []int // items to be asked about
	going   map[int]bool
	running bool
	dead    error // why nothing is given to it any more
}

func newLane(s *securing, p peer.ID) *lane {
	return &lane{s: s, peer: p, heard: time.Now(), takes: make(chan struct{}, takesMax), going: map[int]bool{}}
}

// add takes an item on.
func (l *lane) add(i int, claimed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.going[i] = true
	p := l.s.items[i].Piece
	switch {
	case claimed:
		l.claimed = append(l.claimed, i)
	case isSmall(p):
		l.small = append(l.small, i)
	default:
		l.s.r.wg.Go(func() { l.giveLarge(i, p) })
		return
	}
	if !l.running {
		l.running = true
		l.s.r.wg.Go(l.run)
	}
}

// waiting lists the items that the member has not answered.
func (l *lane) waiting() (out []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.going {
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}

// report tells the securing what became of items.
func (l *lane) report(items []int, stored []bool) {
	l.mu.Lock()
	for _, i := range items {
		delete(l.going, i)
	}
	l.mu.Unlock()
	if len(items) > 0 {
		l.s.results <- result{l, items, stored} // it listens until all attempts ended
	}
}

func (l *lane) fail(items []int) { l.report(items, make([]bool, len(items))) }

// run works until nothing waits.
func (l *lane) run() {
	for {
		l.mu.Lock()
		claimed, small := l.claimed, l.small
		l.claimed, l.small = nil, nil
		dead := l.dead
		if len(claimed)+len(small) == 0 {
			l.running = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		if dead != nil {
			l.fail(append(claimed, small...))
			continue
		}
		for part := range slices.Chunk(claimed, proveMax) {
			small = append(small, l.confirm(part)...)
		}
		if len(small) > 0 {
			l.give(small)
		}
	}
}

// died notes that the member does not answer.
func (l *lane) died(err error) {
	if err == nil || isAnswer(err) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = err
	l.s.r.log.Debug("a member takes no pieces", "peer", l.peer, "err", err)
}

// confirm asks a member for proof of the pieces that it says it holds, and returns the small ones that it has to be given
// after all.
func (l *lane) confirm(items []int) (again []int) {
	ids := make([]chunk.CID, len(items))
	for n, i := range items {
		ids[n] = l.s.items[i].ID
	}
	kept, err := l.s.r.askProof(l.s.ctx, l.peer, ids)
	l.died(err)
	var done []int
	var stored []bool
	for n, i := range items {
		if p := l.s.items[i].Piece; err == nil && !kept[n] && isSmall(p) && l.s.r.store.Has(p.ID) {
			again = append(again, i)
			continue
		}
		done, stored = append(done, i), append(stored, err == nil && kept[n])
	}
	l.report(done, stored)
	return again
}

// give sends small pieces in runs.
func (l *lane) give(items []int) {
	next := 0 // the first item that was not answered
	err := l.s.r.with(l.s.ctx, l.peer, func(t *talk) error {
		sent := next
		var runs []int // how many items each run has that is under way
		for next < len(items) {
			for len(runs) < runsAhead && sent < len(items) {
				n := l.runOf(items[sent:])
				if err := l.send(t, items[sent:sent+n]); err != nil {
					return err
				}
				runs, sent = append(runs, n), sent+n
			}
			stored, err := t.receiveAck(runs[0])
			if err != nil {
				return err
			}
			l.report(items[next:next+runs[0]], stored)
			next, runs = next+runs[0], runs[1:]
		}
		return nil
	})
	l.died(err)
	if err != nil {
		l.fail(items[next:])
	}
}

// runOf is how many items fit into one run.
func (l *lane) runOf(items []int) int {
	n, size := 0, int64(0)
	for n < len(items) && n < runMax {
		if size += l.s.items[items[n]].Size; n > 0 && size > runBytes {
			break
		}
		n++
	}
	return n
}

// send writes one run. The pieces' bytes are read as they are sent, so that a run takes the memory of one.
func (l *lane) send(t *talk, items []int) error {
	run := &pb.Run{}
	for _, i := range items {
		p := l.s.items[i].Piece
		run.Pieces = inventory.Append(run.Pieces, p.ID)
		run.Sizes = append(run.Sizes, uint32(p.Size))
	}
	if err := t.send(&pb.Ask{Put: run}); err != nil {
		return err
	}
	buf := make([]byte, 0, sendBuffer)
	flush := func() error {
		_ = t.raw.SetDeadline(time.Now().Add(answerTime))
		_, err := t.raw.Write(buf)
		l.s.r.counted.sent.Add(int64(len(buf)))
		buf = buf[:0]
		return err
	}
	for _, i := range items {
		p, before := l.s.items[i].Piece, len(buf)
		var err error
		if buf, err = l.s.r.store.ReadSmall(p.ID, buf); err != nil || int64(len(buf)-before) != p.Size {
			return errors.Join(err, wire.Errorf(wire.Changed, "a piece that was here is gone"))
		}
		if len(buf) >= sendBuffer/2 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// sendBuffer is how many bytes gather before they are written to a stream.
const sendBuffer = 256 << 10

// receiveAck hears which of n pieces are on the other side's disk.
func (t *talk) receiveAck(n int) ([]bool, error) {
	for {
		a, err := t.receive()
		if err != nil {
			return nil, err
		}
		if a.GetStill() != nil {
			continue
		}
		if a.GetAck() == nil || len(a.GetAck().GetStored()) != (n+7)/8 {
			return nil, errAnswer("acknowledgement")
		}
		return bitsOf(a.GetAck().GetStored(), n), nil
	}
}

func bitsOf(packed []byte, n int) []bool {
	out := make([]bool, n)
	for i := range out {
		out[i] = packed[i/8]>>(i%8)&1 == 1
	}
	return out
}

// giveLarge asks the member to fetch a large piece from here.
func (l *lane) giveLarge(i int, p piece.Piece) {
	select {
	case l.takes <- struct{}{}:
		defer func() { <-l.takes }()
	case <-l.s.ctx.Done():
		l.fail([]int{i})
		return
	}
	stored := []bool{false}
	err := l.s.r.with(l.s.ctx, l.peer, func(t *talk) error {
		ask := &pb.Ask{Take: &pb.Take{Piece: inventory.Append(nil, p.ID), Size: uint64(p.Size)}}
		if err := t.send(ask); err != nil {
			return err
		}
		var err error
		stored, err = t.receiveAck(1)
		return err
	})
	if err != nil {
		l.died(err)
		stored = []bool{false}
	}
	l.report([]int{i}, stored)
}

// askProof asks a member which pieces it holds and will keep for a while. Small ones that are here too are checked
// against this peer's own bytes.
func (r *Repair) askProof(ctx context.Context, p peer.ID, ids []chunk.CID) ([]bool, error) {
	nonce := make([]byte, nonceLen)
	_, _ = rand.Read(nonce) // it never fails
	a, err := r.ask(ctx, p, &pb.Ask{Prove: &pb.Prove{Pieces: inventory.Append(nil, ids...), Nonce: nonce}})
	if err != nil {
		return nil, err
	}
	return r.checkProof(p, ids, nonce, a.GetProof())
}

// checkProof reads what a member says it will keep.
func (r *Repair) checkProof(p peer.ID, ids []chunk.CID, nonce []byte, proof *pb.Proof) ([]bool, error) {
	if proof == nil || len(proof.GetKept()) != (len(ids)+7)/8 || len(proof.GetSums())%32 != 0 {
		return nil, errAnswer("proof")
	}
	kept, sums := bitsOf(proof.GetKept(), len(ids)), proof.GetSums()
	var buf []byte
	for i, id := range ids {
		own, held := r.store.Get(id)
		if !kept[i] || !id.IsRaw() || held && !isSmall(own) {
			continue
		}
		if len(sums) < 32 {
			return nil, errAnswer("sum for each piece")
		}
		sum := [32]byte(sums)
		sums = sums[32:]
		if !held {
			continue // it cannot be checked here
		}
		var err error
		if buf, err = r.store.ReadSmall(id, buf[:0]); err != nil {
			continue
		}
		if nonceSum(nonce, buf) != sum {
			kept[i] = false
			r.noteLie(p, id)
		}
	}
	return kept, nil
}
