package repair

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/placement"
	"github.com/shoal-os/shoal/storage/repair/inventory"
)

const (
	// auditBytes is how many bytes of a piece one audit hashes.
	auditBytes = 64 << 10
	// strikesMax failed audits in a row make a member untrusted: its copies do not count until it passes passesMin in a
	// row. These are many more, or one that holds a third of what it says would be trusted again now and then.
	strikesMax = 3
	passesMin  = 20
	// doubtsMax bounds the pieces that are remembered of a member as not held though it says so.
	doubtsMax = 4096
	// auditTries is how many pieces are drawn to find one that both hold.
	auditTries = 64
	// recheckEvery is how often an untrusted member is examined again.
	recheckEvery = 10 * time.Minute
)

// doubts is what audits found. Repair.mu guards it.
type doubts struct {
	of map[peer.ID]*doubt
}

type doubt struct {
	strikes   int // failures in a row; below 0, passes in a row of one untrusted
	untrusted bool
	checked   time.Time
	pieces    map[chunk.CID]bool // that it says it holds, and does not
}

func (d *doubts) member(p peer.ID) *doubt {
	if d.of == nil {
		d.of = map[peer.ID]*doubt{}
	}
	x := d.of[p]
	if x == nil {
		x = &doubt{pieces: map[chunk.CID]bool{}}
		d.of[p] = x
	}
	return x
}

// cleared forgets the doubts about pieces that a member says anew that it holds: it may have fetched them since.
func (d *doubts) cleared(p peer.ID, ids []chunk.CID) {
	if x := d.of[p]; x != nil && len(x.pieces) > 0 {
		for _, id := range ids {
			delete(x.pieces, id)
		}
	}
}

// untrusted reports whether a member's copies do not count.
func (d *doubts) untrusted(p peer.ID) bool { return d.of[p] != nil && d.of[p].untrusted }

// noteLie remembers that a member gave other bytes, or a wrong hash, for a piece.
func (r *Repair) noteLie(p peer.ID, id chunk.CID) { r.noteAudit(p, id, false) }

// noteAudit remembers how an examination ended.
func (r *Repair) noteAudit(p peer.ID, id chunk.CID, passed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.doubts.member(p)
	d.checked = time.Now()
	was := d.untrusted
	switch {
	case passed && d.untrusted:
		d.strikes = min(d.strikes, 0) - 1
		d.untrusted = d.strikes > -passesMin
	case passed:
		d.strikes = 0
	default:
		d.strikes = max(d.strikes, 0) + 1
		d.untrusted = d.untrusted || d.strikes >= strikesMax
	}
	if !d.untrusted && was {
		d.strikes = 0
	}
	if !passed && len(d.pieces) < doubtsMax {
		r.log.Warn("a member does not hold what it says it holds", "peer", p, "piece", id)
		d.pieces[id] = true
		r.step(placement.Holds{Peer: p, Removed: []chunk.CID{id}})
	}
	if passed && d.pieces[id] {
		delete(d.pieces, id)
		r.step(placement.Holds{Peer: p, Added: []chunk.CID{id}})
	}
	if was != d.untrusted {
		signal(r.members)
	}
}

// audits examines another member now and then.
func (r *Repair) audits() {
	if r.cfg.Audit < 0 {
		return
	}
	for {
		timer := time.NewTimer(r.cfg.Audit/2 + rand.N(r.cfg.Audit))
		select {
		case <-timer.C:
		case <-r.ctx.Done():
			timer.Stop()
			return
		}
		if !r.paused() {
			r.auditOne()
		}
	}
}

// auditOne draws a member and a piece that both hold, and compares a random range of it.
func (r *Repair) auditOne() {
	p, of, ok := r.drawAudit()
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.ctx, answerTime)
	defer cancel()
	n := min(of.Size, auditBytes)
	err := r.auditRange(ctx, p, of.ID, rand.Int64N(of.Size-n+1), n)
	switch {
	case err == nil:
		r.noteAudit(p, of.ID, true)
	case errors.Is(err, errAudit) && r.claims(p, of.ID): // it may have let it go this moment
		r.noteAudit(p, of.ID, false)
	}
}

func (r *Repair) claims(p peer.ID, id chunk.CID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	slot, ok := r.book.Slot(p)
	return ok && r.book.Has(slot, id)
}

// drawAudit chooses whom to examine, one that is untrusted first, and about what.
func (r *Repair) drawAudit() (peer.ID, piece.Piece, bool) {
	online := r.online()
	delete(online, r.cfg.Self)
	r.mu.Lock()
	defer r.mu.Unlock()
	var peers []peer.ID
	for p := range online {
		if d := r.doubts.of[p]; d != nil && d.untrusted && time.Since(d.checked) > recheckEvery {
			peers = []peer.ID{p}
			break
		}
		peers = append(peers, p)
	}
	for range auditTries {
		if len(peers) == 0 {
			break
		}
		p := peers[rand.IntN(len(peers))]
		slot, ok := r.book.Slot(p)
		if !ok {
			continue
		}
		if of, ok := r.drawCommon(slot); ok {
			return p, of, true
		}
	}
	return "", piece.Piece{}, false
}

// drawCommon draws a piece that this peer and another hold, from a random bucket.
func (r *Repair) drawCommon(slot inventory.Slot) (piece.Piece, bool) {
	var found []chunk.CID
	for c, holders := range r.book.Rows(rand.IntN(inventory.Buckets)) {
		both := holders[slot/64] >> (slot % 64) & 1 & (holders[r.self/64] >> (r.self % 64) & 1)
		if both == 1 {
			found = append(found, c)
		}
	}
	if len(found) == 0 {
		return piece.Piece{}, false
	}
	return r.store.Get(found[rand.IntN(len(found))])
}
