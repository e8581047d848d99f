package repair

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/tree"
)

// smallKept is how many small pieces one open file keeps in memory. A file has one at most, its end.
const smallKept = 1

// Reader reads a file over its pieces. ReadAt is safe for concurrent use. Close it.
type Reader struct {
	r      *Repair
	ctx    context.Context
	cancel context.CancelFunc
	file   piece.File
	starts []int64 // where each piece begins

	mu     sync.Mutex
	closed bool
	large  map[int]PieceReader
	small  map[int][]byte
}

// Open opens a file: what is here is read in place, what is not is fetched from members as it is read. Nothing is fetched
// until then. ctx bounds all reads.
func (r *Repair) Open(ctx context.Context, f piece.File) (tree.Reader, error) {
	return r.OpenFile(ctx, f)
}

// OpenFile is Open with its own type.
func (r *Repair) OpenFile(ctx context.Context, f piece.File) (*Reader, error) {
	x := &Reader{r: r, file: f, large: map[int]PieceReader{}, small: map[int][]byte{}}
	at := int64(0)
	for _, p := range f.Pieces {
		x.starts = append(x.starts, at)
		if p.Size <= 0 || p.Size > piece.PieceMax {
			return nil, fmt.Errorf("repair: open %s: a piece of %d bytes", f.Root, p.Size)
		}
		at += p.Size
	}
	if at != f.Size {
		return nil, fmt.Errorf("repair: open %s: pieces of %d bytes for a file of %d", f.Root, at, f.Size)
	}
	x.ctx, x.cancel = context.WithCancel(ctx)
	return x, nil
}

// Size is the file's length in bytes.
func (x *Reader) Size() int64 { return x.file.Size }

// ReadAt reads len(p) bytes at an offset, or fewer with io.EOF at the end. Every byte was verified.
func (x *Reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("repair: read: negative offset")
	}
	done := 0
	for done < len(p) {
		if off >= x.file.Size {
			return done, io.EOF
		}
		i := x.pieceAt(off)
		from := off - x.starts[i]
		n := min(int64(len(p)-done), x.file.Pieces[i].Size-from)
		m, err := x.readPiece(i, p[done:done+int(n)], from)
		done, off = done+m, off+int64(m)
		if err != nil && !(errors.Is(err, io.EOF) && int64(m) == n) {
			return done, err
		}
		if int64(m) < n {
			return done, io.ErrUnexpectedEOF
		}
	}
	return done, nil
}

// pieceAt is the piece in which an offset lies.
func (x *Reader) pieceAt(off int64) int {
	lo, hi := 0, len(x.starts)
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; x.starts[mid] <= off {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

func (x *Reader) readPiece(i int, p []byte, from int64) (int, error) {
	piece := x.file.Pieces[i]
	if isSmall(piece) {
		data, err := x.smallPiece(i)
		if err != nil {
			return 0, err
		}
		return copy(p, data[from:]), nil
	}
	large, err := x.largePiece(i)
	if err != nil {
		return 0, err
	}
	return large.ReadAt(p, from)
}

func isSmall(p piece.Piece) bool { return p.ID.IsRaw() && p.Size <= piece.SmallMax }

// smallPiece returns the bytes of a small piece.
func (x *Reader) smallPiece(i int) ([]byte, error) {
	x.mu.Lock()
	data, ok := x.small[i]
	x.mu.Unlock()
	if ok {
		return data, nil
	}
	p := x.file.Pieces[i]
	data, err := x.r.small(x.ctx, p, make([]byte, 0, p.Size))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != p.Size {
		return nil, fmt.Errorf("repair: piece %s has %d bytes, the name says %d", p.ID, len(data), p.Size)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.small) >= smallKept {
		clear(x.small)
	}
	x.small[i] = data
	return data, nil
}

// largePiece opens a large piece, once.
func (x *Reader) largePiece(i int) (PieceReader, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil, errors.New("repair: read: the file is closed")
	}
	if l := x.large[i]; l != nil {
		return l, nil
	}
	p := x.file.Pieces[i]
	x.r.mu.Lock()
	from := x.r.planner.Sources(p.ID)
	x.r.mu.Unlock()
	l, err := x.r.cfg.Fetch.OpenPiece(x.ctx, p, from)
	if err != nil {
		return nil, fmt.Errorf("repair: piece %s: %w", p.ID, err)
	}
	x.large[i] = l
	return l, nil
}

// Close ends all reads.
func (x *Reader) Close() error {
	x.cancel()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	var err error
	for _, l := range x.large {
		err = errors.Join(err, l.Close())
	}
	clear(x.large)
	clear(x.small)
	return err
}
