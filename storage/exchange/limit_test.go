package exchange

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1 << 20)
		took := func(exempt bool) time.Duration {
			began := time.Now()
			for range 24 {
				if err := l.wait(t.Context(), 1<<20, exempt); err != nil {
					t.Fatal(err)
				}
			}
			return time.Since(began)
		}
		if d := took(true); d != 0 {
			t.Errorf("the local network waited %v", d)
		}
		// The first limitBurst pass at once.
		if d := took(false); d < 19*time.Second || d > 21*time.Second {
			t.Errorf("24 MiB at 1 MiB/s took %v", d)
		}
		l = newLimiter(0)
		if d := took(false); d != 0 {
			t.Errorf("without a bound it took %v", d)
		}
	})
}
