package piece

import (
	"errors"
	"fmt"
	"sync"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/block/pack"
	"github.com/shoal-os/shoal/storage/chunk"
)

// Batch is what is added together, at the cost of one flush of the disk. What is added, or was there already, is locked:
// nothing lets go of it until Close. It is safe for concurrent use; Add and AddSmall run side by side.
type Batch struct {
	s     *Store
	syncs chan struct{} // bounds the files that are synced at once

	mu     sync.Mutex
	closed bool
	fails  uint64 // the packs' when the first frame was added
	frames bool   // some were
	locked map[chunk.CID]bool
	small  map[chunk.CID]loc
	large  map[chunk.CID]*cut
}

// cut is a large piece that was written and is not committed.
type cut struct {
	temp   string
	size   int64
	node   []byte
	synced chan struct{} // closed once the file is durable, or err says why not
	err    error
	named  bool // it has its own name
}

const syncsMax = 4

// NewBatch begins a batch. Close it.
func (s *Store) NewBatch() *Batch {
	return &Batch{
		s: s, syncs: make(chan struct{}, syncsMax),
		locked: map[chunk.CID]bool{}, small: map[chunk.CID]loc{}, large: map[chunk.CID]*cut{},
	}
}

// AddSmall adds a small piece. The bytes are verified: ErrNotPiece if they are others. ErrQuota: there is no room.
// Adding what is held already costs nothing; what is set aside is taken back by Commit.
func (b *Batch) AddSmall(id chunk.CID, data []byte) error {
	if err := checkSmall(id, data); err != nil {
		return err
	}
	return b.addSmall(id, data)
}

// addSmall adds a small piece that was verified.
func (b *Batch) addSmall(id chunk.CID, data []byte) error {
	here, err := b.lock(id)
	if err != nil {
		return err
	}
	// What lies here is read, since good bytes must not be given up for bad ones.
	if here && b.s.intact(id, data) {
		return nil
	}
	cost := pack.Cost(len(data))
	if err := b.s.reserve(cost); err != nil {
		return err
	}
	defer b.s.unreserve(cost)
	fails := b.s.packs.Fails()
	l, err := b.s.append(id, data, int64(len(data)))
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.began(fails)
	if old, ok := b.small[id]; ok { // another goroutine was as fast
		b.s.drop(old)
	}
	b.small[id] = l
	return nil
}

// lock locks a piece for the batch and reports whether it need not be added: it is on the disk, or in this batch.
func (b *Batch) lock(id chunk.CID) (here bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false, fmt.Errorf("piece: batch: %w", ErrClosed)
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if !b.locked[id] {
		b.locked[id] = true
		b.s.lock(id)
	}
	if _, ok := b.small[id]; ok {
		return true, nil
	}
	if b.large[id] != nil {
		return true, nil
	}
	return b.s.index.has(id) && b.s.aside[id].why != damaged, nil
}

// intact reports whether a small piece that is on the disk has these bytes still, or will be committed with them.
func (s *Store) intact(id chunk.CID, data []byte) bool {
	s.mu.Lock()
	l, ok := s.index.get(id)
	away := s.aside[id].why != ""
	s.mu.Unlock()
	if !ok {
		return true // in the batch
	}
	if !away {
		_, err := s.readFrame(id, make([]byte, 0, len(data)))
		return err == nil
	}
	_, err := s.packs.Read(pack.Head{ID: id, Length: l.data, Extent: l.size}, l.at, make([]byte, 0, len(data)))
	if err != nil {
		s.mu.Lock()
		if _, away := s.aside[id]; away {
			s.setAside(id, aside{damaged, s.now().Unix()})
		}
		s.mu.Unlock()
	}
	return err == nil
}

// began notes that a frame was added when the packs had had so many failures. The caller holds mu.
func (b *Batch) began(fails uint64) {
	if !b.frames || fails < b.fails {
		b.frames, b.fails = true, fails
	}
}

// append writes a frame, which is pending until settle or drop.
func (s *Store) append(id chunk.CID, data []byte, size int64) (loc, error) {
	s.appending.RLock()
	defer s.appending.RUnlock()
	at, err := s.packs.Append(pack.Head{ID: id, Length: uint32(len(data)), Extent: uint32(size)}, data)
	if err != nil {
		return loc{}, fmt.Errorf("piece: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending[at.Pack]++
	return loc{at, uint32(len(data)), uint32(size)}, nil
}

// drop ends the waiting of a frame that nobody will name.
func (s *Store) drop(l loc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(l)
	s.stale[l.at.Pack] = true
}

// settle ends the waiting of a frame: it is in the index now, or waste. The caller holds mu.
func (s *Store) settle(l loc) {
	if s.pending[l.at.Pack]--; s.pending[l.at.Pack] <= 0 {
		delete(s.pending, l.at.Pack)
	}
}

// Commit makes durable what was added: it is held when Commit returns, and stays locked. After an error none of what
// was added since the last Commit need be held, and it can be tried again only after adding it to another batch.
func (b *Batch) Commit() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return fmt.Errorf("piece: commit: %w", ErrClosed)
	}
	if len(b.large) > 0 {
		b.s.naming.Lock()
		defer b.s.naming.Unlock()
	}
	nodes, err := b.commitFiles()
	if err == nil && b.frames {
		err = b.s.packs.Sync(b.fails)
	}
	if err != nil {
		for _, l := range nodes {
			b.s.drop(l)
		}
		return fmt.Errorf("piece: commit: %w", err)
	}
	if err := b.hold(nodes); err != nil {
		return fmt.Errorf("piece: commit: %w", err)
	}
	if err := b.s.marks.sync(); err != nil {
		return fmt.Errorf("piece: commit: %w", err)
	}
	return nil
}

