package pack

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/shoal-os/shoal/storage/folder"
)

// openMax is how many packs are kept open for reading.
const openMax = 64

// ErrBad is the error for a frame that is not what it was.
var ErrBad = errors.New("damaged frame")

// Read appends the data of a frame to buf, verified. ErrBad says that it is damaged; fs.ErrNotExist that the pack is
// gone, perhaps since the frame was moved.
func (l *Log) Read(h Head, at Loc, buf []byte) ([]byte, error) {
	start := len(buf)
	buf = slices.Grow(buf, int(h.Length))[:start+int(h.Length)]
	if err := l.readAt(at.Pack, buf[start:], int64(at.Off)+headSize); err != nil {
		return buf[:start], err
	}
	if sha256.Sum256(buf[start:]) != h.ID.Sum {
		return buf[:start], fmt.Errorf("pack: %s: %w", h.ID, ErrBad)
	}
	return buf, nil
}

// Raw appends the data of a frame to buf as it is, damaged or not.
func (l *Log) Raw(h Head, at Loc, buf []byte) ([]byte, error) {
	start := len(buf)
	buf = slices.Grow(buf, int(h.Length))[:start+int(h.Length)]
	return buf, l.readAt(at.Pack, buf[start:], int64(at.Off)+headSize)
}

// Head reads the head of a frame.
func (l *Log) Head(at Loc) (Head, error) {
	var b [headSize]byte
	if err := l.readAt(at.Pack, b[:], int64(at.Off)); err != nil {
		return Head{}, err
	}
	h, ok := parseHead(b[:])
	if !ok {
		return Head{}, fmt.Errorf("pack: %w", ErrBad)
	}
	return h, nil
}

func (l *Log) readAt(num uint32, p []byte, off int64) error {
	h, err := l.handles.acquire(num)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	defer l.handles.release(h)
	if _, err := h.ReadAt(p, off); err != nil {
		if errors.Is(err, io.EOF) && len(p) == 0 {
			return nil
		}
		return fmt.Errorf("pack: %w: %w", ErrBad, err)
	}
	return nil
}

// Pack is one that is not written to.
type Pack struct {
	Num  uint32
	Size int64
}

// Packs lists the packs that are not written to, oldest first.
func (l *Log) Packs() []Pack {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Pack, 0, len(l.packs))
	for num, p := range l.packs {
		out = append(out, Pack{num, p.size})
	}
	slices.SortFunc(out, func(a, b Pack) int { return int(int64(a.Num) - int64(b.Num)) })
	return out
}

// Active is the number of the pack that is written to, 0 if none is.
func (l *Log) Active() uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.active == nil {
		return 0
	}
	return l.active.num
}

// Frames lists the frames of a pack that is not written to.
func (l *Log) Frames(num uint32) ([]Frame, error) {
	l.mu.Lock()
	p, ok := l.packs[num]
	l.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("pack: no pack %d", num)
	}
	var out []Frame
	if entries, err := l.readIndex(num, p.size); err == nil {
		for _, e := range entries {
			out = append(out, Frame{Head: e.Head, Off: e.off})
		}
		return out, nil
	}
	h, err := l.handles.acquire(num)
	if err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	defer l.handles.release(h)
	scan(h, p.size, func(f Frame) { out = append(out, f) })
	return out, nil
}

// Keep writes the index of a pack anew, of the frames alone that are to be found at the next start. All others are gone
// then, unless the index is lost.
func (l *Log) Keep(num uint32, keep []Frame) error {
	l.mu.Lock()
	p, ok := l.packs[num]
	l.mu.Unlock()
	if !ok {
		return nil
	}
	entries := make([]entry, 0, len(keep))
	for _, f := range keep {
		entries = append(entries, entry{f.Head, f.Off})
	}
	if err := l.writeIndex(num, p.size, entries); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p, ok := l.packs[num]; ok {
		l.bytes.Add(int64((len(entries) - p.frames) * entrySize))
		p.frames = len(entries)
		l.packs[num] = p
	}
	return nil
}

// Remove deletes a pack that is not written to, once nobody reads from it.
func (l *Log) Remove(num uint32) error {
	l.mu.Lock()
	p, ok := l.packs[num]
	delete(l.packs, num)
	l.mu.Unlock()
	if !ok {
		return nil
	}
	l.bytes.Add(-p.cost())
	if err := l.handles.remove(num); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}

// handles are the packs that are open for reading.
type handles struct {
	log  *Log
	mu   sync.Mutex
	open map[uint32]*handle
}

type handle struct {
	folder.Reader
	num  uint32
	refs int
	gone bool // to be removed when the last reader is done
}

func (s *handles) acquire(num uint32) (*handle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.open[num]; h != nil {
		h.refs++
		return h, nil
	}
	r, err := s.log.cfg.FS.Open(s.log.name(num, packSuffix))
	if err != nil {
		return nil, err
	}
	if s.open == nil {
		s.open = map[uint32]*handle{}
	}
	for n, h := range s.open {
		if len(s.open) < openMax {
			break
		}
		if h.refs == 0 {
			_ = h.Close()
			delete(s.open, n)
		}
	}
	h := &handle{Reader: r, num: num, refs: 1}
	s.open[num] = h
	return h, nil
}

func (s *handles) release(h *handle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.refs--; h.refs > 0 {
		return
	}
	if h.gone || s.open[h.num] != h {
		_ = h.Close()
	}
	if h.gone {
		_ = s.log.unlink(h.num) // or the owner finds it at the next start, unwanted
	}
}

// remove unlinks a pack now or when its last reader is done: not every system can while it is open.
func (s *handles) remove(num uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.open[num]
	delete(s.open, num)
	if h != nil && h.refs > 0 {
		h.gone = true
		return nil
	}
	if h != nil {
		_ = h.Close()
	}
	return s.log.unlink(num)
}

func (s *handles) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for num, h := range s.open {
		if h.refs == 0 {
			_ = h.Close()
		}
		delete(s.open, num)
	}
}
