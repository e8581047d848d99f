package script

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

const sample = `
about what a scenario may say
peers 6 short=4 least=2 store=200MiB patience=3s rss=300MiB cores=2 reading=20s
network delay=5ms jitter=1ms loss=0.1% rate=20Mbit
site home p1..p3 nat=port delay=40ms
site work rest
start all                       # a comment
join all within 3m
share photos on p1 files=3 size=1KiB..2MiB
get photos on all,!p1 within 30s
put docs on p2 files=20 copies=3
kill any,!p1 for 5s..9s
pause p2 for 10s
partition site:home | rest for 20s
link site:home site:work delay=80ms loss=1%
clock p3 +2h
disk p2 full for 5s
disk p2 slow for 3s
disk p2 ok
evil liar on any
map sums on p1 tasks=20 last=2s
expect works sums on p2
expect passed sums on p2,p3 within 40s
await sums within 1m
during 2m short 20s
  every 2s..4s try put more on any size=10KiB..1MiB
  every 5s try read more on any*2
  at 10s pause any for 3s
  churn 30% per 1m for 5s..9s
end
expect together within 30s
expect direct p1 p2
expect away p2 within 20s
expect away p1,p2 by rest within 20s
upgrade all
wait 1s..2s
`

func TestSampleParses(t *testing.T) {
	s, err := Parse("sample", sample)
	if err != nil {
		t.Fatal(err)
	}
	want := Setting{Store: 200 << 20, Patience: 3 * time.Second, RSS: 300 << 20, Cores: 2, Reading: 20 * time.Second}
	if s.Peers != 6 || s.Short != 4 || s.Least != 2 || s.Setting != want || s.About != "what a scenario may say" {
		t.Errorf("header: %+v", s)
	}
	if want := (Link{5 * time.Millisecond, time.Millisecond, 0.001, 20e6}); s.Network != want {
		t.Errorf("network: %+v", s.Network)
	}
	if len(s.Sites) != 2 || s.Sites[0].NAT != "port" || s.Sites[0].Link.Delay != 40*time.Millisecond {
		t.Errorf("sites: %+v", s.Sites)
	}
	if _, err := s.Plan(Options{Seed: 1}); err != nil {
		t.Error(err)
	}
}

// roundTrip prints a scenario's steps and parses them again.
func roundTrip(t *testing.T, s Scenario) {
	t.Helper()
	var b strings.Builder
	for _, step := range s.Steps {
		fmt.Fprintln(&b, step)
		for _, inner := range step.Body {
			fmt.Fprintln(&b, " ", inner)
		}
		if step.Verb == "during" {
			fmt.Fprintln(&b, "end")
		}
	}
	again, err := Parse("again", fmt.Sprintf("peers %d\n%s", s.Peers, b.String()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, b.String())
	}
	if !reflect.DeepEqual(withoutLines(again.Steps), withoutLines(s.Steps)) {
		t.Fatalf("%s\nbecame\n%+v\nfrom\n%+v", b.String(), again.Steps, s.Steps)
	}
}

func withoutLines(steps []Step) (out []Step) {
	for _, s := range steps {
		s.Line = 0
		s.Body = withoutLines(s.Body)
		out = append(out, s)
	}
	return out
}

func TestStepsPrintAsTheyAreWritten(t *testing.T) {
	s, err := Parse("sample", sample)
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, s)
}

func TestMistakesAreNamed(t *testing.T) {
	cases := []struct{ source, want string }{
		{"", "x:1: the scenario has no steps"},
		{"start all\nfly p1", `x:2: there is no step "fly"; there are await, churn`},
		{"start", "x:1: who is missing"},
		{"start p0", `"p0" is no peer`},
		{"start p9..p2", "goes backwards"},
		{"start !p1", "only takes peers away"},
		{"start all,!any", "left to chance"},
		{"start all everybody", `"everybody" is too much`},
		{"kill p1 for ever", `"ever" is no duration`},
		{"kill p1 for 9s..2s", "goes backwards"},
		{"put docs p1", `"on" is missing before "p1"`},
		{"put docs on p1 size=2", `size: "2" is no size`},
		{"put docs on p1 size=1KiB size=1KiB", "size is there twice"},
		{"put docs on p1 colour=red", `no setting "colour" here; there are copies, files, size`},
		{"put docs on p1 files=10000 size=1GiB", "more than 4GiB in one step"},
		{"put Docs on p1", `"Docs" is no name`},
		{"partition p1", "two sides or more"},
		{"clock p1 2h", "is no jump of a clock"},
		{"during 1m\nevery 1s start all", "x:1: the block has no end"},
		{"during 1m\nend", "x:1: nothing happens in this block"},
		{"during 1m\nstart all\nend", "x:2: a step in a block says when"},
		{"during 10s short 20s\nevery 1s heal\nend", "a short one not for longer"},
		{"during 1m\nevery 1ms heal\nend", "at most 20 times a second"},
		{"during 10s\nat 20s heal\nend", "not after the block's end"},
		{"churn 30% per 1m for 5s", "stands in a block"},
		{"during 1m\nevery 1s wait 1s\nend", "wait cannot stand in a block"},
		{"end", "end stands alone"},
		{"start all\npeers 3", `"peers" stands before the first step`},
		{"peers 100\nstart all", "no number from 1 to 64"},
		{"peers 2 least=3\nstart all", "at least 3 are needed"},
		{"site a p1\nsite a p2\nstart all", "is there twice"},
		{"site a p1 nat=odd\nstart all", "none of cone, port, symmetric"},
		{`put "docs`, "quotes are not closed"},
		{"start \xff", "UTF-8"},
	}
	for _, c := range cases {
		_, err := Parse("x", c.source)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.source, err, c.want)
		}
	}
}