// commitFiles puts the large pieces under their names, durably, and then appends their nodes.
func (b *Batch) commitFiles() (nodes map[chunk.CID]loc, err error) {
	if len(b.large) == 0 {
		return nil, nil
	}
	for id, c := range b.large {
		if <-c.synced; c.err != nil {
			return nil, c.err
		}
		if c.named {
			continue
		}
		if err := b.s.fs.Rename(c.temp, largeName(id)); err != nil {
			return nil, err
		}
		c.named = true
	}
	if err := b.s.fs.Sync(largeDir); err != nil {
		return nil, err
	}
	nodes = make(map[chunk.CID]loc, len(b.large))
	b.began(b.s.packs.Fails())
	for id, c := range b.large {
		if nodes[id], err = b.s.append(id, c.node, c.size); err != nil {
			delete(nodes, id)
			return nodes, err
		}
	}
	return nodes, nil
}

// hold puts what is durable into the index, and takes back what was set aside.
func (b *Batch) hold(nodes map[chunk.CID]loc) error {
	s := b.s
	s.mu.Lock()
	var parts []chunk.CID
	for id, l := range b.small {
		s.take(id, l)
		s.settle(l)
	}
	for id, l := range nodes {
		s.sums.reserved -= b.large[id].cost()
		s.take(id, l)
		s.settle(l)
		if s.partial[id] > 0 && s.locks[id] == 1 {
			parts = append(parts, id)
		}
	}
	lost := 0
	for id := range b.locked {
		switch a := s.aside[id]; {
		case !s.index.has(id) || a.why == damaged:
			lost++
		case a.why != "":
			s.setAside(id, aside{})
		}
	}
	b.small, b.large, b.frames = map[chunk.CID]loc{}, map[chunk.CID]*cut{}, false
	s.mu.Unlock()
	for id := range nodes {
		s.cache.forget(id)
	}
	for _, id := range parts {
		if err := s.dropPartial(id); err != nil {
			s.log.Warn("pool files: an unfinished piece could not be removed", "piece", id, "err", err)
		}
	}
	if lost > 0 {
		return fmt.Errorf("%d pieces that were here: %w", lost, ErrDamaged)
	}
	return nil
}

// take puts a durable piece into the index in place of a damaged one, if it is not held. The caller holds mu.
func (s *Store) take(id chunk.CID, l loc) {
	known := s.index.has(id)
	a := s.aside[id]
	if known && a.why != damaged {
		s.stale[l.at.Pack] = true
		return // another batch was first; a piece set aside is taken back by hold
	}
	if known {
		s.remove(id)
		delete(s.aside, id)
		s.marks.add(line("back %s", id))
	}
	s.insert(id, l)
	s.changed(Piece{id, int64(l.size)}, true)
}

// cost is the room of a large piece's file and frame.
func (c *cut) cost() int64 { return roundUp(c.size) + pack.Cost(len(c.node)) }

// Close ends the batch: its locks are gone, and what is not committed is dropped. What a name needs must be committed,
// and the name written, before. It may be called more than once.
func (b *Batch) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.closed = true
	for id, c := range b.large {
		<-c.synced
		b.s.dropCut(id, c)
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	for _, l := range b.small {
		b.s.settle(l)
		b.s.stale[l.at.Pack] = true
	}
	for id := range b.locked {
		b.s.unlock(id)
	}
}

// dropCut deletes the file of a large piece that was not committed.
func (s *Store) dropCut(id chunk.CID, c *cut) {
	name := c.temp
	if c.named {
		s.naming.Lock() // so that the name is no other batch's that is about to hold it
		defer s.naming.Unlock()
		s.mu.Lock()
		ok := s.index.has(id)
		s.mu.Unlock()
		if name = largeName(id); ok {
			name = ""
		}
	}
	if name != "" {
		if err := s.fs.Remove(name); err != nil {
			s.log.Warn("pool files: a file could not be removed", "file", name, "err", err)
		}
	}
	s.unreserve(c.cost())
}

// dropPartial deletes what was fetched of a piece that is not to be finished. The caller holds naming.
func (s *Store) dropPartial(id chunk.CID) error {
	var err error
	s.mu.Lock()
	held := s.index.has(id)
	s.mu.Unlock()
	// Of one that is not held the record may be a finished one: it has its name, and could not be made durable there.
	r, ok := s.roots.Root(id)
	finished := ok && !held && r.Info().State == block.Complete
	if ok && (finished || r.Info().State == block.Partial) {
		err = s.roots.Remove(id)
	}
	name := partName(id)
	if finished {
		name = largeName(id)
	}
	if rmErr := s.fs.Remove(name); rmErr != nil && !isGone(rmErr) {
		err = errors.Join(err, rmErr)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.setPartial(id, 0)
	}
	return err
}
