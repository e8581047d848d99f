package ident

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The signed records have one encoding each, written here by hand: protobuf has several for the same message, and a
// signature must not depend on which of them a library picked. A record is a row of unsigned varints in their shortest
// form and of byte strings with such a length before them.

var (
	errShort    = errors.New("it is cut short")
	errLong     = errors.New("it has bytes to spare")
	errVarint   = errors.New("it has a number that is not in its shortest form")
	errTooLarge = errors.New("it passes the size limit")
)

// appendBytes appends a length and the bytes.
func appendBytes[T ~string | ~[]byte](buf []byte, b T) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(b)))
	return append(buf, b...)
}

// decoder reads what appendBytes and its kind wrote. The first error sticks, and each read after it returns zero
// values, so a caller checks once, with end.
type decoder struct {
	rest []byte
	err  error
}

// uvarint reads one number and refuses any but its shortest form.
func (d *decoder) uvarint() uint64 {
	if d.err != nil {
		return 0
	}
	n, size := binary.Uvarint(d.rest)
	switch {
	case size == 0:
		d.err = errShort
	case size < 0, size > 1 && d.rest[size-1] == 0:
		d.err = errVarint
	default:
		d.rest = d.rest[size:]
		return n
	}
	return 0
}

// fixed reads exactly n bytes. What it returns is a part of the input.
func (d *decoder) fixed(n int) []byte {
	if d.err == nil && len(d.rest) < n {
		d.err = errShort
	}
	if d.err != nil {
		return nil
	}
	out := d.rest[:n:n]
	d.rest = d.rest[n:]
	return out
}

// bytes reads a byte string of at most limit bytes.
func (d *decoder) bytes(limit int) []byte {
	n := d.uvarint()
	if d.err == nil && n > uint64(limit) {
		d.err = errTooLarge
	}
	if d.err != nil {
		return nil
	}
	return d.fixed(int(n))
}

// fail notes an error unless there is one already.
func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
}

// end returns the first error, or one about bytes that are left over.
func (d *decoder) end() error {
	if d.err == nil && len(d.rest) > 0 {
		d.err = errLong
	}
	return d.err
}
