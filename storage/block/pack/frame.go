package pack

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/shoal-os/shoal/storage/chunk"
)

// A pack is a row of frames, and nothing else:
//
//	frame := "shP" version(1) codec(1) zero(3) length(4) extent(4) digest(32) crc(4 of all before) data
//
// Numbers are big-endian, crc is CRC-32C. The data's checksum is the digest, which is its name.
const (
	magic    = "shP\x01"
	headCRC  = 4 + 4 + 4 + 4 + 32
	headSize = headCRC + 4

	// DataMax is the largest frame's data in bytes: a leaf, or the node above 1,024 of them.
	DataMax = chunk.LeafSize
)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// Head says what a frame holds.
type Head struct {
	ID     chunk.CID
	Length uint32 // bytes of data
	Extent uint32 // bytes of file that the data speaks for: the leaf's own, or all below the node
}

// Loc says where a frame lies.
type Loc struct {
	Pack uint32 // which file
	Off  uint32 // its first byte
}

// Less orders frames by age.
func (l Loc) Less(m Loc) bool { return l.Pack < m.Pack || l.Pack == m.Pack && l.Off < m.Off }

// Cost is how many bytes a frame of so much data takes on disk, its entry in the index included.
func Cost(data int) int64 { return int64(headSize + data + entrySize) }

func appendHead(buf []byte, h Head) []byte {
	from := len(buf)
	buf = append(buf, magic...)
	buf = append(buf, byte(h.ID.Codec), 0, 0, 0)
	buf = binary.BigEndian.AppendUint32(buf, h.Length)
	buf = binary.BigEndian.AppendUint32(buf, h.Extent)
	buf = append(buf, h.ID.Sum[:]...)
	return binary.BigEndian.AppendUint32(buf, crc32.Checksum(buf[from:], castagnoli()))
}

// parseHead reads a frame's first headSize bytes; ok is false if appendHead did not write them.
func parseHead(b []byte) (h Head, ok bool) {
	if string(b[:4]) != magic || b[5]|b[6]|b[7] != 0 {
		return h, false
	}
	if crc32.Checksum(b[:headCRC], castagnoli()) != binary.BigEndian.Uint32(b[headCRC:]) {
		return h, false
	}
	h.ID = chunk.CID{Codec: chunk.Codec(b[4]), Sum: [32]byte(b[16:48])}
	h.Length, h.Extent = binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
	return h, h.valid()
}

func (h Head) valid() bool {
	switch h.ID.Codec {
	case chunk.Raw:
		return h.Length <= DataMax && h.Extent == h.Length
	case chunk.DagPB:
		return h.Length <= DataMax && h.Extent <= chunk.LeafSize*chunk.LinksMax
	}
	return false
}
