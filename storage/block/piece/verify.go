package piece

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/shoal-os/shoal/storage/block/pack"
	"github.com/shoal-os/shoal/storage/chunk"
)

// Verify reads all of a held piece from the disk, its frame's head too. ErrDamaged: it is held no more. ErrNotFound: it
// was not.
func (s *Store) Verify(ctx context.Context, id chunk.CID) error {
	if err := s.verifyFrame(id); err != nil || id.IsRaw() {
		return err
	}
	x, err := s.OpenLarge(id)
	if err != nil {
		return err
	}
	defer x.Close()
	for i := range x.leaves {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := x.read(nil, i, 0); err != nil {
			return err
		}
	}
	return nil
}

// verifyFrame verifies the frame of a piece, head and data.
func (s *Store) verifyFrame(id chunk.CID) error {
	if _, err := s.readFrame(id, nil); err != nil {
		return err
	}
	s.mu.Lock()
	l, ok := s.holds(id)
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("piece: %s: %w", id, ErrNotFound)
	}
	h, err := s.packs.Head(l.at)
	if err == nil && h != (pack.Head{ID: id, Length: l.data, Extent: l.size}) {
		err = pack.ErrBad
	}
	if err != nil && !isGone(err) { // gone: compaction moved it, which reads it too
		s.damage(id, l, err)
		return fmt.Errorf("piece: %s: %w: %w", id, ErrDamaged, err)
	}
	return nil
}

// Hash gives SHA-256(nonce || the bytes [off, off+n) of a held piece): what an audit asks for. What is read is verified
// first. Errors: as Verify; a range that is not in the piece.
func (s *Store) Hash(id chunk.CID, nonce []byte, off, n int64) (sum [32]byte, err error) {
	p, ok := s.Get(id)
	if !ok {
		return sum, fmt.Errorf("piece: %s: %w", id, ErrNotFound)
	}
	if off < 0 || n < 0 || off > p.Size || n > p.Size-off {
		return sum, fmt.Errorf("piece: %s has %d bytes: range %d+%d", id, p.Size, off, n)
	}
	h := sha256.New()
	h.Write(nonce)
	if id.IsRaw() {
		data, err := s.readFrame(id, nil)
		if err != nil {
			return sum, err
		}
		h.Write(data[off : off+n])
		return [32]byte(h.Sum(nil)), nil
	}
	x, err := s.OpenLarge(id)
	if err != nil {
		return sum, err
	}
	defer x.Close()
	if _, err := io.Copy(h, io.NewSectionReader(x, off, n)); err != nil {
		return sum, err
	}
	return [32]byte(h.Sum(nil)), nil
}
