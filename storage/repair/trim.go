package repair

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/placement"
	"github.com/shoal-os/shoal/storage/repair/inventory"
	"github.com/shoal-os/shoal/storage/repair/pb"
)

const (
	// trimsMax bounds the surplus copies that wait to be let go; the planner offers the others again later.
	trimsMax = 4096
	// trimRun is how many small ones are proven in one question.
	trimRun = proveMax
)

// startTrim queues a surplus copy. mu is held.
func (r *Repair) startTrim(t placement.Trim) {
	select {
	case r.trims <- t:
	default:
		r.wg.Go(func() { r.does(placement.Kept{Piece: t.Piece}) })
	}
}

// trim lets surplus copies go, after others have proven theirs.
func (r *Repair) trim() {
	for {
		select {
		case t := <-r.trims:
			r.trimRun(r.gatherTrims(t))
		case <-r.ctx.Done():
			return
		}
	}
}

// gatherTrims takes those that wait already, as far as they ask the same members.
func (r *Repair) gatherTrims(first placement.Trim) []placement.Trim {
	run := []placement.Trim{first}
	for len(run) < trimRun {
		select {
		case t := <-r.trims:
			run = append(run, t)
		default:
			return run
		}
	}
	return run
}

// trimRun asks for the proofs of some copies and deletes those with enough.
func (r *Repair) trimRun(run []placement.Trim) {
	proofs := map[chunk.CID]int{}
	asked := map[peer.ID][]placement.Trim{}
	for _, t := range run {
		for _, p := range t.From {
			asked[p] = append(asked[p], t)
		}
	}
	for p, trims := range asked {
		for _, id := range r.provenBy(p, trims) {
			proofs[id]++
		}
	}
	var gone []chunk.CID
	for _, t := range run {
		if proofs[t.Piece] >= t.Need && t.Need > 0 && r.cfg.Boot() < t.Until && !r.store.Pinned(t.Piece) {
			gone = append(gone, t.Piece)
			continue
		}
		r.does(placement.Kept{Piece: t.Piece})
	}
	if len(gone) == 0 {
		return
	}
	if err := r.store.Quarantine(gone...); err != nil {
		r.log.Warn("surplus copies are kept", "pieces", len(gone), "err", err)
		for _, id := range gone {
			r.does(placement.Kept{Piece: id})
		}
		return
	}
	r.log.Debug("surplus copies were let go", "pieces", len(gone))
	r.takeBack(run, gone)
	r.learnStore() // tells the planner
}

// takeBack restores what was let go after the promises had run out: the disk was slow, or the machine slept between the look
// at the clock and the deletion.
func (r *Repair) takeBack(run []placement.Trim, gone []chunk.CID) {
	now := r.cfg.Boot()
	for _, t := range run {
		if now >= t.Until && slices.Contains(gone, t.Piece) && r.store.Restore(t.Piece) {
			r.does(placement.Kept{Piece: t.Piece})
		}
	}
}

// provenBy asks a member for proof of some pieces. A large one is hashed whole on both sides first.
func (r *Repair) provenBy(p peer.ID, trims []placement.Trim) (proven []chunk.CID) {
	var ids []chunk.CID
	for _, t := range trims {
		if !t.Piece.IsRaw() && r.auditWhole(p, piece.Piece{ID: t.Piece, Size: t.Size}) != nil {
			continue
		}
		ids = append(ids, t.Piece)
	}
	for len(ids) > 0 {
		part := ids[:min(len(ids), proveMax)]
		ids = ids[len(part):]
		kept, err := r.askProof(r.ctx, p, part)
		if err != nil {
			return proven
		}
		for i, id := range part {
			if kept[i] {
				proven = append(proven, id)
			}
		}
	}
	return proven
}

// errAudit is for a member whose answer is not what the bytes give.
var errAudit = errors.New("it does not hold what it says")

// auditWhole compares all of a piece with a member's copy.
func (r *Repair) auditWhole(p peer.ID, of piece.Piece) error {
	for off := int64(0); off < of.Size; off += auditMax {
		if err := r.auditRange(r.ctx, p, of.ID, off, min(auditMax, of.Size-off)); err != nil {
			return err
		}
	}
	return nil
}

// auditRange compares a range of a piece with a member's copy. The error is errAudit when the member does not have it,
// and another when that could not be found out.
func (r *Repair) auditRange(ctx context.Context, p peer.ID, id chunk.CID, off, n int64) error {
	nonce := make([]byte, nonceLen)
	_, _ = rand.Read(nonce) // it never fails
	own, err := r.store.Hash(id, nonce, off, n)
	if err != nil {
		return err // and the store knows now
	}
	a, err := r.ask(ctx, p, &pb.Ask{Audit: &pb.Audit{
		Piece: inventory.Append(nil, id), Nonce: nonce, Offset: uint64(off), Length: uint64(n),
	}})
	switch {
	case wire.KindOf(err) == wire.NotFound:
		return errAudit
	case err != nil:
		return err
	case string(a.GetHash().GetSum()) != string(own[:]):
		return errAudit
	}
	return nil
}