func TestImpossiblePlansAreRefused(t *testing.T) {
	cases := []struct{ source, want string }{
		{"start p7", "x:1: there is no p7: the scenario runs with 3 peers"},
		{"start all\nget photos on p1", "x:2: nothing is called photos by then; there is nothing yet"},
		{"put docs on p1", "nobody whom"},
		{"start all\nput docs on all", "done by one peer"},
		{"start all\nput docs on p1\nput docs on p2", "docs is there already"},
		{"start all\nkill all\nkill any", "nobody whom"},
		{"site a p1,p2\nsite b p2\nstart all", "p2 is in two sites"},
		{"start site:a", `no site "a"`},
	}
	for _, c := range cases {
		s, err := Parse("x", c.source)
		if err != nil {
			t.Errorf("%q: %v", c.source, err)
			continue
		}
		if _, err := s.Plan(Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.source, err, c.want)
		}
	}
	s, _ := Parse("x", "peers 5 least=4\nstart all")
	if _, err := s.Plan(Options{Peers: 3}); err == nil {
		t.Error("three peers were accepted where four are needed")
	}
}

func mustPlan(t *testing.T, source string, opt Options) Plan {
	t.Helper()
	s, err := Parse("x", source)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Plan(opt)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestASeedFixesThePlan(t *testing.T) {
	a, b, c := mustPlan(t, sample, Options{Seed: 7}), mustPlan(t, sample, Options{Seed: 7}), mustPlan(t, sample, Options{Seed: 8})
	if !reflect.DeepEqual(a, b) {
		t.Error("the same seed gave two plans")
	}
	if reflect.DeepEqual(a.Stages, c.Stages) {
		t.Error("another seed gave the same plan")
	}
}

// TestChurnKillsAsManyAsItSays counts kills, and that only those who are up are killed.
// TestAPlanKnowsItsDisks: those that steps of a block make, and not those whose time never comes.
func TestAPlanKnowsItsDisks(t *testing.T) {
	p := mustPlan(t, "peers 2\nstart all\nduring 10s short 5s\n  at 1s disk any slow for 3s\n  at 8s disk p1 full\nend\ndisk all ok", Options{Short: true})
	for kind, want := range map[string]bool{"slow": true, "full": false, "ok": true} {
		if p.HasDisk(kind) != want {
			t.Errorf("%s disks: %v", kind, !want)
		}
	}
}

func TestChurnKillsAsManyAsItSays(t *testing.T) {
	source := "peers 20\nstart all\nduring 5m\n churn 30% per 1m for 10s..20s\nend"
	for seed := range uint64(20) {
		p := mustPlan(t, source, Options{Seed: seed})
		block := p.Stages[1]
		if len(block.Actions) != 30 {
			t.Fatalf("%d kills, want 30: 30 %% of 20 in each of 5 minutes", len(block.Actions))
		}
		back := map[int]time.Duration{}
		for _, a := range block.Actions {
			if a.Verb != "kill" || len(a.Peers) != 1 || a.Hold < 10*time.Second || a.Hold > 20*time.Second {
				t.Fatalf("action %+v", a)
			}
			if a.When < back[a.Peers[0]] {
				t.Errorf("p%d is killed at %v, and is down until %v", a.Peers[0]+1, a.When, back[a.Peers[0]])
			}
			back[a.Peers[0]] = a.When + a.Hold
		}
	}
}

func TestShortRunsAreShorter(t *testing.T) {
	p := mustPlan(t, sample, Options{Short: true})
	if p.Peers != 4 {
		t.Errorf("%d peers, want 4", p.Peers)
	}
	for _, s := range p.Stages {
		if s.Block && s.Lasts != 20*time.Second {
			t.Errorf("the block lasts %v", s.Lasts)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample)
	f.Add("start all\nduring 1m\nevery 1s..2s try put a on any*2,!p1 size=1KiB..2KiB\nend")
	f.Fuzz(func(t *testing.T, source string) {
		s, err := Parse("fuzz", source)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Line < 1 {
				t.Fatalf("an error without a line: %v", err)
			}
			return
		}
		roundTrip(t, s)
		_, _ = s.Plan(Options{Seed: 1})
	})
}
