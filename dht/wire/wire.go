// Package wire owns what all of shoal's protocols share on a stream: how a message is framed and bounded, how an
// error is numbered, and how text from another peer is made safe to show.
//
// A message is an unsigned varint length followed by that many bytes of protobuf. It has one encoding: the shortest
// varint, fields in order. Every reader states the largest message it accepts, and memory follows the bytes that
// really arrived, never a length that was merely claimed.
//
// The package knows no protocol and opens no stream.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

const (
	// MsgMax is a bound for ordinary control messages, in bytes. A protocol with larger ones names its own.
	MsgMax = 64 << 10

	// readStep is how much memory a claimed length may take before any of its bytes have arrived.
	readStep = 64 << 10

	// varintMax is the most bytes that a length may take. Five carry 35 bits, more than any message has.
	varintMax = 5
)

// WriteMsg writes one message of at most limit bytes, in a single Write. It fails with TooLarge before anything is
// written. It is not safe for concurrent use of one writer.
func WriteMsg(w io.Writer, m proto.Message, limit int) error {
	size := proto.Size(m)
	if size > limit {
		return Errorf(TooLarge, "message of %d bytes, the limit is %d", size, limit)
	}
	buf := binary.AppendUvarint(make([]byte, 0, size+varintMax), uint64(size))
	head := len(buf)
	buf, err := proto.MarshalOptions{Deterministic: true, UseCachedSize: true}.MarshalAppend(buf, m)
	if err != nil {
		return fmt.Errorf("wire: encode message: %w", err)
	}
	if len(buf)-head != size {
		return fmt.Errorf("wire: encode message: it changed from %d to %d bytes meanwhile", size, len(buf)-head)
	}
	if _, err := w.Write(buf); err != nil {
		return fmt.Errorf("wire: write message: %w", err)
	}
	return nil
}

// ReadMsg reads one message of at most limit bytes into m, which it resets first. It reads not one byte more than
// the message has, so raw frames may follow; a reader that is an io.ByteReader too is read faster.
//
// It returns io.EOF itself when the stream ended before a message began, an error that is io.ErrUnexpectedEOF when it
// ended within one, and otherwise an *Error of kind TooLarge or Malformed, or the reader's own error. Unknown fields
// are dropped, so that a newer peer may say more.
func ReadMsg(r io.Reader, m proto.Message, limit int) error {
	size, err := readLength(r, limit)
	if err != nil {
		return err
	}
	buf, err := readExactly(r, size)
	if err != nil {
		return fmt.Errorf("wire: read message: %w", err)
	}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(buf, m); err != nil {
		return Errorf(Malformed, "message is not what was expected: %v", err)
	}
	return nil
}

// readLength reads the length prefix and holds it against limit.
func readLength(r io.Reader, limit int) (int, error) {
	var n uint64
	for i := range varintMax {
		b, err := readByte(r)
		if err != nil {
			if i == 0 && errors.Is(err, io.EOF) {
				return 0, io.EOF
			}
			return 0, fmt.Errorf("wire: read length: %w", noEOF(err))
		}
		n |= uint64(b&0x7f) << (7 * i)
		if b >= 0x80 {
			continue
		}
		if b == 0 && i > 0 {
			return 0, Errorf(Malformed, "length has a needless byte")
		}
		if limit < 0 || n > uint64(limit) {
			return 0, Errorf(TooLarge, "message of %d bytes, the limit is %d", n, limit)
		}
		return int(n), nil
	}
	return 0, Errorf(Malformed, "length is longer than %d bytes", varintMax)
}

// readByte reads exactly one byte.
func readByte(r io.Reader) (byte, error) {
	if br, ok := r.(io.ByteReader); ok {
		return br.ReadByte()
	}
	var b [1]byte
	_, err := io.ReadFull(r, b[:])
	return b[0], err
}

// readExactly reads size bytes, taking memory in steps that double only as data arrives: a peer that claims the
// largest message and sends nothing costs one readStep.
func readExactly(r io.Reader, size int) ([]byte, error) {
	buf := make([]byte, 0, min(size, readStep))
	for len(buf) < size {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(size, 2*cap(buf)))
			copy(grown, buf)
			buf = grown
		}
		n, err := io.ReadFull(r, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			return nil, noEOF(err)
		}
	}
	return buf, nil
}

// noEOF turns a clean end into an unexpected one: within a message no end is clean.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
