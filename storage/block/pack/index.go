package pack

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/shoal-os/shoal/storage/chunk"
)

// An index lists the frames of a pack that is not written to any more, so that opening need not read the pack:
//
//	index := "shX" version(1) size of the pack(4) count(4) entries crc(4 of all before)
//	entry := codec(1) digest(32) offset(4) length(4) extent(4)
//
// It is written after the pack is durable, and need not be durable itself: a pack without a whole index is read.
const (
	indexMagic = "shX\x01"
	indexHead  = 4 + 4 + 4
	entrySize  = 1 + 32 + 4 + 4 + 4
)

var errIndex = errors.New("damaged index")

// entry is one frame in memory.
type entry struct {
	Head
	off uint32
}

func encodeIndex(packSize int64, entries []entry) []byte {
	buf := make([]byte, 0, indexHead+entrySize*len(entries)+4)
	buf = append(buf, indexMagic...)
	buf = binary.BigEndian.AppendUint32(buf, uint32(packSize))
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(entries)))
	for _, e := range entries {
		buf = append(buf, byte(e.ID.Codec))
		buf = append(buf, e.ID.Sum[:]...)
		buf = binary.BigEndian.AppendUint32(buf, e.off)
		buf = binary.BigEndian.AppendUint32(buf, e.Length)
		buf = binary.BigEndian.AppendUint32(buf, e.Extent)
	}
	return binary.BigEndian.AppendUint32(buf, crc32.Checksum(buf, castagnoli()))
}

// decodeIndex reads what encodeIndex made for a pack of that size, and nothing else.
func decodeIndex(buf []byte, packSize int64) ([]entry, error) {
	n := len(buf) - indexHead - 4
	if n < 0 || n%entrySize != 0 || string(buf[:4]) != indexMagic {
		return nil, errIndex
	}
	body, sum := buf[:len(buf)-4], binary.BigEndian.Uint32(buf[len(buf)-4:])
	if crc32.Checksum(body, castagnoli()) != sum || int64(binary.BigEndian.Uint32(buf[4:])) != packSize ||
		int(binary.BigEndian.Uint32(buf[8:])) != n/entrySize {
		return nil, errIndex
	}
	out := make([]entry, 0, n/entrySize)
	for b := body[indexHead:]; len(b) > 0; b = b[entrySize:] {
		e := entry{Head: Head{
			ID:     chunk.CID{Codec: chunk.Codec(b[0]), Sum: [32]byte(b[1:33])},
			Length: binary.BigEndian.Uint32(b[37:]), Extent: binary.BigEndian.Uint32(b[41:]),
		}, off: binary.BigEndian.Uint32(b[33:])}
		if !e.valid() || int64(e.off)+headSize+int64(e.Length) > packSize {
			return nil, errIndex
		}
		out = append(out, e)
	}
	return out, nil
}
