package piece

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/shoal-os/shoal/storage/block/pack"
	"github.com/shoal-os/shoal/storage/chunk"
)

// readTries is how often a frame is looked up again because compaction moved it while it was read.
const readTries = 8

// checkSmall verifies that bytes are a small piece of that name.
func checkSmall(id chunk.CID, data []byte) error {
	if !id.IsRaw() || len(data) == 0 || len(data) > SmallMax {
		return fmt.Errorf("piece: %s with %d bytes: %w", id, len(data), ErrNotPiece)
	}
	if chunk.SumRaw(data) != id {
		return fmt.Errorf("piece: %s: other bytes: %w", id, ErrNotPiece)
	}
	return nil
}

// ReadSmall appends a small piece, held or cached, to buf. It is verified on every read. ErrNotFound: it is neither.
// ErrDamaged: it was held, and is no more.
func (s *Store) ReadSmall(id chunk.CID, buf []byte) ([]byte, error) {
	if !id.IsRaw() {
		return buf, fmt.Errorf("piece: %s: %w", id, ErrNotFound)
	}
	out, err := s.readFrame(id, buf)
	if errors.Is(err, ErrNotFound) {
		return s.cache.read(id, buf)
	}
	return out, err
}

// readFrame appends the data of a held piece's frame: a leaf, or a node.
func (s *Store) readFrame(id chunk.CID, buf []byte) (out []byte, err error) {
	var l loc
	for range readTries {
		s.mu.Lock()
		at, ok := s.holds(id)
		s.mu.Unlock()
		if !ok {
			return buf, fmt.Errorf("piece: %s: %w", id, ErrNotFound)
		}
		l = at
		out, err = s.packs.Read(pack.Head{ID: id, Length: l.data, Extent: l.size}, l.at, buf)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if errors.Is(err, pack.ErrBad) || errors.Is(err, fs.ErrNotExist) {
		s.damage(id, l, err)
		return buf, fmt.Errorf("piece: %s: %w: %w", id, ErrDamaged, err)
	}
	if err != nil {
		return buf, fmt.Errorf("piece: %s: %w", id, err)
	}
	return out, nil
}

// damage holds a piece no more whose bytes at l are not what they were.
func (s *Store) damage(id chunk.CID, l loc, cause error) {
	s.mu.Lock()
	now, ok := s.holds(id)
	if !ok || now != l {
		s.mu.Unlock() // it was moved, repaired or set aside meanwhile
		return
	}
	s.setAside(id, aside{damaged, s.now().Unix()})
	view := s.views[id].Value()
	delete(s.views, id)
	s.mu.Unlock()
	if view != nil {
		view.Withdraw()
	}
	s.log.Warn("pool files: a piece is damaged on this disk", "piece", id, "err", cause)
	if err := s.marks.sync(); err != nil {
		s.log.Warn("pool files: the damage could not be noted", "err", err)
	}
}

// Damaged tells the store that somebody who read a piece through Roots found it wrong. It is held no more.
func (s *Store) Damaged(id chunk.CID) {
	s.mu.Lock()
	l, ok := s.holds(id)
	s.mu.Unlock()
	if ok {
		s.damage(id, l, ErrDamaged)
	}
}
