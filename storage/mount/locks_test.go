package mount

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var t0 = time.Unix(1_700_000_000, 0)

func TestBelow(t *testing.T) {
	for _, c := range []struct {
		p, root string
		want    bool
	}{
		{"/a", "/", true}, {"/", "/", false}, {"/a/b", "/a", true}, {"/ab", "/a", false}, {"/a", "/a", false}, {"/a", "/a/b", false},
	} {
		if below(c.p, c.root) != c.want {
			t.Errorf("below(%q, %q) = %v", c.p, c.root, !c.want)
		}
	}
}

// TestLocksAreBounded in number and in time.
func TestLocksAreBounded(t *testing.T) {
	table := newLockTable()
	for i := range locksMax {
		if _, err := table.create(t0, lock{root: fmt.Sprintf("/%d", i), timeout: 100 * time.Hour}); err != nil {
			t.Fatal(i, err)
		}
	}
	if _, err := table.create(t0, lock{root: "/more"}); !errors.Is(err, errLocksMax) {
		t.Errorf("one more: %v", err)
	}
	if _, err := table.create(t0.Add(lockTimeMax), lock{root: "/more"}); err != nil {
		t.Errorf("after all have expired: %v", err)
	}
}

// TestUsedLocksStay: a PUT may take longer than its lock.
func TestUsedLocksStay(t *testing.T) {
	table := newLockTable()
	now := time.Now() // release goes by it
	l, err := table.create(now, lock{root: "/f", timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	release, blocked := table.use(now, map[string]bool{l.token: true}, claim{"/f", itself})
	if blocked != "" {
		t.Fatal(blocked)
	}
	if _, err := table.create(now.Add(time.Hour), lock{root: "/f"}); !errors.Is(err, errLocked) {
		t.Errorf("while it is in use: %v", err)
	}
	release()
	if _, err := table.create(now.Add(lockTimeLeft/2), lock{root: "/f"}); !errors.Is(err, errLocked) {
		t.Errorf("just after: %v", err)
	}
	if _, err := table.create(now.Add(2*lockTimeLeft), lock{root: "/f"}); err != nil {
		t.Errorf("later: %v", err)
	}
}

// TestLocksProperty drives a table at random, and checks after each step that no two locks are in each other's way, and
// that claims are answered as a walk over them by the letter of RFC 4918 would.
func TestLocksProperty(t *testing.T) {
	paths := []string{"/", "/a", "/a/b", "/a/b/c", "/ab", "/d"}
	rapid.Check(t, func(t *rapid.T) {
		table, now := newLockTable(), t0
		var tokens []string
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			p := rapid.SampledFrom(paths).Draw(t, "path")
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1:
				l, err := table.create(now, lock{
					root: p, deep: rapid.Bool().Draw(t, "deep"), shared: rapid.Bool().Draw(t, "shared"), timeout: time.Minute,
				})
				if err == nil {
					tokens = append(tokens, l.token)
				}
			case 2:
				if len(tokens) > 0 {
					table.remove(now, rapid.SampledFrom(tokens).Draw(t, "token"), p)
				}
			case 3:
				now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
			case 4:
				held := make(map[string]bool)
				for _, token := range tokens {
					if rapid.Bool().Draw(t, "held") {
						held[token] = true
					}
				}
				checkClaim(t, table, now, held, claim{p, reach(rapid.IntRange(0, 2).Draw(t, "reach"))}, paths)
			}
			checkLocks(t, table)
		}
	})
}

func checkLocks(t *rapid.T, table *lockTable) {
	for _, a := range table.byToken {
		for _, b := range table.byToken {
			if a != b && (a.covers(b.root) || b.covers(a.root)) && !(a.shared && b.shared) {
				t.Fatalf("%+v and %+v", a, b)
			}
		}
	}
}

// checkClaim compares use with the plain rule: every path that is touched, and the folder whose list changes, is free or
// has a lock among those held.
func checkClaim(t *rapid.T, table *lockTable, now time.Time, held map[string]bool, c claim, paths []string) {
	touched := map[string]bool{c.path: true}
	if c.reach != itself && c.path != "/" {
		touched[parent(c.path)] = true
	}
	for _, p := range paths {
		touched[p] = touched[p] || c.reach == subtree && below(p, c.path)
	}
	if c.reach == subtree {
		for _, p := range paths { // there may be something in each that no lock is about
			if p == c.path || below(p, c.path) {
				touched[strings.TrimSuffix(p, "/")+"/member"] = true
			}
		}
	}
	want := true
	for p, is := range touched {
		covering := table.covering(now, p)
		mine := len(covering) == 0
		for _, l := range covering {
			mine = mine || held[l.token]
		}
		want = want && (!is || mine)
	}
	release, blocked := table.use(now, held, c)
	if (blocked == "") != want {
		t.Fatalf("claim %+v is blocked at %q; locks are %+v", c, blocked, table.byToken)
	}
	if release != nil {
		release()
	}
}

func TestParseTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 0, "Infinite": lockTimeMax, "Second-60": time.Minute, "infinite, Second-4100000000": lockTimeMax,
		"Second-99999999999999": lockTimeMax, "Second-99999999999999999999": 0, "Extended x, Second-5": 5 * time.Second,
		"Second--5": 0, "Second-": 0, "x": 0,
	} {
		if got := parseTimeout(text); got != want {
			t.Errorf("parseTimeout(%q) = %v; want %v", text, got, want)
		}
	}
}
