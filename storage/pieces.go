package storage

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/exchange"
)

// The private shelf's folders, below the cache.
const (
	piecesCache = "pieces"
	piecesStore = "records"
)

// pieces is the private shelf: what the piece store holds, or is taking, and
// what was read of others, in the cache. All of it is served to members only.
type pieces struct {
	shelf
	held *piece.Store
}

// openPieces opens the private shelf.
func openPieces(s *Storage) (*pieces, error) {
	dir := filepath.Join(s.cfg.Cache, piecesCache)
	store, err := block.Open(filepath.Join(dir, piecesStore))
	if err != nil {
		return nil, err
	}
	p := &pieces{shelf: shelf{s: s, store: store, cache: dir, private: true}, held: s.cfg.Pieces}
	p.shelf.pieces = p
	p.sweepCache()
	return p, nil
}

// Root returns the record of a root that has most of it, for members to be served.
func (p *pieces) Root(root chunk.CID) (best *block.Root, ok bool) {
	for _, r := range p.records(root) {
		if best == nil || r.HaveCount() > best.HaveCount() {
			best = r
		}
	}
	return best, best != nil
}

// mends reports whether a leaf that was found wrong in r will be fetched anew,
// because r is a piece's record and was dropped for it.
func (h *shelf) mends(r *block.Root) bool {
	if h.pieces == nil || r.Info().State == block.Partial {
		return false
	}
	h.pieces.held.Damaged(r.CID())
	now, ok := h.pieces.held.Roots().Root(r.CID())
	return !ok || now != r
}

// besidePiece makes a record in the cache for a piece whose tree is known from a
// take that was cut off; nil if it is not. What that take has is read where it is.
func (f *filler) besidePiece(ctx context.Context) (*block.Root, error) {
	for _, r := range f.on.records(f.root) {
		if tree, nodes, err := treeOf(r); err == nil {
			return f.beginCached(ctx, tree, nodes)
		}
	}
	return nil, nil
}

// SetRepairRate bounds the bytes a second that TakePiece fetches, from wherever.
// 0: no bound.
func (s *Storage) SetRepairRate(bytesPerSecond int64) { s.swarm.SetRepairRate(bytesPerSecond) }

// TakePiece fetches a large piece into the piece store, from those members of
// from that have it and from whom they name. It is durable, and held, when
// TakePiece returns; a piece that is held already is success. Cut off, it leaves
// what has come for the next call to go on with. progress, which may be nil, is
// told now and then how many bytes are here.
//
// Errors: exchange.ErrBusy if it is being taken already, *exchange.NoProviderError,
// piece.ErrNotPiece, and the piece store's own (piece.ErrQuota).
func (s *Storage) TakePiece(ctx context.Context, p piece.Piece, from []peer.ID, progress func(bytes int64)) error {
	return s.take(ctx, p, from, progress, true)
}

// TakePieceNow is TakePiece without SetRepairRate's bound, for a piece whose
// writer waits.
func (s *Storage) TakePieceNow(ctx context.Context, p piece.Piece, from []peer.ID, progress func(bytes int64)) error {
	return s.take(ctx, p, from, progress, false)
}

func (s *Storage) take(ctx context.Context, p piece.Piece, from []peer.ID, progress func(int64), repair bool) error {
	if s.pieces == nil {
		return fmt.Errorf("storage: take %s: %w", p.ID, errors.ErrUnsupported)
	}
	if progress == nil {
		progress = func(int64) {}
	}
	release, err := s.pieces.claim(p.ID)
	if err != nil {
		return fmt.Errorf("storage: take: %w", err)
	}
	defer release()
	defer s.pieces.fillers.hold(p.ID)()
	t := &taking{pieces: s.pieces, piece: p, from: infos(from), repair: repair, progress: progress}
	if err := t.run(ctx); err != nil {
		return fmt.Errorf("storage: take %s: %w", p.ID, err)
	}
	return nil
}

