package names

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"
)

func TestClockOnlyGrows(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var c Clock
		wall, last := epoch, HLC(0)
		for range 100 {
			wall = wall.Add(time.Duration(rapid.IntRange(-100, 100).Draw(rt, "step")) * time.Millisecond)
			seen := At(wall) + HLC(rapid.IntRange(0, 1<<20).Draw(rt, "seen"))
			if rapid.Bool().Draw(rt, "see") && seen <= c.Limit(wall) {
				c.See(seen)
				last = max(last, seen)
			}
			next := c.Next(wall, 0)
			if next <= last {
				rt.Fatalf("%s after %s", next, last)
			}
			last = next
		}
	})
}

func TestClockNeverPassesItsLimit(t *testing.T) {
	var c Clock
	c.See(At(epoch.Add(3 * time.Hour))) // a clock that was ahead, and was set right
	if next := c.Next(epoch, At(epoch.Add(3*time.Hour))); next > c.Limit(epoch) {
		t.Errorf("%s", next)
	}
	// Within the bound it goes after what it has seen.
	near := At(epoch.Add(4 * time.Minute))
	if next := c.Next(epoch, near); next != near+1 {
		t.Errorf("%s, wanted just after %s", next, near)
	}
}

func TestPoolTime(t *testing.T) {
	const h = time.Hour
	type hello struct {
		from      peer.ID
		raw, pool time.Duration
		voices    int
	}
	for name, c := range map[string]struct {
		hellos []hello
		want   time.Duration
	}{
		"nobody else":                       {nil, 0},
		"one that agrees":                   {[]hello{{"a", time.Second, time.Second, 1}}, 0},
		"one behind: who is ahead yields":   {[]hello{{"a", -3 * h, -3 * h, 1}}, -3 * h},
		"one ahead: it has to yield":        {[]hello{{"a", 3 * h, 3 * h, 1}}, 0},
		"one who heard others":              {[]hello{{"a", 3 * h, 3 * h, 5}}, 3 * h},
		"two against this one":              {[]hello{{"a", 3 * h, 3 * h, 1}, {"b", 3*h + time.Second, 3 * h, 2}}, 3 * h},
		"two with this one":                 {[]hello{{"a", 3 * h, 3 * h, 1}, {"b", 0, 0, 1}}, 0},
		"a liar against what was heard":     {[]hello{{"a", 3 * h, 3 * h, 99}, {"b", 0, 0, 1}}, 0},
		"a liar behind":                     {[]hello{{"a", -3 * h, -3 * h, 99}, {"b", 0, 0, 1}}, 0},
		"its clock is wrong and it knows":   {[]hello{{"a", 3 * h, 0, 1}}, 0},
		"before there was shoal":            {[]hello{{"a", -30 * 365 * 24 * h, -30 * 365 * 24 * h, 1}}, 0},
		"three clocks, all different":       {[]hello{{"a", 2 * h, 2 * h, 1}, {"b", -2 * h, -2 * h, 1}}, -2 * h},
		"small differences are none at all": {[]hello{{"a", 40 * time.Second, 40 * time.Second, 3}}, 0},
	} {
		var clock Clock
		for _, x := range c.hellos {
			clock.Hear(x.from, Reading{epoch.Add(x.raw), epoch.Add(x.pool), x.voices}, epoch)
		}
		if got := clock.Offset(); (got - c.want).Abs() > 2*time.Second {
			t.Errorf("%s: %s, wanted %s", name, got, c.want)
		}
	}
}

func TestVoicesAreForgotten(t *testing.T) {
	var c Clock
	for _, p := range []peer.ID{"a", "b"} {
		c.Hear(p, Reading{Raw: epoch.Add(time.Hour), Pool: epoch.Add(time.Hour), Voices: 1}, epoch)
	}
	if c.Offset() != time.Hour || !c.Confirmed() {
		t.Fatalf("offset %s", c.Offset())
	}
	if r := c.Read(epoch); r.Voices != 2 {
		t.Errorf("%d voices", r.Voices)
	}
	// This machine's clock is set right, and then far off: the others go on as they were.
	if moved := c.Leapt(time.Hour, epoch.Add(time.Hour)); moved != 0 || c.Offset() != 0 || !c.Confirmed() {
		t.Errorf("offset %s, moved by %s", c.Offset(), moved)
	}
	if moved := c.Leapt(-48*time.Hour, epoch.Add(-47*time.Hour)); moved != 0 || c.Offset() != 48*time.Hour || !c.Confirmed() {
		t.Errorf("offset %s, moved by %s", c.Offset(), moved)
	}
	c = Clock{}
	for i := range 2 * voicesMax {
		c.Hear(peer.ID(rune('a'+i)), Reading{Raw: epoch, Pool: epoch, Voices: 1}, epoch)
	}
	if len(c.heard) != voicesMax {
		t.Errorf("%d voices are remembered", len(c.heard))
	}
	if r := c.Read(epoch.Add(2 * voiceTTL)); r.Voices != 1 {
		t.Errorf("%d voices hours later", r.Voices)
	}
}

func TestRestampKeepsTheOrder(t *testing.T) {
	who := newAuthor(t, 1)
	r := NewReplica(testPool, who.id, who.key)
	ahead := epoch.Add(3 * time.Hour)
	for i, key := range []string{"first", "second", "third"} {
		rec, err := r.Stamp(Change{Key: key}, ahead.Add(time.Duration(i-10)*time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		r.Apply(rec)
	}
	other := bare(t, newAuthor(t, 2), Record{Key: "other's", Time: At(ahead)})
	r.Apply(other)
	for shift, first := range map[time.Duration]time.Time{-3 * time.Hour: epoch.Add(-10 * time.Minute), 0: epoch} {
		out, err := r.Restamp(shift, epoch)
		if err != nil || len(out) != 3 {
			t.Fatal(out, err)
		}
		if out[0].Key != "first" || !out[0].Time.Time().Equal(first) || out[0].Time >= out[1].Time || out[1].Time >= out[2].Time {
			t.Errorf("moved by %s: %s, %s, %s", shift, out[0].Time, out[1].Time, out[2].Time)
		}
		for _, rec := range out {
			if rec.Time > At(epoch)+10 || rec.Verify(testPool) != nil {
				t.Errorf("%s at %s", rec.Key, rec.Time)
			}
		}
	}
}
