package placement

import (
	"encoding/binary"
	"math/bits"
)

// All arithmetic that decides a rank is on integers, so that every peer comes to the same one. math.Log would not do: some
// architectures have it in assembly, and compilers may fuse a multiplication and an addition where the processor can.

const (
	logScale = 32 // a logarithm is in units of 2^-32
	logSteps = 10 // the table has a value each 2^-10 between 1 and 2; what lies between is interpolated
)

// logTable[i] is log2(1 + i/1024) in units of 2^-32.
var logTable = makeLogTable()

func makeLogTable() (table [1<<logSteps + 1]uint64) {
	for i := range table[:1<<logSteps] {
		table[i] = logExact(1<<63 + uint64(i)<<(63-logSteps))
	}
	table[1<<logSteps] = 1 << logScale
	return table
}

// logExact gives log2(x / 2^63) of an x of at least 2^63 by repeated squaring, a bit each.
func logExact(x uint64) (log uint64) {
	for range logScale {
		hi, lo := bits.Mul64(x, x)
		log <<= 1
		if hi >= 1<<63 { // the square is 2 or more
			log |= 1
			x = hi
		} else {
			x = hi<<1 | lo>>63
		}
	}
	return log
}

// negLog2 gives -log2(h / 2^64), at most 64, in units of 2^-32. It never grows with h.
func negLog2(h uint64) uint64 {
	h = max(h, 1)
	zeros := bits.LeadingZeros64(h)
	fraction := h << zeros << 1 // behind the leading one
	step := fraction >> (64 - logSteps)
	rest := fraction << logSteps >> 32 // between this step and the next, in units of 2^-32
	low := logTable[step]
	log := low + (logTable[step+1]-low)*rest>>logScale
	return uint64(zeros+1)<<logScale - log
}

// mix is the finaliser of splitmix64 (Steele, Lea and Flood, 2014): each bit of x changes half of the bits of the result.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// fold makes a hash of a key or an id. It resists accident, not malice: what it is used for is decided by members.
func fold(key []byte) uint64 {
	h := uint64(len(key)) * 0x9e3779b97f4a7c15
	for ; len(key) >= 8; key = key[8:] {
		h = mix(h ^ binary.LittleEndian.Uint64(key))
	}
	var tail [8]byte
	copy(tail[:], key)
	return mix(h ^ binary.LittleEndian.Uint64(tail[:]))
}
