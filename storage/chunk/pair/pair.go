// Package pair computes the SHA-256 of two messages at once, in little more than half of the time that one after the other
// takes where the processor has instructions for it (x86 with the SHA extensions). Whoever has many leaves to hash, as an
// import, a download and a scrub do, hashes them by twos.
//
// It owns no more than the rounds: what is left of a message after the part that both share, and the padding, are
// crypto/sha256's.
package pair

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
)

const magic = "sha\x03" // with which crypto/sha256 begins a saved state

const (
	blockSize   = 64
	togetherMin = 4 * blockSize // what two messages share, from which on it is worth the set-up
)

// Sum256 returns the SHA-256 of a and of b.
func Sum256(a, b []byte) (sa, sb [sha256.Size]byte) {
	shared := min(len(a), len(b)) &^ (blockSize - 1)
	if !fast || shared < togetherMin {
		return sha256.Sum256(a), sha256.Sum256(b)
	}
	x, y := initial, initial
	blocks(&x, &y, &a[0], &b[0], shared/blockSize)
	return finish(&x, a, shared), finish(&y, b, shared)
}

// initial is the state in which SHA-256 begins (FIPS 180-4, 5.3.3).
var initial = [8]uint32{
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
}

// finish has crypto/sha256 go on with a message from a state that its first n bytes led to.
func finish(state *[8]uint32, message []byte, n int) (sum [sha256.Size]byte) {
	d := sha256.New()
	// As encoding.BinaryMarshaler of crypto/sha256 writes it: magic, state, a block's bytes, length.
	saved := make([]byte, 0, len(magic)+sha256.Size+blockSize+8)
	saved = append(saved, magic...)
	for _, w := range state {
		saved = binary.BigEndian.AppendUint32(saved, w)
	}
	saved = append(saved, make([]byte, blockSize)...)
	saved = binary.BigEndian.AppendUint64(saved, uint64(n))
	if err := d.(encoding.BinaryUnmarshaler).UnmarshalBinary(saved); err != nil {
		panic("pair: crypto/sha256 takes no saved state: " + err.Error())
	}
	d.Write(message[n:])
	d.Sum(sum[:0])
	return sum
}
