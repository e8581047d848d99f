package disk

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A file is a header and then frames:
//
//	file  := "shoaldir" version(1) pool(32) crc(4 of all before)
//	frame := length(4) crc(4 of length and payload) kind(1) payload
//
// The length is that of kind and payload, numbers are big-endian, crc is CRC-32C. A snapshot's last frame is of
// kindEnd and holds the number of frames before it.
const (
	magic      = "shoaldir\x01"
	headerSize = len(magic) + 32 + 4
	frameHead  = 8

	// EntryMax is the largest payload of an entry, in bytes.
	EntryMax = 64 << 10
)

// Kind says what an entry is; its meaning is the owner's. Kinds from 0x80 on are this package's.
type Kind uint8

const kindEnd Kind = 0xff

var (
	// ErrOther is the error for files of another pool, or of a later version of shoal.
	ErrOther = errors.New("the files belong to another pool or a later version of shoal")

	errTorn = errors.New("torn or damaged entry")
)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// appendHeader appends a file's header.
func appendHeader(buf []byte, pool [32]byte) []byte {
	from := len(buf)
	buf = append(buf, magic...)
	buf = append(buf, pool[:]...)
	return binary.BigEndian.AppendUint32(buf, crc32.Checksum(buf[from:], castagnoli()))
}

// appendFrame appends one entry.
func appendFrame(buf []byte, kind Kind, payload []byte) []byte {
	from := len(buf)
	buf = binary.BigEndian.AppendUint32(buf, uint32(1+len(payload)))
	buf = append(buf, 0, 0, 0, 0, byte(kind))
	buf = append(buf, payload...)
	binary.BigEndian.PutUint32(buf[from+4:], checksum(buf[from:from+4], buf[from+frameHead:]))
	return buf
}

func checksum(length, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli()), castagnoli(), body)
}

// scanner reads a file's frames.
type scanner struct {
	r    *bufio.Reader
	size int64  // bytes read, in whole frames
	buf  []byte // the payload of the last frame
}

// newScanner checks a file's header. It returns errTorn if the header was never completely written, and ErrOther if
// it is whole and not ours.
func newScanner(r io.Reader, pool [32]byte) (*scanner, error) {
	s := &scanner{r: bufio.NewReaderSize(r, 256<<10), buf: make([]byte, 1024)}
	head := make([]byte, headerSize)
	if _, err := io.ReadFull(s.r, head); err != nil {
		return nil, orTorn(err)
	}
	sum := binary.BigEndian.Uint32(head[headerSize-4:])
	if crc32.Checksum(head[:headerSize-4], castagnoli()) != sum {
		return nil, errTorn
	}
	if string(head[:len(magic)]) != magic || [32]byte(head[len(magic):]) != pool {
		return nil, ErrOther
	}
	s.size = int64(headerSize)
	return s, nil
}

// next returns the next entry; its payload is valid until the next call. It returns io.EOF at a clean end, errTorn for
// anything that is not a whole frame, or the reader's error.
func (s *scanner) next() (Kind, []byte, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(s.r, head[:]); err == io.EOF {
		return 0, nil, io.EOF
	} else if err != nil {
		return 0, nil, orTorn(err)
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n < 1 || n > 1+EntryMax {
		return 0, nil, errTorn
	}
	if n > len(s.buf) {
		s.buf = make([]byte, n)
	}
	body := s.buf[:n]
	if _, err := io.ReadFull(s.r, body); err != nil {
		return 0, nil, orTorn(err)
	}
	if checksum(head[:4], body) != binary.BigEndian.Uint32(head[4:]) {
		return 0, nil, errTorn
	}
	s.size += int64(frameHead + n)
	return Kind(body[0]), body[1:], nil
}

func orTorn(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errTorn
	}
	return fmt.Errorf("read: %w", err)
}

// endPayload is what a snapshot's last frame holds.
func endPayload(count int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(count)) }

// checkEnd holds a snapshot's last frame against the number of frames before it.
func checkEnd(payload []byte, count int) error {
	if string(payload) != string(endPayload(count)) {
		return errTorn
	}
	return nil
}
