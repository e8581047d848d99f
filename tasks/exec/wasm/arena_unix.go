//go:build unix

package wasm

import (
	"golang.org/x/sys/unix"
)

// arena is address space for a linear memory, so that it grows in place and costs what is touched.
type arena struct {
	space []byte // reserved
	open  uint64 // bytes of it that may be used
}

// grow returns size bytes, what was there before and zeros, or nil if there is not as much. A guest never has more than most.
func (a *arena) grow(size, most uint64) []byte {
	if uint64(len(a.space)) < most {
		a.release()
		space, err := unix.Mmap(-1, 0, int(most), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return nil
		}
		a.space = space
	}
	if size > a.open {
		if unix.Mprotect(a.space[:size], unix.PROT_READ|unix.PROT_WRITE) != nil {
			return nil
		}
		a.open = size
	}
	if size == 0 {
		return []byte{}
	}
	return a.space[:size:size]
}

// reset makes the first used bytes zeros again.
func (a *arena) reset(used uint64) {
	switch {
	case used == 0:
	case used <= clearMax:
		clear(a.space[:used])
	case a.open <= clearMax || unix.Madvise(a.space[:used], unix.MADV_DONTNEED) != nil || !dontneedZeroes:
		a.release()
	default:
		// What is open counts against the limit of the next guest's data.
		if unix.Mprotect(a.space[:a.open], unix.PROT_NONE) != nil {
			a.release()
		}
		a.open = 0
	}
}

func (a *arena) release() {
	if a.space != nil {
		_ = unix.Munmap(a.space)
	}
	*a = arena{}
}
