package inventory

import (
	"errors"
	"fmt"

	"github.com/shoal-os/shoal/storage/chunk"
)

// Packed is how many bytes a piece takes in a packed list: its codec and its SHA-256.
const Packed = 33

// ErrPacked is within the error for bytes that are no packed list.
var ErrPacked = errors.New("not a list of pieces")

// Append packs pieces behind what is in buf.
func Append(buf []byte, ids ...chunk.CID) []byte {
	for _, c := range ids {
		buf = append(buf, byte(c.Codec))
		buf = append(buf, c.Sum[:]...)
	}
	return buf
}

// Unpack reads a packed list of at most limit pieces, and refuses any other.
func Unpack(data []byte, limit int) ([]chunk.CID, error) {
	if len(data)%Packed != 0 || len(data)/Packed > limit {
		return nil, fmt.Errorf("inventory: %d bytes: %w of at most %d", len(data), ErrPacked, limit)
	}
	out := make([]chunk.CID, 0, len(data)/Packed)
	for ; len(data) > 0; data = data[Packed:] {
		c := chunk.CID{Codec: chunk.Codec(data[0]), Sum: [32]byte(data[1:Packed])}
		if c.Codec != chunk.Raw && c.Codec != chunk.DagPB {
			return nil, fmt.Errorf("inventory: %v: %w", c.Codec, ErrPacked)
		}
		out = append(out, c)
	}
	return out, nil
}

// UnpackOne reads one piece.
func UnpackOne(data []byte) (chunk.CID, error) {
	ids, err := Unpack(data, 1)
	if err == nil && len(ids) == 0 {
		err = fmt.Errorf("inventory: no bytes: %w", ErrPacked)
	}
	if err != nil {
		return chunk.CID{}, err
	}
	return ids[0], nil
}

// sumsLen is how many bytes packed sums take.
const sumsLen = Buckets * 8

// Marshal packs the sums.
func (s *Sums) Marshal() []byte {
	out := make([]byte, 0, sumsLen)
	for _, v := range s {
		for shift := 0; shift < 64; shift += 8 {
			out = append(out, byte(v>>shift))
		}
	}
	return out
}

// UnmarshalSums reads packed sums; no bytes are the sums of nothing.
func UnmarshalSums(data []byte) (s Sums, err error) {
	if len(data) == 0 {
		return s, nil
	}
	if len(data) != sumsLen {
		return s, fmt.Errorf("inventory: %d bytes of sums: %w", len(data), ErrPacked)
	}
	for i := range s {
		for j := range 8 {
			s[i] |= uint64(data[8*i+j]) << (8 * j)
		}
	}
	return s, nil
}
