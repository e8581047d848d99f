package repair

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory/disk"
	"github.com/shoal-os/shoal/storage/folder"
	"github.com/shoal-os/shoal/storage/repair/inventory"
	"github.com/shoal-os/shoal/storage/repair/pb"
)

// The kinds of entries on disk.
const (
	entryHeard disk.Kind = 1 // a pb.Heard
	entrySlots disk.Kind = 2 // a pb.Slots, before the rows of a snapshot
	entryRows  disk.Kind = 3 // rows of a snapshot: a packed piece and its holders' words, and so on
	entryFlags disk.Kind = 4 // one byte: flagFilled
)

const (
	flagFilled = 1

	// entryPieces is how many pieces one entry names, so that it stays below disk.EntryMax.
	entryPieces = 1500
	// peerIDMax bounds a peer id, in bytes; those of Ed25519 keys have 38.
	peerIDMax = 64
)

// keep is what this peer was told by others, on disk: who holds what must be known of those who sleep, too. It is
// written without waiting for the disk, for whoever is awake tells again what a crash lost.
type keep struct {
	mu   sync.Mutex
	log  *disk.Log
	live int64 // bytes that the last snapshot took
	// behind: something could not be written. What comes later must not be written behind that gap, least of all a position,
	// from which on others would tell what changed; a snapshot closes it.
	behind bool
}

// openKeep reads the folder into r.
func (r *Repair) openKeep(fs folder.FS) error {
	l := loading{r: r}
	log, opened, err := disk.Open(fs, r.cfg.Pool, l.load)
	if err != nil {
		return err
	}
	for _, name := range opened.Damaged {
		r.log.Warn("part of what other members hold was forgotten", "file", name)
	}
	r.keep.log, r.keep.live = log, int64(r.book.Pieces()*(inventory.Packed+8*r.book.Stride()))
	return nil
}

// loading is the state of reading.
type loading struct {
	r     *Repair
	slots []inventory.Slot // of the rows' bits; -1: nobody's
}

var errEntry = errors.New("an entry that makes no sense")

func (l *loading) load(e disk.Entry) error {
	switch e.Kind {
	case entryHeard:
		var h pb.Heard
		if err := proto.Unmarshal(e.Payload, &h); err != nil {
			return err
		}
		return l.heard(&h)
	case entrySlots:
		return l.setSlots(e.Payload)
	case entryRows:
		return l.rows(e.Payload)
	case entryFlags:
		l.r.filled = len(e.Payload) == 1 && e.Payload[0]&flagFilled != 0
		return nil
	}
	return fmt.Errorf("%w: kind %d", errEntry, e.Kind)
}

func (l *loading) heard(h *pb.Heard) error {
	id := peer.ID(h.GetPeer())
	if h.GetGone() {
		l.r.book.Forget(id)
		delete(l.r.told, id)
		return nil
	}
	added, err := inventory.Unpack(h.GetDelta().GetAdded(), entryPieces)
	if err != nil {
		return err
	}
	removed, err := inventory.Unpack(h.GetDelta().GetRemoved(), entryPieces)
	if err != nil {
		return err
	}
	slot, err := l.r.book.Member(id)
	if err != nil {
		return err
	}
	for _, c := range added {
		_, _ = l.r.book.Set(slot, c, true) // what is too much was not kept in mind before either
	}
	for _, c := range removed {
		_, _ = l.r.book.Set(slot, c, false)
	}
	l.r.told[id] = l.r.told[id].after(h.GetDelta())
	return nil
}

func (l *loading) setSlots(payload []byte) error {
	var m pb.Slots
	if err := proto.Unmarshal(payload, &m); err != nil {
		return err
	}
	l.slots = l.slots[:0]
	for _, id := range m.GetPeers() {
		slot := inventory.Slot(-1)
		if len(id) > 0 {
			var err error
			if slot, err = l.r.book.Member(peer.ID(id)); err != nil {
				return err
			}
		}
		l.slots = append(l.slots, slot)
	}
	return nil
}

func (l *loading) rows(payload []byte) error {
	words := max(1, (len(l.slots)+63)/64)
	size := inventory.Packed + 8*words
	if len(payload)%size != 0 {
		return fmt.Errorf("%w: %d bytes of rows", errEntry, len(payload))
	}
	for row := range slices.Chunk(payload, size) {
		c, err := inventory.UnpackOne(row[:inventory.Packed])
		if err != nil {
			return err
		}
		for i, slot := range l.slots {
			word := binary.LittleEndian.Uint64(row[inventory.Packed+8*(i/64):])
			if slot >= 0 && word>>(i%64)&1 == 1 {
				_, _ = l.r.book.Set(slot, c, true)
			}
		}
	}
	return nil
}

