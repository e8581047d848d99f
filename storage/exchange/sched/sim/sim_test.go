package sim

import (
	"flag"
	"testing"
)

var seeds = flag.Int("seeds", 400, "how many swarms to simulate")

func TestSwarms(t *testing.T) {
	var bytes, twice, endgame int64
	for seed := range uint64(*seeds) {
		r, err := Run(seed)
		if err != nil {
			t.Fatal(err)
		}
		bytes += r.Bytes
		twice += r.Twice
		endgame += r.Endgame
	}
	t.Logf("%d swarms: %.2f %% fetched twice, and %.2f %% in the endgame", *seeds,
		100*float64(twice)/float64(bytes), 100*float64(endgame)/float64(bytes))
	if float64(twice) > 0.02*float64(bytes) {
		t.Errorf("%d of %d bytes were fetched twice outside the endgame", twice, bytes)
	}
}

func TestSameSeedSameRun(t *testing.T) {
	a, errA := Run(7)
	b, errB := Run(7)
	if a != b || errA != nil || errB != nil {
		t.Fatalf("%+v %v\n%+v %v", a, errA, b, errB)
	}
}
