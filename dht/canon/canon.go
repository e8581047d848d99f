// Package canon owns the encoding of what is signed or replicated: a row of unsigned varints in their shortest form and of byte
// strings with such a length before them. Protobuf has several encodings for the same message, and a signature, or what replicas
// must agree on to the byte, must not depend on which of them a library picked.
package canon

import (
	"encoding/binary"
	"errors"
	"math"
)

var (
	// ErrShort: the input ends too early.
	ErrShort = errors.New("it is cut short")
	// ErrLong: there is more than was to be read.
	ErrLong = errors.New("it has bytes to spare")
	// ErrVarint: a number is not in its shortest form, or has more than 64 bits.
	ErrVarint = errors.New("it has a number that is not in its shortest form")
	// ErrLimit: a number or a length is larger than it may be.
	ErrLimit = errors.New("it passes a limit")
)

// AppendBytes appends a length and the bytes. Numbers are appended with [binary.AppendUvarint].
func AppendBytes[T ~string | ~[]byte](buf []byte, b T) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(b)))
	return append(buf, b...)
}

// Decoder reads Rest from its start. The first error sticks in Err, and each read after it returns a zero value, so a caller
// checks once, with End. It never allocates by what the input claims.
type Decoder struct {
	Rest []byte
	Err  error
}

// Fail notes an error unless there is one already.
func (d *Decoder) Fail(err error) {
	if d.Err == nil {
		d.Err = err
	}
}

// Uvarint reads one number and refuses any but its shortest form.
func (d *Decoder) Uvarint() uint64 {
	if d.Err != nil {
		return 0
	}
	n, size := binary.Uvarint(d.Rest)
	switch {
	case size == 0:
		d.Err = ErrShort
	case size < 0, size > 1 && d.Rest[size-1] == 0:
		d.Err = ErrVarint
	default:
		d.Rest = d.Rest[size:]
		return n
	}
	return 0
}

// Uint32 reads one number of at most 32 bits.
func (d *Decoder) Uint32() uint32 {
	n := d.Uvarint()
	if n > math.MaxUint32 {
		d.Fail(ErrLimit)
		return 0
	}
	return uint32(n)
}

// Count reads a number of things, of which each takes a byte at least.
func (d *Decoder) Count(limit int) int {
	n := d.Uvarint()
	if d.Err == nil && (n > uint64(limit) || n > uint64(len(d.Rest))) {
		d.Err = ErrLimit
	}
	if d.Err != nil {
		return 0
	}
	return int(n)
}

// Byte reads one byte.
func (d *Decoder) Byte() byte {
	if b := d.Fixed(1); b != nil {
		return b[0]
	}
	return 0
}

// Fixed reads exactly n bytes. What it returns is a part of the input.
func (d *Decoder) Fixed(n int) []byte {
	if d.Err == nil && len(d.Rest) < n {
		d.Err = ErrShort
	}
	if d.Err != nil {
		return nil
	}
	out := d.Rest[:n:n]
	d.Rest = d.Rest[n:]
	return out
}

// Bytes reads a byte string of at most limit bytes. What it returns is a part of the input.
func (d *Decoder) Bytes(limit int) []byte {
	n := d.Uvarint()
	if d.Err == nil && n > uint64(limit) {
		d.Err = ErrLimit
	}
	if d.Err != nil {
		return nil
	}
	return d.Fixed(int(n))
}

// End returns the first error, or one about bytes that are left over.
func (d *Decoder) End() error {
	if d.Err == nil && len(d.Rest) > 0 {
		d.Err = ErrLong
	}
	return d.Err
}
