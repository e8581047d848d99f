package wasm

import (
	"fmt"

	"github.com/tetratelabs/wazero/experimental"
)

const (
	// dataSlack is what a child may use beside the guest's memory before the system refuses it more: Go's heap, compiled
	// code, a guest's tables. The race detector keeps several bytes for each.
	dataSlack = 768<<20 + raceSlack
	// compileMemory is what it may use while it compiles.
	compileMemory = 4<<30 + raceSlack
	// clearMax is how much memory of the last guest is cleared by hand; more is given back to the system.
	clearMax = 512 << 10
)

// memory bounds the linear memories of one guest, which is one in practice, and keeps the account.
type memory struct {
	arena   *arena
	limit   uint64
	used    uint64
	peak    uint64
	refused bool
	linear  []*linear
}

// Allocate implements experimental.MemoryAllocator.
func (m *memory) Allocate(_, most uint64) experimental.LinearMemory {
	l := &linear{of: m, most: min(most, m.limit)}
	if len(m.linear) == 0 {
		l.arena = m.arena
	} else {
		l.arena = &arena{}
	}
	m.linear = append(m.linear, l)
	return l
}

// Free gives all of it back.
func (m *memory) Free() {
	for _, l := range m.linear {
		l.Free()
	}
}

// linear is one linear memory.
type linear struct {
	of    *memory
	arena *arena
	most  uint64
	size  uint64
	freed bool
}

// Reallocate implements experimental.LinearMemory: nil is a refusal, except of what a module must have to begin.
func (l *linear) Reallocate(size uint64) []byte {
	m := l.of
	var buf []byte
	if size >= l.size && size-l.size <= m.limit-m.used && size <= l.most {
		buf = l.arena.grow(size, l.most)
	}
	if buf == nil && size > 0 {
		m.refused = true
		if l.size == 0 {
			panic(fmt.Errorf("%d bytes of memory are needed to begin", size))
		}
		return nil
	}
	m.used += size - l.size
	m.peak = max(m.peak, m.used)
	l.size = size
	return buf
}

// Free implements experimental.LinearMemory. The arena stays for the next guest, if it is the engine's.
func (l *linear) Free() {
	if l.freed {
		return
	}
	l.freed = true
	l.of.used -= l.size
	l.arena.reset(l.size)
	if l.arena != l.of.arena {
		l.arena.release()
	}
}
