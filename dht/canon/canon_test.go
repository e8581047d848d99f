package canon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	buf := binary.AppendUvarint(nil, math.MaxUint64)
	buf = AppendBytes(append(binary.AppendUvarint(buf, 3), 7, 8, 9), "text")
	d := Decoder{Rest: buf}
	if n, k, b, f, s := d.Uvarint(), d.Count(3), d.Byte(), d.Fixed(2), d.Bytes(4); n != math.MaxUint64 || k != 3 || b != 7 || string(f) != "\x08\x09" || string(s) != "text" {
		t.Error(n, k, b, f, s)
	}
	if err := d.End(); err != nil {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		in   []byte
		read func(d *Decoder)
		want error
	}{
		"empty":              {nil, func(d *Decoder) { d.Uvarint() }, ErrShort},
		"half a number":      {[]byte{0x80}, func(d *Decoder) { d.Uvarint() }, ErrShort},
		"a longer form":      {[]byte{0x81, 0}, func(d *Decoder) { d.Uvarint() }, ErrVarint},
		"more than 64 bits":  {bytes.Repeat([]byte{0xff}, 11), func(d *Decoder) { d.Uvarint() }, ErrVarint},
		"more than 32 bits":  {binary.AppendUvarint(nil, math.MaxUint32+1), func(d *Decoder) { d.Uint32() }, ErrLimit},
		"half a string":      {[]byte{3, 1, 2}, func(d *Decoder) { d.Bytes(3) }, ErrShort},
		"a long string":      {[]byte{3, 1, 2, 3}, func(d *Decoder) { d.Bytes(2) }, ErrLimit},
		"an endless string":  {binary.AppendUvarint(nil, math.MaxUint64), func(d *Decoder) { d.Bytes(math.MaxInt) }, ErrLimit},
		"more than is there": {[]byte{4, 1, 2, 3}, func(d *Decoder) { d.Count(9) }, ErrLimit},
		"too many":           {[]byte{3, 1, 2, 3}, func(d *Decoder) { d.Count(2) }, ErrLimit},
		"to spare":           {[]byte{1, 2}, func(d *Decoder) { d.Byte() }, ErrLong},
		"the first error":    {nil, func(d *Decoder) { d.Fail(ErrLimit); d.Byte() }, ErrLimit},
	} {
		d := Decoder{Rest: c.in}
		c.read(&d)
		if err := d.End(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// FuzzDecoder: what is read is what AppendBytes and AppendUvarint make again.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte{1, 2, 'a', 'b', 3})
	f.Fuzz(func(t *testing.T, in []byte) {
		d := Decoder{Rest: in}
		n, s := d.Uvarint(), d.Bytes(1<<10)
		if d.Err != nil {
			return
		}
		if out := append(AppendBytes(binary.AppendUvarint(nil, n), s), d.Rest...); !bytes.Equal(in, out) {
			t.Errorf("%x, and again %x", in, out)
		}
	})
}
