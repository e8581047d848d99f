package market

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/tasks/job"
)

var (
	errShort  = errors.New("it is cut short")
	errLong   = errors.New("it has bytes to spare")
	errVarint = errors.New("it has a number that is not in its shortest form")
	errLimit  = errors.New("it passes a limit")
)

// timeMax is the last moment that an entry may name, in milliseconds since 1970, in the year 2243.
const timeMax = 1 << 43

// decoder reads varints and byte strings. The first error sticks, and each read after it returns zero values, so a
// caller checks once, with end.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
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

// count reads a number of things, of which each takes a byte at least, so that what is claimed costs no memory.
func (d *decoder) count(limit int) int {
	n := d.uvarint()
	if d.err == nil && (n > uint64(limit) || n > uint64(len(d.rest))) {
		d.err = errLimit
	}
	if d.err != nil {
		return 0
	}
	return int(n)
}

func (d *decoder) byte() byte {
	if b := d.fixed(1); b != nil {
		return b[0]
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
		d.err = errLimit
	}
	if d.err != nil {
		return nil
	}
	return d.fixed(int(n))
}

func (d *decoder) uint32() uint32 {
	n := d.uvarint()
	if n > math.MaxUint32 {
		d.fail(errLimit)
	}
	return uint32(n)
}

func (d *decoder) lease() Lease {
	return Lease{Task: d.uint32(), Token: job.Token{Term: d.uvarint(), Seq: d.uvarint()}}
}

func (d *decoder) time() time.Time {
	n := d.uvarint()
	if n > timeMax {
		d.fail(errLimit)
	}
	if d.err != nil || n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(n)).UTC()
}

func (d *decoder) duration() time.Duration {
	n := d.uvarint()
	if n > math.MaxInt64/uint64(time.Microsecond) {
		d.fail(errLimit)
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

func (d *decoder) cid() chunk.CID {
	raw := d.fixed(len(chunk.CID{}.Sum))
	if raw == nil {
		return chunk.CID{}
	}
	return chunk.CID{Codec: chunk.Raw, Sum: [32]byte(raw)}
}

// end returns the first error, or one about bytes that are left over.
func (d *decoder) end() error {
	if d.err == nil && len(d.rest) > 0 {
		d.err = errLong
	}
	return d.err
}
