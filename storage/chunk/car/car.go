// Package car owns the form of CAR files: blocks with their names, one after
// the other, behind a header that lists roots (CARv1,
// https://ipld.io/specs/transport/car/carv1/). CARv2 is read by what is inside
// it. The package checks that each block is what its name says; what blocks mean
// together is for others to find out.
package car

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	headerMax = 4 << 10 // bytes of a header: about a hundred roots
	rootsMax  = 64
	cidLenMax = 36 // of the CIDs known here
	// blockMax is the largest section: a block of the most bytes, and its name.
	blockMax = max(chunk.NodeMax, chunk.LeafMax) + cidLenMax

	// pragma begins a CARv2 file: a header that says version 2 and nothing else.
	pragma        = "\x0a\xa1\x67version\x02"
	v2HeaderLen   = 40
	v2DataOffset  = 16 // in the header: where the data begin, and how long they are
	v2DataSize    = 24
	v2PaddingMax  = 1 << 20 // between the header and the data
	mapOfTwo      = 0xa2
	arrayBase     = 0x80
	bytesOneLen   = 0x58 // a byte string whose length is in the next byte
	arrayOneLen   = 0x98
	cidTag        = "\xd8\x2a" // tag 42: a CID follows, after a zero byte
	identityBase  = 0
	versionOne    = 1
	rootsKey      = "\x65roots"
	versionKey    = "\x67version"
	smallIntLimit = 24
)

// ErrFormat says that bytes are no CAR file of the kind that is read here.
var ErrFormat = errors.New("not a CAR file that can be read")

func formatf(format string, args ...any) error {
	return fmt.Errorf("car: %w: %w", ErrFormat, fmt.Errorf(format, args...))
}

// AppendHeader appends the header of a file with one root.
func AppendHeader(b []byte, root chunk.CID) []byte {
	id := root.Bytes()
	h := append([]byte{mapOfTwo}, rootsKey...)
	h = append(h, arrayBase|1)
	h = append(h, cidTag...)
	h = append(h, bytesOneLen, byte(1+len(id)), identityBase)
	h = append(h, id...)
	h = append(h, versionKey...)
	h = append(h, versionOne)
	return append(binary.AppendUvarint(b, uint64(len(h))), h...)
}

// AppendBlock appends what comes before a block's bytes.
func AppendBlock(b []byte, id chunk.CID, size int) []byte {
	name := id.Bytes()
	return append(binary.AppendUvarint(b, uint64(len(name)+size)), name...)
}

// Reader reads the blocks of a CAR file in turn, bounded and strictly.
type Reader struct {
	br    *bufio.Reader
	roots []chunk.CID
	at    int64 // bytes read
	end   int64 // where the blocks end; -1 at the end of the input
	buf   []byte
}

// NewReader reads the header. It fails with ErrFormat, or as r does.
func NewReader(r io.Reader) (*Reader, error) {
	c := &Reader{br: bufio.NewReaderSize(r, 256<<10), end: -1}
	if start, err := c.br.Peek(len(pragma)); err == nil && string(start) == pragma {
		if err := c.skipV2(); err != nil {
			return nil, err
		}
	}
	n, err := c.varint()
	if err != nil {
		return nil, formatf("it has no header")
	}
	if n > headerMax {
		return nil, formatf("its header has %d bytes, more than %d", n, headerMax)
	}
	data, err := c.take(int(n))
	if err != nil {
		return nil, formatf("it ends inside its header")
	}
	c.roots, err = parseHeader(data)
	return c, err
}

// Roots are the names that the header lists, in its order.
func (c *Reader) Roots() []chunk.CID { return c.roots }

// skipV2 goes to the data of a CARv2 file, whose index is not needed here.
func (c *Reader) skipV2() error {
	h, err := c.take(len(pragma) + v2HeaderLen)
	if err != nil {
		return formatf("it ends inside the header of CARv2")
	}
	h = h[len(pragma):]
	offset := binary.LittleEndian.Uint64(h[v2DataOffset:])
	size := binary.LittleEndian.Uint64(h[v2DataSize:])
	gap := int64(offset) - c.at
	if int64(offset) < 0 || gap < 0 || gap > v2PaddingMax || int64(size) <= 0 || int64(offset+size) < 0 {
		return formatf("its CARv2 header puts %d bytes of data at %d", size, offset)
	}
	if _, err := c.take(int(gap)); err != nil {
		return formatf("it ends before its data")
	}
	c.end = c.at + int64(size)
	return nil
}

// take reads n bytes, which are valid until the next call.
func (c *Reader) take(n int) ([]byte, error) {
	if c.end >= 0 && c.at+int64(n) > c.end {
		return nil, io.ErrUnexpectedEOF
	}
	if cap(c.buf) < n {
		c.buf = make([]byte, n)
	}
	k, err := io.ReadFull(c.br, c.buf[:n])
	c.at += int64(k)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // something was to follow
	}
	return c.buf[:n], err
}