// infos makes candidates of peers whose addresses the host knows.
func infos(ids []peer.ID) []peer.AddrInfo {
	out := make([]peer.AddrInfo, 0, len(ids))
	for _, id := range ids {
		out = append(out, peer.AddrInfo{ID: id})
	}
	return out
}

// taking is one running TakePiece.
type taking struct {
	*pieces
	piece    piece.Piece
	from     []peer.AddrInfo
	repair   bool
	progress func(int64)
	root     *block.Root // once the tree is known
}

func (t *taking) run(ctx context.Context) error {
	if t.held.Has(t.piece.ID) {
		return nil
	}
	err := t.complete(ctx)
	if err != nil && t.root != nil { // FinishLarge may have failed, too
		err = errors.Join(err, t.held.StopLarge(t.root, false))
	}
	return err
}

// complete fetches what is missing and makes it durable.
func (t *taking) complete(ctx context.Context) error {
	if err := t.resume(ctx); err != nil {
		return err
	}
	if err := t.fetch(ctx); err != nil {
		return err
	}
	err := t.held.FinishLarge(ctx, t.root)
	if errors.Is(err, block.ErrChanged) { // somebody touched it meanwhile; once is forgiven
		if err := recheck(ctx, t.root, t.progress); err != nil {
			return err
		}
		if err := t.fetch(ctx); err != nil {
			return err
		}
		err = t.held.FinishLarge(ctx, t.root)
	}
	if err == nil {
		t.uncache()
	}
	return err
}

// resume begins with what is on this disk, if the tree is among it: an earlier
// take's, what was read of the piece, or a share of the same file.
func (t *taking) resume(ctx context.Context) error {
	have := t.records(t.piece.ID)
	if r, ok := t.s.store.Root(t.piece.ID); ok {
		have = append(have, r)
	}
	for _, r := range have {
		tree, nodes, err := treeOf(r)
		if err != nil {
			continue // damaged: the network has it
		}
		if _, err := t.begin(ctx, tree, nodes); err != nil {
			return err
		}
		break
	}
	for _, r := range have {
		if t.root == nil || r == t.root || t.root.HaveCount() == t.root.Leaves() {
			continue
		}
		missing := func(i int) bool { return !t.root.Has(i) && r.Has(i) }
		if _, err := copyLeaves(ctx, r, t.root, missing, t.progress); err != nil {
			return err
		}
	}
	return nil
}

// begin makes the piece store's partial, or goes on with the one it has.
func (t *taking) begin(ctx context.Context, tree *chunk.Tree, nodes [][]byte) (*block.Root, error) {
	if tree.Entries[0].Kind != chunk.File || tree.Size != t.piece.Size {
		return nil, fmt.Errorf("%w: a %s of %d bytes, not a file of %d", piece.ErrNotPiece, tree.Entries[0].Kind, tree.Size, t.piece.Size)
	}
	r, err := t.held.BeginLarge(tree, nodes)
	if err != nil {
		return nil, err
	}
	t.root = r
	if !r.Trusted() {
		if err := recheck(ctx, r, t.progress); err != nil {
			return nil, err
		}
	}
	t.fillers.tell(t.piece.ID)
	return r, nil
}

func (t *taking) fetch(ctx context.Context) error {
	_, err := t.s.swarm.Fetch(ctx, exchange.Job{
		Root: t.piece.ID, From: t.from, Into: t.root, Begin: t.begin, Private: true, Repair: t.repair,
		Timeout:  TimeoutDefault,
		Progress: func(p exchange.Progress) { t.progress(p.Done) },
	})
	return err
}

// uncache drops what was read of the piece before it was held, unless somebody
// reads it still; then it goes when the space is needed.
func (t *taking) uncache() {
	r, ok := t.store.Root(t.piece.ID)
	if !ok || t.fillers.opened(t.piece.ID) {
		return
	}
	if err := t.dropCached(t.piece.ID, filepath.Dir(r.Info().Path)); err != nil {
		t.s.log.Warn("a piece stays in the cache", "piece", t.piece.ID, "err", err)
	}
}
