package piece

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/folder"
)

const (
	// changesMax is how many changes are remembered; whoever is further behind takes All.
	changesMax  = 1 << 15
	changesFile = "changes"
	changesNew  = "changes.tmp"
	// changesOnce is how many changes one call gives.
	changesOnce = 8192

	changesMagic = "shC\x01"
	changesHead  = 4 + 16 + 8 + 8 + 4
	changeSize   = 1 + 1 + 32 + 4
)

// changes is the end of the series of what came and went. It survives an orderly end; after any other the epoch is a
// new one.
type changes struct {
	epoch [16]byte
	next  uint64 // the number of the change after the last
	last  []Change
	wake  chan struct{} // nil when nobody waits
}

// changed notes that a piece came to be held, or is no longer. The caller holds mu.
func (s *Store) changed(p Piece, added bool) {
	c := &s.changes
	if len(c.last) >= 2*changesMax {
		c.last = append(c.last[:0], c.last[changesMax:]...)
	}
	c.last = append(c.last, Change{p, added})
	c.next++
	if c.wake != nil {
		close(c.wake)
		c.wake = nil
	}
}

// Epoch names the series of changes: numbers of another one mean nothing here. It is the same until Close, and after
// the next Open unless the store was not closed, or found something lost.
func (s *Store) Epoch() [16]byte { return s.changes.epoch }

// Changed returns a channel that is closed at the next change. It must be taken before Changes is called.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes.wake == nil {
		s.changes.wake = make(chan struct{})
	}
	return s.changes.wake
}

// Changes returns what changed after a number that an earlier call returned, in order, at most some thousands, and the
// number to ask with next. The first number is 0. With ok false that number is of another epoch or too long ago: then
// take All, and after it the changes since next, which may repeat what All had.
func (s *Store) Changes(after uint64) (list []Change, next uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.changes
	if after > c.next || c.next-after > uint64(len(c.last)) {
		return nil, c.next, false
	}
	from := c.last[len(c.last)-int(c.next-after):]
	list = append(list, from[:min(len(from), changesOnce)]...)
	return list, after + uint64(len(list)), true
}

// openChanges goes on with the series that an orderly end saved, or begins a new one. The file goes before anything can
// change: a crash from here on begins a new epoch.
func (s *Store) openChanges(whole bool) error {
	data, err := folder.ReadFile(s.fs, changesFile, math.MaxInt64)
	if err == nil && whole {
		whole = s.changes.decode(data, s.sums.pieces)
	}
	if whole = whole && err == nil; !whole {
		s.changes = changes{}
		_, _ = rand.Read(s.changes.epoch[:]) // never fails
		// What is held was never told: whoever asks from 0 has to take All.
		s.changes.next = 1
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := s.fs.Remove(changesFile); err != nil {
		return err
	}
	return s.fs.Sync("")
}

func (s *Store) saveChanges() error {
	f, err := s.fs.Create(changesNew)
	if err != nil {
		return err
	}
	_, err = f.Write(s.changes.encode(s.sums.pieces))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("changes: %w", errors.Join(err, s.fs.Remove(changesNew)))
	}
	return errors.Join(s.fs.Rename(changesNew, changesFile), s.fs.Sync(""))
}

func (c *changes) encode(pieces int) []byte {
	last := c.last[max(0, len(c.last)-changesMax):]
	b := make([]byte, 0, changesHead+changeSize*len(last)+4)
	b = append(append(b, changesMagic...), c.epoch[:]...)
	b = binary.BigEndian.AppendUint64(b, c.next)
	b = binary.BigEndian.AppendUint64(b, uint64(pieces))
	b = binary.BigEndian.AppendUint32(b, uint32(len(last)))
	for _, x := range last {
		added := byte(0)
		if x.Added {
			added = 1
		}
		b = append(append(b, added, byte(x.ID.Codec)), x.ID.Sum[:]...)
		b = binary.BigEndian.AppendUint32(b, uint32(x.Size))
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// decode reads what encode made when so many pieces were held, and nothing else.
func (c *changes) decode(b []byte, pieces int) bool {
	n := len(b) - changesHead - 4
	if n < 0 || n%changeSize != 0 || n/changeSize > changesMax || string(b[:4]) != changesMagic {
		return false
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(b[len(body):]) ||
		binary.BigEndian.Uint64(b[28:]) != uint64(pieces) || int(binary.BigEndian.Uint32(b[36:])) != n/changeSize {
		return false
	}
	c.epoch, c.next, c.last = [16]byte(b[4:20]), binary.BigEndian.Uint64(b[20:]), nil
	for x := body[changesHead:]; len(x) > 0; x = x[changeSize:] {
		p := Piece{chunk.CID{Codec: chunk.Codec(x[1]), Sum: [32]byte(x[2:34])}, int64(binary.BigEndian.Uint32(x[34:]))}
		c.last = append(c.last, Change{p, x[0] == 1})
	}
	return true
}
