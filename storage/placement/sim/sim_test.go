package sim

import (
	"strings"
	"testing"
)

// season is a small world that is full enough to let copies go, and unlucky enough to mend.
func season() Config {
	return Config{
		Seeds: 2, Laptops: 12, Pieces: 60, Time: 60 * day, Deaths: 40, Space: 60 * 3 * 3 / 2 / 12 << 30,
	}
}

func TestSeasons(t *testing.T) {
	r, err := Run(season())
	if err != nil {
		t.Fatal(err)
	}
	if r.Other > 0 {
		t.Errorf("lost %d files that nothing kept from being mended", r.Other)
	}
	if r.Deaths == 0 || r.Joins == 0 || r.Trims == 0 || r.Repair == 0 || r.Urgent == 0 || r.Share == 0 || r.Writer == 0 {
		t.Errorf("the seasons are too quiet to show anything: %+v", r)
	}
}

// TestYear is one of the years of Must show: nothing is lost, and what is moved is a small part of what an eager pool moves.
func TestYear(t *testing.T) {
	if testing.Short() {
		t.Skip("a year takes seconds")
	}
	r, err := Run(Config{Pieces: 30})
	if err != nil {
		t.Fatal(err)
	}
	eager, err := Run(Config{Pieces: 30, Eager: true, Time: 3 * day})
	if err != nil {
		t.Fatal(err)
	}
	if r.Lost() > 0 {
		t.Errorf("lost %d files", r.Lost())
	}
	if r.RepairPerDay() > eager.RepairPerDay()/10 {
		t.Errorf("moves %.1f GB a day, an eager pool %.1f GB", r.RepairPerDay()/1e9, eager.RepairPerDay()/1e9)
	}
}

func TestSameSeedSameYear(t *testing.T) {
	cfg := season()
	cfg.Seeds, cfg.Time = 1, 20*day
	a, err := Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := Run(cfg); err != nil || a != b {
		t.Errorf("%+v (%v) is not %+v", b, err, a)
	}
}

// TestGuards takes each guard away, and sees the world notice.
func TestGuards(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault fault
		want  string
	}{
		{"promises", credulous, "copies are left"},
		{"proofs", trusting, "copies are left"},
		{"takings", deaf, "which others are at"},
		{"brakes", reckless, "vanished within an hour"},
		{"waking", drowsy, "after it woke"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := season()
			cfg.fault, cfg.Seeds, cfg.Workers = c.fault, 20, 2
			_, err := Run(cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("without it: %v", err)
			}
		})
	}
}

// TestTogether has laptops die so fast that files are lost, and sees that each loss is told apart.
func TestTogether(t *testing.T) {
	cfg := season()
	cfg.Seeds, cfg.Deaths, cfg.Time = 1, 2000, 30*day
	r, err := Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.Together == 0 {
		t.Errorf("nothing was lost: %+v", r)
	}
}

// TestLazy has planners mend nothing, and sees that what is lost by that is not put down to anything else.
func TestLazy(t *testing.T) {
	cfg := season()
	cfg.Deaths, cfg.fault = 100, lazy
	r, err := Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.Other == 0 {
		t.Errorf("%+v", r)
	}
}

// TestHearsay: without word of when others were last seen, those who come home take for absent who is only asleep.
func TestHearsay(t *testing.T) {
	cfg := Config{Pieces: 50, Time: 60 * day, Deaths: -1}
	told, err := Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.fault = mute
	untold, err := Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d repairs too early, %.2f GB of repair a day; without hearsay %d, %.2f GB",
		told.Hasty, float64(told.Repair)/told.Days/1e9, untold.Hasty, float64(untold.Repair)/untold.Days/1e9)
	if untold.Hasty < 10 || told.Hasty > untold.Hasty/5 || told.Repair > untold.Repair {
		t.Errorf("%d repairs of %d bytes too early, without hearsay %d of %d", told.Hasty, told.Repair, untold.Hasty, untold.Repair)
	}
}
