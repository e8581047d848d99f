package market

import (
	"math/bits"
	"time"
)

// times counts how long tasks ran, in two buckets for each power of two of microseconds: coarse, small, and the same on
// every replica.
type times [128]uint32

// bucket is where a duration is counted.
func bucket(d time.Duration) int {
	us := uint64(max(0, d.Microseconds()))
	n := bits.Len64(us)
	if n < 2 {
		return n
	}
	return 2*n + int(us>>(n-2)&1) - 2
}

// upper is the least duration beyond a bucket.
func upper(b int) time.Duration {
	if b < 2 {
		return time.Duration(b+1) * time.Microsecond
	}
	n := (b + 2) / 2
	us := uint64(1) << (n - 1) // of n bits
	if b%2 == 0 {
		us += us / 2
	} else {
		us *= 2
	}
	return time.Duration(us) * time.Microsecond
}

func (t *times) add(d time.Duration) { t[bucket(d)]++ }

// median is a bound that half of the durations do not pass, 0 if there is none.
func (t *times) median() time.Duration {
	var sum, seen uint64
	for _, n := range t {
		sum += uint64(n)
	}
	for b, n := range t {
		if seen += uint64(n); n > 0 && 2*seen >= sum {
			return upper(b)
		}
	}
	return 0
}
