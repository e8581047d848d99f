package names

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func BenchmarkReconcile(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("10 of %d differ", n), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 2))
			left, right := NewSet(), NewSet()
			fill(b, rng, n, left, right)
			who := newAuthor(b, 2)
			var extra []*Record
			for i := range 10 {
				extra = append(extra, bare(b, who, randomRecord(rng, fmt.Sprint("extra", i))))
			}
			var sent, turns int
			b.ResetTimer()
			for range b.N {
				for i, r := range extra {
					left.Drop(r.Key)
					right.Drop(r.Key)
					[]*Set{left, right}[i%2].Put(r)
				}
				one, two := reconcile(b, left, right)
				sent, turns = one.bytes+two.bytes, one.turns+two.turns
			}
			b.ReportMetric(float64(sent), "bytes")
			b.ReportMetric(float64(turns), "turns")
		})
	}
}

func BenchmarkSign(b *testing.B) {
	who := newAuthor(b, 1)
	for range b.N {
		who.sign(b, Record{Key: "some/key", Value: make([]byte, 100), Time: 1})
	}
}

func BenchmarkVerify(b *testing.B) {
	r := newAuthor(b, 1).sign(b, Record{Key: "some/key", Value: make([]byte, 100), Time: 1})
	for range b.N {
		if err := r.Verify(testPool); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	s := NewSet()
	fill(b, rng, 100_000, s)
	who := newAuthor(b, 2)
	records := make([]*Record, 1000)
	for i := range records {
		records[i] = bare(b, who, randomRecord(rng, fmt.Sprintf("common/%06d", rng.IntN(200_000))))
	}
	b.ResetTimer()
	for i := range b.N {
		s.Put(records[i%len(records)])
	}
}
