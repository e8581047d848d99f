package gossip

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The window agrees with a plain memory of everything, but for what lies too far behind.
func TestWindow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var w window
		seen, top := make(map[uint64]bool), uint64(0)
		base := rapid.Uint64Range(1, 1<<62).Draw(rt, "base")
		for range rapid.IntRange(1, 200).Draw(rt, "messages") {
			n := base + rapid.Uint64Range(0, 3*windowSize).Draw(rt, "n")
			if rapid.IntRange(0, 20).Draw(rt, "leap") == 0 {
				base += 10 * windowSize
			}
			want := !seen[n] && (n > top || top-n < windowSize)
			if got := w.take(n); got != want {
				rt.Fatalf("%d with the newest at %d: %v", n, top, got)
			}
			if want {
				seen[n] = true
			}
			top = max(top, n)
		}
	})
}

func TestBucket(t *testing.T) {
	var b bucket
	now := time.Now()
	passed := 0
	for range 100 {
		if b.take(now, 10, 20) {
			passed++
		}
	}
	if passed != 20 {
		t.Errorf("%d at once, the burst is 20", passed)
	}
	if b.take(now.Add(-time.Hour), 10, 20) {
		t.Error("a clock that goes back gives tokens")
	}
	now = now.Add(500 * time.Millisecond)
	for passed = 0; b.take(now, 10, 20); passed++ {
	}
	if passed < 4 || passed > 5 {
		t.Errorf("%d after half a second at 10 a second", passed)
	}
}
