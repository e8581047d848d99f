package repair

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/repair/inventory"
	"github.com/shoal-os/shoal/storage/repair/pb"
)

// ErrNotHere is within the error for a piece that no member which can be reached has.
var ErrNotHere = errors.New("no member with a copy of it can be reached")

// readFrom reads small pieces from a member, in runs, and calls each for those that it gives. The bytes are as long as
// they should be but not verified yet, and are each's until it returns. An error of each ends the reading.
func (r *Repair) readFrom(ctx context.Context, p peer.ID, want []piece.Piece, each func(chunk.CID, []byte) error) error {
	for len(want) > 0 {
		n, size := 0, int64(0)
		for n < len(want) && n < readMax && (n == 0 || size+want[n].Size <= runBytes) {
			size += want[n].Size
			n++
		}
		part := want[:n]
		want = want[n:]
		if err := r.with(ctx, p, func(t *talk) error { return r.readPart(t, part, each) }); err != nil {
			return fmt.Errorf("repair: read from %s: %w", p, err)
		}
	}
	return nil
}

// readPart asks for pieces that fit into one question, and reads the runs that answer it.
func (r *Repair) readPart(t *talk, want []piece.Piece, each func(chunk.CID, []byte) error) error {
	ids := make([]chunk.CID, len(want))
	for i, p := range want {
		ids[i] = p.ID
	}
	if err := t.send(&pb.Ask{Read: &pb.Read{Pieces: inventory.Append(nil, ids...)}}); err != nil {
		return err
	}
	var buf []byte
	for len(want) > 0 {
		a, err := t.receive()
		if err != nil {
			return err
		}
		n := len(a.GetRun().GetSizes())
		if n == 0 || n > len(want) || string(a.GetRun().GetPieces()) != string(inventory.Append(nil, ids[:n]...)) {
			return errAnswer("run of what was asked for")
		}
		if buf, err = r.readRun(t, a.GetRun().GetSizes(), want[:n], buf, each); err != nil {
			return err
		}
		want, ids = want[n:], ids[n:]
	}
	return nil
}

// readRun reads the bytes behind a run's header.
func (r *Repair) readRun(t *talk, sizes []uint32, want []piece.Piece, buf []byte, each func(chunk.CID, []byte) error) ([]byte, error) {
	for i, p := range want {
		if sizes[i] == 0 {
			continue
		}
		if int64(sizes[i]) != p.Size || p.Size > piece.SmallMax {
			return buf, wire.Errorf(wire.Malformed, "%d bytes for a piece of %d", sizes[i], p.Size)
		}
		if int64(cap(buf)) < p.Size {
			buf = make([]byte, p.Size)
		}
		_ = t.raw.SetDeadline(time.Now().Add(answerTime))
		if _, err := io.ReadFull(t.in, buf[:p.Size]); err != nil {
			return buf, err
		}
		r.counted.read.Add(p.Size)
		if err := each(p.ID, buf[:p.Size]); err != nil {
			return buf, err
		}
	}
	return buf, nil
}

// small returns the bytes of a small piece behind what is in buf: from here if they are here and whole, else from other
// members. What was fetched is cached, or restored if it should have been here.
func (r *Repair) small(ctx context.Context, p piece.Piece, buf []byte) ([]byte, error) {
	out, err := r.store.ReadSmall(p.ID, buf)
	if err == nil {
		return out, nil
	}
	if !errors.Is(err, piece.ErrNotFound) && !errors.Is(err, piece.ErrDamaged) {
		return buf, err
	}
	got, err := r.fetchSmall(ctx, []piece.Piece{p}, func(_ chunk.CID, data []byte) { buf = append(buf, data...) })
	if err == nil && got == 0 {
		err = fmt.Errorf("repair: piece %s: %w", p.ID, ErrNotHere)
	}
	return buf, err
}

// fetchSmall reads small pieces from members that have them, and calls each with the verified bytes, which are its until
// it returns. They are cached. It returns how many were found.
func (r *Repair) fetchSmall(ctx context.Context, want []piece.Piece, each func(chunk.CID, []byte)) (got int, err error) {
	tried := map[peer.ID]bool{}
	for len(want) > 0 && ctx.Err() == nil {
		p, part := r.bestSource(want, tried)
		if p == "" {
			break
		}
		tried[p] = true
		found := map[chunk.CID]bool{}
		err = r.readFrom(ctx, p, part, func(id chunk.CID, data []byte) error {
			if chunk.SumRaw(data) != id {
				r.noteLie(p, id)
				return wire.Errorf(wire.Malformed, "bytes of another piece")
			}
			found[id] = true
			_ = r.store.Cache(id, data) // no room: then it is fetched again
			each(id, data)
			return nil
		})
		got += len(found)
		want = slices.DeleteFunc(want, func(p piece.Piece) bool { return found[p.ID] })
	}
	if len(want) == 0 {
		return got, nil
	}
	return got, errors.Join(err, ctx.Err())
}

// bestSource is the member not tried yet that can give most of some pieces, nearer ones before others, and what it can
// give.
func (r *Repair) bestSource(want []piece.Piece, tried map[peer.ID]bool) (best peer.ID, part []piece.Piece) {
	by := map[peer.ID][]piece.Piece{}
	rank := map[peer.ID]int{}
	r.mu.Lock()
	for _, p := range want {
		for i, s := range r.planner.Sources(p.ID) {
			if !tried[s] {
				by[s] = append(by[s], p)
				rank[s] += i
			}
		}
	}
	r.mu.Unlock()
	score := func(p peer.ID) int {
		near := 0
		if r.cfg.Near(p) {
			near = 1
		}
		return 4*len(by[p])*(1+near) - rank[p]
	}
	for p := range by {
		if best == "" || score(p) > score(best) || score(p) == score(best) && p < best {
			best = p
		}
	}
	return best, slices.Clone(by[best])
}

// Warm fetches small pieces that are not here into the cache, many at a time, for one who is about to read them. That
// some cannot be had is no error: reading them will tell.
func (r *Repair) Warm(ctx context.Context, pieces []piece.Piece) {
	var want []piece.Piece
	var buf []byte
	for _, p := range pieces {
		if !isSmall(p) || r.store.Has(p.ID) {
			continue
		}
		var err error
		if buf, err = r.store.ReadSmall(p.ID, buf[:0]); err != nil { // not cached either
			want = append(want, p)
		}
	}
	_, _ = r.fetchSmall(ctx, want, func(chunk.CID, []byte) {})
}
