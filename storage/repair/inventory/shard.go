package inventory

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/shoal-os/shoal/storage/chunk"
)

// shard is one bucket of a book: a hash table with open addressing whose entries are rows of two columns. A piece's
// name lies in memory once, in 33 bytes; a map from names would double that.
type shard struct {
	ids  []chunk.CID // by row; undefined: the row is free
	bits []uint64    // the holders, stride words a row
	free []uint32    // rows to be used again
	// table holds row+1, 0 for nothing; its length is a power of two, more than the rows in use.
	table []uint32
	used  int
}

// loadNum and loadDen bound how full a table gets before it grows.
const loadNum, loadDen = 3, 4

// mix is what a piece counts in its bucket's sum: any 64 bits of its hash will do, and the codec.
func mix(c chunk.CID) uint64 { return binary.LittleEndian.Uint64(c.Sum[8:]) + uint64(c.Codec) }

// place is where a search for a piece begins. The whole name is hashed with a secret: who lies chooses names as he likes.
func (sh *shard) place(c chunk.CID, seed maphash.Seed) int {
	return int(uint32(maphash.Bytes(seed, c.Sum[:]))) & (len(sh.table) - 1)
}

func (sh *shard) holders(row uint32, stride int) []uint64 {
	return sh.bits[int(row)*stride : (int(row)+1)*stride]
}

// find returns a piece's row.
func (sh *shard) find(c chunk.CID, seed maphash.Seed) (row uint32, ok bool) {
	i, ok := sh.lookup(c, seed)
	if !ok {
		return 0, false
	}
	return sh.table[i] - 1, true
}

// lookup returns where in the table a piece is.
func (sh *shard) lookup(c chunk.CID, seed maphash.Seed) (at int, ok bool) {
	if len(sh.table) == 0 {
		return 0, false
	}
	for i := sh.place(c, seed); ; i = (i + 1) & (len(sh.table) - 1) {
		switch r := sh.table[i]; {
		case r == 0:
			return i, false
		case sh.ids[r-1] == c:
			return i, true
		}
	}
}

// insert adds a piece that is not there, held by nobody.
func (sh *shard) insert(c chunk.CID, seed maphash.Seed, stride int) (row uint32) {
	if loadDen*(sh.used+1) > loadNum*len(sh.table) {
		sh.grow(seed)
	}
	if n := len(sh.free); n > 0 {
		row, sh.free = sh.free[n-1], sh.free[:n-1]
		sh.ids[row] = c
	} else {
		row = uint32(len(sh.ids))
		sh.ids = append(sh.ids, c)
		sh.bits = append(sh.bits, make([]uint64, stride)...)
	}
	i, _ := sh.lookup(c, seed)
	sh.table[i] = row + 1
	sh.used++
	return row
}

// grow doubles the table.
func (sh *shard) grow(seed maphash.Seed) {
	old := sh.table
	sh.table = make([]uint32, max(8, 2*len(old)))
	for _, r := range old {
		if r != 0 {
			i, _ := sh.lookup(sh.ids[r-1], seed)
			sh.table[i] = r
		}
	}
}

// delete takes a piece that nobody holds out. What came after it in the table moves up, so that searches need no
// tombstones (Knuth, The Art of Computer Programming, vol. 3, 6.4, algorithm R).
func (sh *shard) delete(c chunk.CID, seed maphash.Seed) {
	i, _ := sh.lookup(c, seed)
	row := sh.table[i] - 1
	mask := len(sh.table) - 1
	for j := i; ; {
		j = (j + 1) & mask
		if sh.table[j] == 0 {
			break
		}
		home := sh.place(sh.ids[sh.table[j]-1], seed)
		if (j-home)&mask >= (j-i)&mask {
			sh.table[i] = sh.table[j]
			i = j
		}
	}
	sh.table[i] = 0
	sh.ids[row] = chunk.CID{}
	sh.free = append(sh.free, row)
	sh.used--
}

// widen gives each row more words of holders.
func (sh *shard) widen(from, to int) {
	wide := make([]uint64, len(sh.ids)*to)
	for row := range sh.ids {
		copy(wide[row*to:], sh.bits[row*from:(row+1)*from])
	}
	sh.bits = wide
}