// varint reads a length in its shortest form; io.EOF at the clean end.
func (c *Reader) varint() (uint64, error) {
	var raw [binary.MaxVarintLen64]byte
	for i := range raw {
		if c.at == c.end {
			return 0, eofAfter(i)
		}
		b, err := c.br.ReadByte()
		if errors.Is(err, io.EOF) {
			return 0, eofAfter(i)
		} else if err != nil {
			return 0, err
		}
		c.at++
		if raw[i] = b; b < 0x80 {
			v, n := binary.Uvarint(raw[:i+1])
			if n <= 0 || i > 0 && b == 0 {
				return 0, errors.New("a length is not in its shortest form")
			}
			return v, nil
		}
	}
	return 0, errors.New("a length is too long")
}

func eofAfter(read int) error {
	if read == 0 {
		return io.EOF
	}
	return io.ErrUnexpectedEOF
}

// Next returns the next block, verified, and the place of its bytes in the
// input; the bytes are valid until the next call. It returns io.EOF behind the
// last one, and otherwise ErrFormat or the input's own error.
func (c *Reader) Next() (id chunk.CID, data []byte, offset int64, err error) {
	start := c.at
	n, err := c.varint()
	if errors.Is(err, io.EOF) {
		if c.end >= 0 && c.at < c.end {
			err = formatf("it ends %d bytes early", c.end-c.at)
		}
		return chunk.CID{}, nil, 0, err
	}
	if err == nil && n > blockMax {
		err = fmt.Errorf("it has %d bytes, more than %d", n, blockMax)
	}
	if err == nil {
		data, err = c.take(int(n))
	}
	if err != nil {
		return chunk.CID{}, nil, 0, c.blockError(start, err)
	}
	id, k, err := chunk.CIDFromBytes(data)
	if err != nil {
		return chunk.CID{}, nil, 0, c.blockError(start, err)
	}
	data = data[k:]
	if id.Sum != chunk.SumRaw(data).Sum {
		return chunk.CID{}, nil, 0, c.blockError(start, fmt.Errorf("%v is the name of other bytes", id))
	}
	return id, data, c.at - int64(len(data)), nil
}

func (c *Reader) blockError(at int64, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the file ends inside it")
	}
	return formatf("block at byte %d: %w", at, err)
}

// parseHeader reads the DAG-CBOR of a header in its one canonical form: roots,
// then the version.
func parseHeader(data []byte) ([]chunk.CID, error) {
	rest, ok := bytes.CutPrefix(data, []byte{mapOfTwo})
	if ok {
		rest, ok = bytes.CutPrefix(rest, []byte(rootsKey))
	}
	if !ok {
		return nil, formatf("its header is not that of CARv1")
	}
	n, rest, ok := arrayLen(rest)
	if !ok {
		return nil, formatf("its list of roots is malformed or longer than %d", rootsMax)
	}
	roots := make([]chunk.CID, 0, n)
	for range n {
		id, after, err := cborCID(rest)
		if err != nil {
			return nil, formatf("root %d: %w", len(roots)+1, err)
		}
		roots, rest = append(roots, id), after
	}
	rest, ok = bytes.CutPrefix(rest, []byte(versionKey))
	if !ok || len(rest) != 1 {
		return nil, formatf("its header is not that of CARv1")
	}
	if rest[0] != versionOne {
		return nil, formatf("it is of version %d", rest[0])
	}
	return roots, nil
}

// arrayLen reads the head of an array in its shortest form.
func arrayLen(b []byte) (n int, rest []byte, ok bool) {
	switch {
	case len(b) > 0 && b[0] >= arrayBase && b[0] < arrayBase+smallIntLimit:
		n, rest = int(b[0]-arrayBase), b[1:]
	case len(b) > 1 && b[0] == arrayOneLen && b[1] >= smallIntLimit:
		n, rest = int(b[1]), b[2:]
	default:
		return 0, nil, false
	}
	return n, rest, n <= rootsMax
}

// cborCID reads one CID of DAG-CBOR.
func cborCID(b []byte) (chunk.CID, []byte, error) {
	b, ok := bytes.CutPrefix(b, []byte(cidTag))
	if !ok || len(b) < 3 || b[0] != bytesOneLen || b[1] == 0 || b[2] != identityBase || int(b[1]) > len(b)-2 {
		return chunk.CID{}, nil, errors.New("not a CID")
	}
	text, rest := b[3:2+int(b[1])], b[2+int(b[1]):]
	id, n, err := chunk.CIDFromBytes(text)
	if err == nil && n != len(text) {
		err = errors.New("bytes follow the CID")
	}
	return id, rest, err
}
