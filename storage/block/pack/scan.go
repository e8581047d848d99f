package pack

import (
	"bytes"
	"crypto/sha256"
	"io"
)

// scanWindow is how much is looked through at a time for the next frame after damage.
const scanWindow = 64 << 10

// Frame is one that a scan found.
type Frame struct {
	Head
	Off uint32
	// Bad: the data is not what the head says, while another frame follows. A bad end is what a crash leaves, and is
	// not told of.
	Bad bool
}

// scan reads a whole pack and verifies it. It skips what is no frame, and never fails: what cannot be read is not
// there. Its memory is bounded by one frame.
func scan(r io.ReaderAt, size int64, yield func(Frame)) {
	size = min(size, sizeMax)
	var bad []Frame
	var head [headSize]byte
	buf := make([]byte, 0, scanWindow)
	for off := int64(0); off+headSize <= size; {
		_, err := r.ReadAt(head[:], off)
		h, ok := parseHead(head[:])
		if err != nil || !ok || off+headSize+int64(h.Length) > size {
			off = nextMagic(r, off+1, size)
			continue
		}
		f := Frame{Head: h, Off: uint32(off)}
		if cap(buf) < int(h.Length) {
			buf = make([]byte, h.Length)
		}
		buf = buf[:h.Length]
		_, err = r.ReadAt(buf, off+headSize)
		off += headSize + int64(h.Length)
		if err != nil && err != io.EOF || sha256.Sum256(buf) != h.ID.Sum {
			f.Bad = true
			bad = append(bad, f)
			continue
		}
		for _, b := range bad {
			yield(b)
		}
		bad = bad[:0]
		yield(f)
	}
}

// nextMagic finds where the next frame may begin, at off or later; size if nowhere.
func nextMagic(r io.ReaderAt, off, size int64) int64 {
	buf := make([]byte, scanWindow)
	for off+headSize <= size {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		if i := bytes.Index(buf[:n], []byte(magic)); i >= 0 {
			return off + int64(i)
		}
		if n < len(magic) || err != nil {
			off += int64(max(n, scanWindow)) // unreadable
			continue
		}
		off += int64(n - len(magic) + 1)
	}
	return size
}