// heardEntries puts what a member told into entries. The position comes with the last, so that what a crash cuts off
// is told again.
func heardEntries(p peer.ID, added, removed []chunk.CID, at *pb.Delta) (out []disk.Entry) {
	entry := func(d *pb.Delta) {
		out = append(out, messageEntry(entryHeard, &pb.Heard{Peer: []byte(p), Delta: d}))
	}
	for part := range slices.Chunk(removed, entryPieces) {
		entry(&pb.Delta{Removed: inventory.Append(nil, part...)})
	}
	for part := range slices.Chunk(added, entryPieces) {
		entry(&pb.Delta{Added: inventory.Append(nil, part...)})
	}
	if len(at.GetEpoch()) > 0 || at.GetUsage() != nil {
		entry(&pb.Delta{Epoch: at.GetEpoch(), Next: at.GetNext(), Usage: at.GetUsage()})
	}
	return out
}

func messageEntry(kind disk.Kind, m proto.Message) disk.Entry {
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic("repair: a message of our own cannot be encoded: " + err.Error())
	}
	return disk.Entry{Kind: kind, Payload: payload}
}

// write appends entries, and writes a snapshot when the log has grown too long. What they say is in the book already.
func (r *Repair) write(entries ...disk.Entry) {
	if len(entries) == 0 {
		return
	}
	r.keep.mu.Lock()
	defer r.keep.mu.Unlock()
	if !r.keep.behind {
		r.append(entries, false)
	}
	if r.keep.behind || r.keep.log.Wasteful(r.keep.live) {
		r.compact()
	}
}

// append writes entries. keep.mu is held.
func (r *Repair) append(entries []disk.Entry, durable bool) {
	if err := r.keep.log.Append(entries, durable); err != nil {
		r.log.Warn("what other members hold is not kept", "err", err)
		r.keep.behind = true
	}
}

// syncKeep makes what was written durable.
func (r *Repair) syncKeep() {
	r.keep.mu.Lock()
	defer r.keep.mu.Unlock()
	r.append(nil, true)
	if r.keep.behind {
		r.compact()
	}
}

// compact replaces the logs by a snapshot. keep.mu is held: what others tell meanwhile waits, and is written behind it.
func (r *Repair) compact() {
	gen, err := r.keep.log.Rotate()
	r.keep.behind = r.keep.behind || err != nil // the log that was to end was not durable yet
	if err == nil {
		r.mu.Lock()
		entries := r.snapshot()
		r.mu.Unlock()
		r.keep.live = 0
		for _, e := range entries {
			r.keep.live += int64(len(e.Payload))
		}
		err = r.keep.log.WriteSnapshot(gen, slices.Values(entries))
		r.keep.behind = r.keep.behind && err != nil
	}
	if err != nil {
		r.log.Warn("the file of what other members hold grows", "err", err)
	}
}

// snapshot is all that is known, without what this peer holds itself: its store says that.
func (r *Repair) snapshot() (out []disk.Entry) {
	var slots pb.Slots
	keepBits := make([]uint64, r.book.Stride())
	for s := range inventory.Slot(r.book.Slots()) {
		id := r.book.ID(s)
		if s == r.self {
			id = ""
		}
		if id != "" {
			keepBits[s/64] |= 1 << (s % 64)
		}
		slots.Peers = append(slots.Peers, []byte(id))
	}
	out = append(out, messageEntry(entrySlots, &slots))
	for rows := range r.packedRows(keepBits) {
		out = append(out, disk.Entry{Kind: entryRows, Payload: rows})
	}
	for id, t := range r.told {
		out = append(out, messageEntry(entryHeard, &pb.Heard{Peer: []byte(id), Delta: t.message()}))
	}
	if r.filled {
		out = append(out, disk.Entry{Kind: entryFlags, Payload: []byte{flagFilled}})
	}
	return out
}

// packedRows yields the book's rows, many at a time.
func (r *Repair) packedRows(keepBits []uint64) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		var buf []byte
		size := inventory.Packed + 8*len(keepBits)
		for bucket := range inventory.Buckets {
			for c, holders := range r.book.Rows(bucket) {
				at, any := len(buf), uint64(0)
				buf = inventory.Append(buf, c)
				for i, word := range holders {
					any |= word & keepBits[i]
					buf = binary.LittleEndian.AppendUint64(buf, word&keepBits[i])
				}
				if any == 0 {
					buf = buf[:at]
				}
				if len(buf)+size > disk.EntryMax {
					if !yield(buf) {
						return
					}
					buf = nil
				}
			}
		}
		if len(buf) > 0 {
			yield(buf)
		}
	}
}
