package directory

import (
	"testing"
	"time"
)

// TestAClockLeapsWhileItRuns: the pool's time goes on as it was, from the moment on in which one member's clock leaps; what that
// member writes before it hears of anybody again stays written on all.
func TestAClockLeapsWhileItRuns(t *testing.T) {
	for _, leap := range []time.Duration{-2 * time.Hour, 3 * time.Hour, 8 * 24 * time.Hour, -26 * 365 * 24 * time.Hour} {
		t.Run(leap.String(), func(t *testing.T) {
			virtual(t, func(t *testing.T, p *fakePool) {
				a, b, c := p.join(1), p.join(2), p.join(3)
				p.connect(1, a, b, c)
				a.put("changed", "by a")
				a.put("deleted", "by a")
				settled(t, 5*time.Second, a, b, c)
				settle(time.Minute) // all know each other's clocks

				for _, skew := range []time.Duration{leap, 0} {
					b.skew.Store(int64(skew))
					if d := b.Now().Sub(now()); d.Abs() > time.Minute {
						t.Errorf("its clock wrong by %v, it takes the pool's time for wrong by %v", skew, d)
					}
					b.put("changed", "by b "+skew.String())
					if err := b.Delete("deleted"); err != nil {
						t.Fatal(err)
					}
					settled(t, 5*time.Second, a, b, c)
					for _, x := range []*fakeNode{a, b, c} {
						if x.value("changed") != "by b "+skew.String() || x.value("deleted") != "-" {
							t.Errorf("changed is %q, deleted is %q", x.value("changed"), x.value("deleted"))
						}
					}
					settle(time.Minute)
					if d := b.Now().Sub(now()); d.Abs() > time.Minute {
						t.Errorf("a minute later by %v", d)
					}
					a.put("deleted", "by a again")
					settled(t, 5*time.Second, a, b, c)
				}
			})
		})
	}
}

// TestSleepIsNoLeap: the time that a machine slept passed for all clocks.
func TestSleepIsNoLeap(t *testing.T) {
	at, slept := now(), time.Duration(0)
	var c leaping
	c.init(func() time.Time { return at.Add(slept) }, func() time.Duration { return slept })
	slept = 10 * time.Hour
	if got := c.now(); !got.Equal(at.Add(slept)) || c.leapt() != 0 {
		t.Errorf("after ten hours of sleep it is %v", got)
	}
}
