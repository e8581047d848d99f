package repair

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/repair/inventory"
)

const (
	scrubFile = "scrub"
	// scrubLook is how often what is due to be read again is read, at least.
	scrubLook = time.Minute
)

// Report says what a scrub found.
type Report struct {
	Pieces   int   // that were read again
	Bytes    int64 // of them
	Damaged  int   // that were not what they should be
	Repaired int   // of these, fetched again from others
	Missing  int   // wanted, and nobody is known to hold them
	Orphans  int   // held here, and no name needs them
	Elapsed  time.Duration
}

// scrubState is how far the scrub is that goes on by itself: pieces are read in the order of their hashes, each bucket in
// its share of the time.
type scrubState struct {
	mu sync.Mutex
	s  scrubSaved
}

type scrubSaved struct {
	Began time.Time `json:"began"`
	After []byte    `json:"after"` // the hash up to which everything was read; none: nothing was
}

func (s *scrubState) open(cfg Config) {
	raw, err := os.ReadFile(filepath.Join(cfg.Dir, scrubFile))
	if err != nil || json.Unmarshal(raw, &s.s) != nil || len(s.s.After) > 32 || s.s.Began.After(cfg.Now()) {
		s.s = scrubSaved{}
	}
	if s.s.Began.IsZero() {
		s.s.Began = cfg.Now()
	}
}

// scrub reads everything again in Config.Scrub.
func (r *Repair) scrub() {
	if r.cfg.Scrub < 0 {
		return
	}
	ticker := time.NewTicker(min(scrubLook, r.cfg.Scrub/inventory.Buckets))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-r.ctx.Done():
			return
		}
		if r.paused() {
			continue
		}
		r.scrubDue()
	}
}

// scrubDue reads what is due by now.
func (r *Repair) scrubDue() {
	s := &r.scrubs
	s.mu.Lock()
	defer s.mu.Unlock()
	due := float64(r.cfg.Now().Sub(s.s.Began)) / float64(r.cfg.Scrub)
	from := position32(s.s.After)
	if due <= from {
		return
	}
	list := r.heldBetween(s.s.After, due)
	for _, p := range list {
		if r.ctx.Err() != nil {
			return
		}
		r.verify(r.ctx, p)
		s.s.After = p.ID.Sum[:]
	}
	if due >= 1 {
		s.s = scrubSaved{Began: r.cfg.Now()}
	} else if len(list) == 0 {
		return
	}
	writeJSON(filepath.Join(r.cfg.Dir, scrubFile), s.s)
}

// position32 is where a hash lies between 0 and 1.
func position32(sum []byte) float64 {
	at, scale := 0.0, 1.0
	for _, b := range sum[:min(len(sum), 6)] {
		scale /= 256
		at += float64(b) * scale
	}
	return at
}

// heldBetween lists what this peer holds behind a hash and up to a position, in order.
func (r *Repair) heldBetween(after []byte, to float64) (out []piece.Piece) {
	first := 0
	if len(after) > 0 {
		first = int(after[0])
	}
	for bucket := first; bucket < inventory.Buckets && float64(bucket)/inventory.Buckets < to; bucket++ {
		for _, p := range r.heldIn(bucket) {
			if bytes.Compare(p.ID.Sum[:], after) > 0 && position32(p.ID.Sum[:]) <= to {
				out = append(out, p)
			}
		}
	}
	return out
}

// heldIn lists what this peer holds of a bucket, in the order of the hashes.
func (r *Repair) heldIn(bucket int) (out []piece.Piece) {
	r.mu.Lock()
	ids := r.book.Bucket(r.self, bucket)
	r.mu.Unlock()
	slices.SortFunc(ids, func(a, b chunk.CID) int { return cmp.Or(bytes.Compare(a.Sum[:], b.Sum[:]), int(a.Codec)-int(b.Codec)) })
	for _, id := range ids {
		if p, ok := r.store.Get(id); ok {
			out = append(out, p)
		}
	}
	return out
}

// verify reads a piece again. A damaged one is held no more from then on, which the others are told, and the planner has
// it fetched again.
func (r *Repair) verify(ctx context.Context, p piece.Piece) (damaged bool) {
	err := r.store.Verify(ctx, p.ID)
	if errors.Is(err, piece.ErrDamaged) {
		r.log.Warn("a piece was found damaged on this disk", "piece", p.ID, "size", p.Size)
		return true
	}
	return false
}

// ScrubNow reads everything again that this peer holds, at once, and fetches what is damaged from others. progress, which
// may be nil, hears how many bytes were read, and of how many. The error is that of ctx.
func (r *Repair) ScrubNow(ctx context.Context, progress func(done, total int64)) (Report, error) {
	began := time.Now()
	if progress == nil {
		progress = func(int64, int64) {}
	}
	rep, bad, err := r.readAll(ctx, progress)
	r.learnStore()
	for _, p := range bad {
		if ctx.Err() == nil && r.mend(ctx, p) == nil {
			rep.Repaired++
		}
	}
	r.countNames(&rep)
	rep.Elapsed = time.Since(began)
	return rep, errors.Join(err, ctx.Err())
}

func (r *Repair) readAll(ctx context.Context, progress func(done, total int64)) (rep Report, bad []piece.Piece, err error) {
	total := r.store.Usage().Held
	for bucket := range inventory.Buckets {
		for _, p := range r.heldIn(bucket) {
			if ctx.Err() != nil || r.ctx.Err() != nil {
				return rep, bad, context.Cause(ctx)
			}
			rep.Pieces++
			rep.Bytes += p.Size
			if r.verify(ctx, p) {
				rep.Damaged++
				bad = append(bad, p)
			}
			progress(rep.Bytes, max(total, rep.Bytes))
		}
	}
	return rep, bad, nil
}

// mend fetches a piece that this peer should hold, now.
func (r *Repair) mend(ctx context.Context, p piece.Piece) error {
	r.mu.Lock()
	from := r.planner.Sources(p.ID)
	j := r.jobs[p.ID]
	r.mu.Unlock()
	if j != nil { // the planner was faster
		select {
		case <-j.done:
		case <-ctx.Done():
		}
	}
	if r.store.Has(p.ID) {
		return nil
	}
	if !isSmall(p) {
		return r.cfg.Fetch.TakePieceNow(ctx, p, from, func(int64) {})
	}
	for _, q := range from {
		if got, _ := r.fetchRun(q, []piece.Piece{p}); got[p.ID] {
			return nil
		}
	}
	return errNoSource
}

// countNames counts what is wanted and missing, and what is here and not wanted.
func (r *Repair) countNames(rep *Report) {
	r.mu.Lock()
	names := r.names
	rep.Missing = r.planner.Totals().Lost.Pieces
	r.mu.Unlock()
	if names == nil {
		return
	}
	live := names.Live()
	for p := range r.store.All() {
		if !live(p.ID) && !r.flight.has(p.ID) {
			rep.Orphans++
		}
	}
}
