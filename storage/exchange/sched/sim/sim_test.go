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

// A run without one of the guards must end badly for some seed: else the
// simulation would not notice if the guard were broken.
func TestBrokenGuardsAreNoticed(t *testing.T) {
	for name, f := range map[string]fault{
		"unverified": unverified, "unheard": unheard, "deserted": deserted, "deaf": deaf,
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(3000) {
				if _, err := run(seed, f); err != nil {
					t.Log(err)
					return
				}
			}
			t.Error("nobody noticed")
		})
	}
}
