package pair

import (
	"crypto/sha256"
	"math/rand/v2"
	"testing"
)

func random(t testing.TB, n int, seed uint64) []byte {
	t.Helper()
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func compare(t *testing.T, a, b []byte) {
	t.Helper()
	sa, sb := Sum256(a, b)
	if sa != sha256.Sum256(a) || sb != sha256.Sum256(b) {
		t.Fatalf("messages of %d and %d bytes: not their SHA-256", len(a), len(b))
	}
}

// TestEveryLength has both messages end everywhere in a block, at every alignment, and be of different lengths.
func TestEveryLength(t *testing.T) {
	data := random(t, 4096, 1)
	for n := range 1200 {
		compare(t, data[:n], data[n:2*n])
		compare(t, data[n%64:n%64+n], data[7:7+max(0, n-n%77)])
	}
	compare(t, nil, nil)
	compare(t, nil, data)
	compare(t, data, data)
}

func TestLeaves(t *testing.T) {
	a, b := random(t, 1<<20, 2), random(t, 1<<20, 3)
	compare(t, a, b)
	compare(t, a, b[:1<<19+13])
	t.Logf("two at a time: %v", fast)
}

func FuzzSum256(f *testing.F) {
	f.Add([]byte("abc"), []byte(""), uint16(10), uint16(2))
	f.Fuzz(func(t *testing.T, a, b []byte, repeatA, repeatB uint16) {
		var x, y []byte
		for range min(repeatA, 500) {
			x = append(x, a...)
		}
		for range min(repeatB, 500) {
			y = append(y, b...)
		}
		compare(t, x, y)
	})
}

func BenchmarkPair(b *testing.B) {
	x, y := random(b, 1<<20, 2), random(b, 1<<20, 3)
	b.SetBytes(2 << 20)
	for b.Loop() {
		Sum256(x, y)
	}
}

func BenchmarkOneByOne(b *testing.B) {
	x, y := random(b, 1<<20, 2), random(b, 1<<20, 3)
	b.SetBytes(2 << 20)
	for b.Loop() {
		sha256.Sum256(x)
		sha256.Sum256(y)
	}
}
