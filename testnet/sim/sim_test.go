package sim

import (
	"flag"
	"regexp"
	"testing"
)

var (
	schedules = flag.Int("schedules", 300, "how many schedules to play")
	firstSeed = flag.Uint64("seed", 0, "the first one")
	traced    = flag.Bool("tell", false, "play the first one only, and tell what happens")
)

// TestMarket plays schedules; "go test -schedules 100000" for a night's worth, "-seed N -tell" for one that failed.
func TestMarket(t *testing.T) {
	if *traced {
		res, err := Trace(*firstSeed, None, func(line string) { t.Log(line) })
		t.Logf("%+v %v", res, err)
		return
	}
	res, err := Many(t.Context(), *firstSeed, *schedules, nil)
	t.Logf("%d schedules: %d tasks, %d attempts, %d leaders, %d events, the longest end after %v",
		res.Schedules, res.Tasks, res.Starts, res.Leaders, res.Steps, res.Longest)
	if err != nil {
		t.Fatal(err)
	}
}

func TestSameSeedSameSchedule(t *testing.T) {
	for seed := range uint64(20) {
		var first, again []string
		a, errA := Trace(seed, None, func(line string) { first = append(first, line) })
		b, errB := Trace(seed, None, func(line string) { again = append(again, line) })
		if a != b || errA != nil || errB != nil || len(first) != len(again) {
			t.Fatalf("seed %d: %+v %v, then %+v %v", seed, a, errA, b, errB)
		}
	}
}

// TestMissingGuardsAreNoticed: a market without one of its guards must break the very promise that the guard keeps, in some
// schedule: else the simulation would not notice if the guard were broken.
func TestMissingGuardsAreNoticed(t *testing.T) {
	for g, promise := range map[Guard]string{
		Open:  "is committed twice",
		Token: "and .* was granted since",
		Lease: "while it runs as .* elsewhere",
		Vote:  "applies another command|answers command|is committed twice|does not know that task|the leader knows of entries|two leaders",
		Fsync: "applies another command|does not know that task|ends open, committed|the leader knows of entries|and 0 were agreed on",
	} {
		t.Run(g.String(), func(t *testing.T) {
			t.Parallel()
			broken := regexp.MustCompile(promise)
			for seed := range uint64(50_000) {
				if _, err := Run(seed, g); err != nil && broken.MatchString(err.Error()) {
					t.Logf("noticed: %v", err)
					return
				} else if err != nil && testing.Verbose() {
					t.Logf("also: %v", err)
				}
			}
			t.Error("nobody noticed")
		})
	}
}
