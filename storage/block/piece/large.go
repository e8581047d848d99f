package piece

import (
	"fmt"
	"io"
	"sync"
	"weak"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/folder"
)

// viewsMax is how many roots may be remembered though nobody reads them any more.
const viewsMax = 256

// Roots gives the roots of large pieces: those that are being fetched, with a record, and those that are held. It lists
// the former only; Root finds both. Whoever reads from one that is held verifies, and calls Damaged.
func (s *Store) Roots() *block.Store { return s.roots }

// view is the root of a held large piece.
func (s *Store) view(id chunk.CID) (*block.Root, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.holds(id)
	if !ok || id.IsRaw() {
		return nil, false
	}
	if r := s.views[id].Value(); r != nil {
		return r, true
	}
	r := block.NewKept(s.kept(id, int64(l.size)))
	s.addView(id, r)
	return r, true
}

// addView remembers the root of a held piece for as long as somebody has it. The caller holds mu.
func (s *Store) addView(id chunk.CID, r *block.Root) {
	if len(s.views) >= viewsMax {
		for id, w := range s.views {
			if w.Value() == nil {
				delete(s.views, id)
			}
		}
	}
	s.views[id] = weak.Make(r)
}

func (s *Store) kept(id chunk.CID, size int64) block.Kept {
	return block.Kept{Root: id, Path: s.path(largeName(id)), Size: size, Node: func() ([]byte, error) {
		return s.readFrame(id, nil)
	}}
}

// Large reads one large piece. Each leaf is verified on each read; the last one is kept. It is safe for concurrent use.
type Large struct {
	s      *Store
	id     chunk.CID
	at     loc
	leaves []chunk.Edge

	mu   sync.Mutex
	file folder.Reader // nil once closed
	buf  *[]byte       // of the leaf that was read last
	leaf int           // which that is, -1 none
	n    int           // how long it is
}

// OpenLarge opens a large piece that is held. ErrNotFound: it is not. It can be read until Close, whatever becomes of
// the piece meanwhile.
func (s *Store) OpenLarge(id chunk.CID) (*Large, error) {
	if id.IsRaw() {
		return nil, fmt.Errorf("piece: %s: %w", id, ErrNotFound)
	}
	node, err := s.readFrame(id, nil)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	l, ok := s.holds(id)
	s.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("piece: %s: %w", id, ErrNotFound)
	}
	n, err := chunk.DecodeNode(node)
	if err != nil {
		return nil, fmt.Errorf("piece: %s: %w", id, err)
	}
	f, err := s.fs.Open(largeName(id))
	if isGone(err) {
		s.damage(id, l, err)
		return nil, fmt.Errorf("piece: %s: %w: %w", id, ErrDamaged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("piece: %s: %w", id, err)
	}
	return &Large{s: s, id: id, at: l, leaves: n.Edges, file: f, leaf: -1}, nil
}

// Size is the piece's size in bytes.
func (x *Large) Size() int64 { return int64(x.at.size) }

// ReadAt implements io.ReaderAt. ErrDamaged: the piece is held no more.
func (x *Large) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("piece: %s: offset %d", x.id, off)
	}
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if at >= x.Size() {
			return done, io.EOF
		}
		n, err := x.read(p[done:], int(at/chunk.LeafSize), int(at%chunk.LeafSize))
		if done += n; err != nil {
			return done, err
		}
	}
	return done, nil
}

// read copies what p takes of a leaf from an offset in it.
func (x *Large) read(p []byte, leaf, from int) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.load(leaf); err != nil {
		return 0, err
	}
	return copy(p, (*x.buf)[from:x.n]), nil
}

// load brings a leaf into memory. The caller holds mu.
func (x *Large) load(leaf int) error {
	if x.file == nil {
		return fmt.Errorf("piece: %s: %w", x.id, ErrClosed)
	}
	if x.leaf == leaf {
		return nil
	}
	if x.buf == nil {
		x.buf = leafBuffers.Get().(*[]byte)
	}
	e := &x.leaves[leaf]
	x.leaf, x.n = -1, int(e.Size)
	data := (*x.buf)[:x.n]
	_, err := x.file.ReadAt(data, int64(leaf)*chunk.LeafSize)
	if err == io.EOF {
		err = nil // the sum says whether it is whole
		clear(data[x.n-1:])
		_, err = x.file.ReadAt(data, int64(leaf)*chunk.LeafSize)
	}
	if err == nil && chunk.SumRaw(data) != e.CID {
		err = fmt.Errorf("leaf %d has other bytes", leaf)
	}
	if err != nil {
		x.s.damage(x.id, x.at, err)
		return fmt.Errorf("piece: %s: %w: %w", x.id, ErrDamaged, err)
	}
	x.leaf = leaf
	return nil
}

// Close releases the file.
func (x *Large) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.file == nil {
		return nil
	}
	if x.buf != nil {
		leafBuffers.Put(x.buf)
		x.buf = nil
	}
	err := x.file.Close()
	x.file = nil
	return err
}
