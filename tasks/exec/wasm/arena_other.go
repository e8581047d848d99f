//go:build !unix

package wasm

// arena is memory of Go's own, which moves when it grows.
type arena struct{ buf []byte }

func (a *arena) grow(size, _ uint64) []byte {
	if uint64(cap(a.buf)) < size {
		buf := make([]byte, size)
		copy(buf, a.buf)
		a.buf = buf
	}
	a.buf = a.buf[:size]
	return a.buf
}

func (a *arena) reset(uint64) { a.buf = nil }

func (a *arena) release() { a.buf = nil }

func limitData(uint64) {}
