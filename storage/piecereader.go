package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
)

// PieceReader reads one large piece: from the piece store while that holds it,
// else fetched as it is read, 8 MiB ahead. Every byte is verified. It is safe
// for concurrent use; reads that fetch take turns. Close it.
type PieceReader struct {
	s     *Storage
	piece piece.Piece
	from  []peer.AddrInfo
	ctx   context.Context // ends with Close, and with it every read
	stop  context.CancelFunc

	mu      sync.Mutex
	large   *piece.Large // nil when it is not held, or no longer
	content *Content     // of what is fetched; nil while nothing is
	file    *File
}

// OpenPiece opens a large piece that this peer holds, or that members of from
// have. It returns when the piece's tree is here. What is fetched goes into the
// cache; it is not announced, and served to members only.
//
// Errors: *exchange.NoProviderError, piece.ErrNotPiece, and the disk's own.
func (s *Storage) OpenPiece(ctx context.Context, p piece.Piece, from []peer.ID) (*PieceReader, error) {
	if s.pieces == nil {
		return nil, fmt.Errorf("storage: open %s: %w", p.ID, errors.ErrUnsupported)
	}
	r := &PieceReader{s: s, piece: p, from: infos(from)}
	r.ctx, r.stop = context.WithCancel(s.ctx)
	large, err := s.pieces.held.OpenLarge(p.ID)
	if err == nil {
		r.large = large
		return r, nil
	}
	if _, err := r.fetched(ctx); err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

// fetched is the file that fetches what is read, opening it if need be.
func (r *PieceReader) fetched(ctx context.Context) (*File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if r.file != nil {
		return r.file, nil
	}
	c, err := r.s.pieces.open(ctx, chunk.Link{Root: r.piece.ID}, r.from, OpenOptions{})
	if err != nil {
		return nil, err
	}
	if t := c.Tree(); t.Size != r.piece.Size || t.Entries[0].Kind != chunk.File {
		c.Close()
		return nil, fmt.Errorf("storage: open %s: %w: a %s of %d bytes", r.piece.ID, piece.ErrNotPiece, t.Entries[0].Kind, t.Size)
	}
	f, err := c.OpenFile(r.ctx, 0)
	if err != nil {
		c.Close()
		return nil, err
	}
	r.content, r.file = c, f
	return f, nil
}

// Size is the piece's length in bytes.
func (r *PieceReader) Size() int64 { return r.piece.Size }

// ReadAt reads len(b) bytes at an offset, or fewer with io.EOF at the end. What
// the piece store turns out not to have whole is fetched.
func (r *PieceReader) ReadAt(b []byte, offset int64) (int, error) {
	r.mu.Lock()
	large := r.large
	r.mu.Unlock()
	done := 0
	if large != nil {
		n, err := large.ReadAt(b, offset)
		if err == nil || errors.Is(err, io.EOF) || r.ctx.Err() != nil {
			return n, err
		}
		r.s.log.Warn("a piece cannot be read here, and is fetched", "piece", r.piece.ID, "err", err)
		r.forgo(large)
		done = n
	}
	f, err := r.fetched(r.ctx)
	if err != nil {
		return done, err
	}
	n, err := f.ReadAt(b[done:], offset+int64(done))
	return done + n, err
}

// forgo has later reads fetch. The piece stays open for those under way.
func (r *PieceReader) forgo(large *piece.Large) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.large == large {
		r.large = nil
		context.AfterFunc(r.ctx, func() { _ = large.Close() })
	}
}

// Close ends the reads.
func (r *PieceReader) Close() error {
	r.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	if r.large != nil {
		err = r.large.Close()
		r.large = nil
	}
	if r.file != nil {
		err = errors.Join(err, r.file.Close())
		r.content.Close()
		r.file, r.content = nil, nil
	}
	return err
}
