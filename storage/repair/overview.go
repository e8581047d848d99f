package repair

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/placement"
	"github.com/shoal-os/shoal/storage/repair/inventory"
	"github.com/shoal-os/shoal/storage/tree"
)

// Overview is how the pool's files are doing, as this peer knows it.
type Overview struct {
	Members []MemberHolds
	Totals  placement.Totals // pieces and bytes by how safe they are
	Store   piece.Usage      // this peer's own
	Jobs    []Job            // what this peer is fetching
	Mended  int64            // bytes fetched to mend shortfalls since the start
	Rate    float64          // of them in a second, over the last half minute
	Paused  string           // why nothing is mended now; "": nothing is in the way
}

// MemberHolds is one member's part.
type MemberHolds struct {
	ID        peer.ID
	Pieces    int
	Held      int64 // bytes, by its own word
	Free      int64 // bytes that it may hold beyond, by its own word
	Offers    placement.Member
	Untrusted bool // it failed three audits in a row
}

// Job is a piece on its way to this peer.
type Job struct {
	piece.Piece
	Why   placement.Why
	Done  int64 // bytes that have arrived, of a large one
	Since time.Time
}

// Overview returns how things are now. It looks at every piece: some ten milliseconds for a hundred thousand.
func (r *Repair) Overview() Overview {
	lends := r.readOffers()
	paused := r.paused()
	r.mu.Lock()
	defer r.mu.Unlock()
	o := Overview{Totals: r.planner.Totals(), Store: r.store.Usage(), Mended: r.counted.mended.Load(), Rate: r.counted.pace.rate(), Paused: r.brake.String()}
	if paused {
		o.Paused = "the battery of this machine is low"
	}
	for s := range inventory.Slot(r.book.Slots()) {
		if id := r.book.ID(s); id != "" {
			o.Members = append(o.Members, r.holdsOf(s, id, lends[id]))
		}
	}
	for _, j := range r.jobs {
		o.Jobs = append(o.Jobs, Job{j.Piece, j.why, j.bytes.Load(), j.began})
	}
	return o
}

// holdsOf describes one member. mu is held.
func (r *Repair) holdsOf(s inventory.Slot, id peer.ID, offers placement.Member) MemberHolds {
	u := r.told[id].usage
	if s == r.self {
		u = usageOf(r.store)
	}
	return MemberHolds{
		ID: id, Pieces: r.book.Count(s), Held: int64(u.held), Free: int64(u.free), Offers: offers,
		Untrusted: r.doubts.untrusted(id),
	}
}

// WhatIf says what the removal of a member would lose and move.
type WhatIf struct {
	placement.Loss
	Held int64 // bytes that it holds, by its own word
}

// WhatIf works out what would happen if a member were gone for good.
func (r *Repair) WhatIf(p peer.ID) WhatIf {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := WhatIf{Loss: r.planner.WhatIf(p), Held: int64(r.told[p].usage.held)}
	if p == r.cfg.Self {
		w.Held = r.store.Usage().Held
	}
	return w
}

// Safety says how safe pieces are together, of which the file's names want so many copies.
func (r *Repair) Safety(pieces []piece.Piece, wanted int) tree.Safety {
	ids := make([]chunk.CID, len(pieces))
	for i, p := range pieces {
		ids[i] = p.ID
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.planner.Assess(ids...)
	return tree.Safety{Copies: s.Copies, Wanted: wanted, Online: s.Online, Survives: s.Survives, Asleep: s.Asleep}
}

// NewBatch begins to add files to this peer's store; see piece.Store.NewBatch.
func (r *Repair) NewBatch() tree.Batch { return r.store.NewBatch() }

// Repair is all that the tree needs of those who hold pieces.
var _ tree.Bytes = (*Repair)(nil)
