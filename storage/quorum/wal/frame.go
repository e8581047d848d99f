package wal

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A segment is a header and then frames:
//
//	segment := "shoalwal\x01" generation(8) count(4) {generation(8) size(8)} crc(4 of all before)
//	frame   := length(4) crc(4 of length and body) body
//	body    := synced(4) kind(1) group(32) data
//
// The header lists the segments before it that count, and how many bytes of each. The length is that of the body, numbers are
// big-endian, crc is CRC-32C. synced is how many bytes of the segment were known to be durable when the frame was written:
// it tells a torn end from damage.
const (
	magic      = "shoalwal\x01"
	headerHead = len(magic) + 8 + 4
	frameHead  = 8
	bodyHead   = 4 + 1 + 32

	// RecordMax is the largest record, in bytes.
	RecordMax = 64 << 20
	// segmentsMax bounds how many segments a header lists.
	segmentsMax = 1 << 16
)

// ErrDamaged says that a file lacks what was acknowledged. Whoever promised something on the strength of it must not go on
// as though it had not: the folder is to be put aside, and the peer's groups are to go on without it.
var ErrDamaged = errors.New("the quorum log is damaged: what was promised is not in it any more")

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func appendHeader(buf []byte, gen uint64, before []segment) []byte {
	from := len(buf)
	buf = append(buf, magic...)
	buf = binary.BigEndian.AppendUint64(buf, gen)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(before)))
	for _, s := range before {
		buf = binary.BigEndian.AppendUint64(buf, s.gen)
		buf = binary.BigEndian.AppendUint64(buf, uint64(s.size))
	}
	return binary.BigEndian.AppendUint32(buf, crc32.Checksum(buf[from:], castagnoli()))
}

// parseHeader reads a segment's header and says how long it is; 0 when it was never written as a whole.
func parseHeader(data []byte, gen uint64) (before []segment, size int) {
	if len(data) < headerHead || string(data[:len(magic)]) != magic || binary.BigEndian.Uint64(data[len(magic):]) != gen {
		return nil, 0
	}
	n := int(binary.BigEndian.Uint32(data[headerHead-4:]))
	size = headerHead + 16*n + 4
	if n > segmentsMax || size > len(data) || crc32.Checksum(data[:size-4], castagnoli()) != binary.BigEndian.Uint32(data[size-4:]) {
		return nil, 0
	}
	for at := headerHead; at < size-4; at += 16 {
		before = append(before, segment{binary.BigEndian.Uint64(data[at:]), int64(binary.BigEndian.Uint64(data[at+8:]))})
	}
	return before, size
}

func appendFrame(buf []byte, synced int, r Record) []byte {
	from := len(buf)
	buf = binary.BigEndian.AppendUint32(buf, uint32(bodyHead+len(r.Data)))
	buf = binary.BigEndian.AppendUint32(buf, 0)
	buf = binary.BigEndian.AppendUint32(buf, uint32(synced))
	buf = append(buf, byte(r.Kind))
	buf = append(buf, r.Group[:]...)
	buf = append(buf, r.Data...)
	binary.BigEndian.PutUint32(buf[from+4:], checksum(buf[from:from+4], buf[from+frameHead:]))
	return buf
}

func checksum(length, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli()), castagnoli(), body)
}

// parseFrame reads the frame at the start of data and says how long it is; 0 when there is no whole one.
func parseFrame(data []byte) (r Record, synced, size int) {
	if len(data) < frameHead+bodyHead {
		return r, 0, 0
	}
	n := int(binary.BigEndian.Uint32(data))
	if n < bodyHead || n > bodyHead+RecordMax || n > len(data)-frameHead {
		return r, 0, 0
	}
	body := data[frameHead : frameHead+n]
	if checksum(data[:4], body) != binary.BigEndian.Uint32(data[4:]) {
		return r, 0, 0
	}
	r.Kind = Kind(body[4])
	copy(r.Group[:], body[5:])
	r.Data = body[bodyHead:]
	return r, int(binary.BigEndian.Uint32(body)), frameHead + n
}

// parseSegment calls load for each record of a segment, and returns how many of its bytes are whole frames. What comes after
// them is a torn end, unless a later frame says that it was durable: that is ErrDamaged.
func parseSegment(data []byte, gen uint64, load func(Record) error) (size int, err error) {
	if _, size = parseHeader(data, gen); size == 0 {
		return 0, tornOrDamaged(data, 0)
	}
	for size < len(data) {
		r, _, n := parseFrame(data[size:])
		if n == 0 {
			return size, tornOrDamaged(data, size)
		}
		if err := load(r); err != nil {
			return size, err
		}
		size += n
	}
	return size, nil
}

// tornOrDamaged looks beyond what cannot be read for a frame that says that it could once.
func tornOrDamaged(data []byte, from int) error {
	for i := from + 1; i < len(data); i++ {
		if _, synced, n := parseFrame(data[i:]); n > 0 {
			if synced > from {
				return ErrDamaged
			}
			i += n - 1
		}
	}
	return nil
}
