package piece

import (
	"hash/maphash"
	"iter"

	"github.com/shoal-os/shoal/storage/block/pack"
	"github.com/shoal-os/shoal/storage/chunk"
)

// loc says where a piece lies: its one frame, and of a large one the file of its name beside.
type loc struct {
	at   pack.Loc
	data uint32 // bytes in the frame
	size uint32 // bytes of the piece, at most PieceMax
}

// table is a map from names to places, in 52 to 59 bytes for each: a Go map takes up to 120. Rows lie in blocks that never
// move; slots hold their numbers by open addressing. It is for one goroutine at a time.
type table struct {
	seed  maphash.Seed
	slots []uint32 // 1 + number of a row, 0 for none; a power of two of them
	rows  []*[rowsBlock]row
	used  uint32 // rows that were ever used
	free  uint32 // 1 + number of the first unused one of them, linked by row.at.Off
	count int
}

type row struct {
	sum [32]byte
	loc // size has the top bit of a large piece, and is rowFree in an unused row
}

const (
	rowsBlock = 1024
	rowLarge  = 1 << 31
	rowFree   = 1<<32 - 1
)

func newTable() *table { return &table{seed: maphash.MakeSeed(), slots: make([]uint32, 16)} }

func (t *table) row(i uint32) *row { return &t.rows[i/rowsBlock][i%rowsBlock] }

func (r *row) is(id chunk.CID) bool { return r.sum == id.Sum && (r.size&rowLarge != 0) == !id.IsRaw() }

func (r *row) id() chunk.CID {
	if r.size&rowLarge != 0 {
		return chunk.CID{Codec: chunk.DagPB, Sum: r.sum}
	}
	return chunk.CID{Codec: chunk.Raw, Sum: r.sum}
}

func (r *row) place() loc {
	l := r.loc
	l.size &^= rowLarge
	return l
}

// home is the slot where the search for a digest begins. It is seeded: names are chosen by others.
func (t *table) home(sum *[32]byte) uint32 {
	return uint32(maphash.Bytes(t.seed, sum[:])) & uint32(len(t.slots)-1)
}

// find returns the slot of a name, or the empty one where it would go.
func (t *table) find(id chunk.CID) (slot uint32, ok bool) {
	mask := uint32(len(t.slots) - 1)
	for slot = t.home(&id.Sum); t.slots[slot] != 0; slot = (slot + 1) & mask {
		if t.row(t.slots[slot] - 1).is(id) {
			return slot, true
		}
	}
	return slot, false
}

func (t *table) get(id chunk.CID) (loc, bool) {
	slot, ok := t.find(id)
	if !ok {
		return loc{}, false
	}
	return t.row(t.slots[slot] - 1).place(), true
}

func (t *table) has(id chunk.CID) bool {
	_, ok := t.find(id)
	return ok
}

// put sets where a piece lies.
func (t *table) put(id chunk.CID, l loc) {
	if !id.IsRaw() {
		l.size |= rowLarge
	}
	slot, ok := t.find(id)
	if ok {
		t.row(t.slots[slot] - 1).loc = l
		return
	}
	if 4*(t.count+1) > 3*len(t.slots) {
		t.grow()
		slot, _ = t.find(id)
	}
	i := t.take()
	*t.row(i) = row{id.Sum, l}
	t.slots[slot] = i + 1
	t.count++
}

// take gives the number of an unused row.
func (t *table) take() uint32 {
	if t.free > 0 {
		i := t.free - 1
		t.free = t.row(i).at.Off
		return i
	}
	if t.used%rowsBlock == 0 {
		t.rows = append(t.rows, new([rowsBlock]row))
	}
	t.used++
	return t.used - 1
}

func (t *table) grow() {
	t.slots = make([]uint32, 2*len(t.slots))
	mask := uint32(len(t.slots) - 1)
	for i := range t.used {
		r := t.row(i)
		if r.size == rowFree {
			continue
		}
		slot := t.home(&r.sum)
		for t.slots[slot] != 0 {
			slot = (slot + 1) & mask
		}
		t.slots[slot] = i + 1
	}
}

// remove takes a name out, which all may do that goes over them.
func (t *table) remove(id chunk.CID) {
	slot, ok := t.find(id)
	if !ok {
		return
	}
	i := t.slots[slot] - 1
	*t.row(i) = row{loc: loc{at: pack.Loc{Off: t.free}, size: rowFree}}
	t.free = i + 1
	t.count--
	// What came later in the same run moves up, so that searches do not end at the gap.
	mask := uint32(len(t.slots) - 1)
	for next := (slot + 1) & mask; t.slots[next] != 0; next = (next + 1) & mask {
		home := t.home(&t.row(t.slots[next] - 1).sum)
		if (next-home)&mask >= (next-slot)&mask {
			t.slots[slot] = t.slots[next]
			slot = next
		}
	}
	t.slots[slot] = 0
}

// all yields all names and places, in no order.
func (t *table) all() iter.Seq2[chunk.CID, loc] {
	return func(yield func(chunk.CID, loc) bool) {
		for i := range t.used {
			if r := t.row(i); r.size != rowFree && !yield(r.id(), r.place()) {
				return
			}
		}
	}
}
