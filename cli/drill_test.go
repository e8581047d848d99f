package cli

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shoal-os/shoal/node/api/client"
)

func TestParseShare(t *testing.T) {
	for text, want := range map[string]string{
		"": "how many", "30": "no part", "x%": "no part", "NaN%": "no part", "0%": "nobody", "-5%": "nobody", "100%": "everybody", "1e9%": "everybody",
	} {
		if _, err := parseShare(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if n, err := parseShare("33.5%"); err != nil || n != 0.335 {
		t.Errorf("%v, %v", n, err)
	}
}

// drillPool is a pool of n, of whom the first is this peer and the last some are away; all but this one consent.
func drillPool(n, away int) (p client.Pool, consents map[string]bool) {
	consents = map[string]bool{}
	for i := range n {
		m := client.Member{ID: fmt.Sprint("id", i), Name: fmt.Sprint("p", i), State: "online", Self: i == 0}
		if i >= n-away {
			m.State = "away"
		}
		consents[m.ID] = !m.Self && m.State == "online"
		p.Members = append(p.Members, m)
	}
	return p, consents
}

// TestVictimsAreFew: the number is held down by the share, by who is away, by copies and by stewards.
func TestVictimsAreFew(t *testing.T) {
	stewards := func(n int) []client.Job {
		j := client.Job{Name: "sums", State: client.JobRunning}
		for i := range n {
			j.Stewards = append(j.Stewards, client.Steward{ID: fmt.Sprint("id", i+1), Online: true})
		}
		return []client.Job{j}
	}
	for name, c := range map[string]struct {
		n, away int
		share   float64
		least   int
		jobs    []client.Job
		want    int
		text    string
	}{
		"30% of 10":           {n: 10, share: 0.3, least: -1, want: 3},
		"29% of 100":          {n: 100, share: 0.29, least: -1, want: 29},
		"30% of 3":            {n: 3, share: 0.3, least: -1, text: "30% of 3 members is nobody"},
		"one is away":         {n: 10, away: 1, share: 0.3, least: -1, want: 2},
		"enough are away":     {n: 10, away: 3, share: 0.3, least: -1, text: "3 of 10 members are away already"},
		"three copies":        {n: 10, share: 0.9, least: 3, want: 2},
		"one copy":            {n: 10, share: 0.9, least: 1, text: "/scarce has 1 copies"},
		"no copy":             {n: 10, share: 0.9, least: 0, text: "/scarce has 0 copies"},
		"three stewards":      {n: 4, share: 0.75, least: -1, jobs: stewards(3), want: 1},
		"five stewards":       {n: 6, share: 0.9, least: -1, jobs: stewards(5), want: 2},
		"one steward of two":  {n: 2, share: 0.5, least: -1, jobs: stewards(1), text: "job sums had no majority"},
		"a job that is over":  {n: 2, share: 0.5, least: -1, jobs: []client.Job{{State: client.JobDone, Stewards: stewards(1)[0].Stewards}}, want: 1},
		"stewards are absent": {n: 4, share: 0.3, least: -1, jobs: []client.Job{{State: client.JobRunning, Stewards: []client.Steward{{ID: "x"}}}}, want: 1},
	} {
		pool, consents := drillPool(c.n, c.away)
		got, err := chooseVictims(pool, consents, c.share, scarce{"/scarce", c.least}, c.jobs)
		if len(got) != c.want || (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %d, %v; want %d, %q", name, len(got), err, c.want, c.text)
		}
		for _, m := range got {
			if !consents[m.ID] {
				t.Errorf("%s: %s did not consent", name, m.Name)
			}
		}
	}
	pool, _ := drillPool(3, 0)
	if _, err := chooseVictims(pool, nil, 0.5, scarce{online: -1}, nil); err == nil || !strings.Contains(err.Error(), "allows drills") {
		t.Errorf("nobody consents: %v", err)
	}
}

func TestLeastOnline(t *testing.T) {
	files := []client.PoolFile{
		{Path: "/a", Safety: &client.Safety{Online: 3, State: "safe"}},
		{Path: "/b", Safety: &client.Safety{State: "empty"}},
		{Path: "/c", Safety: &client.Safety{Online: 2, State: "short"}},
	}
	if got := leastOnline(files); got != (scarce{"/c", 2}) {
		t.Error(got)
	}
	if got := leastOnline(files[1:2]); got.online != -1 {
		t.Error(got)
	}
}
