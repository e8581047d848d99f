package roster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"github.com/shoal-os/shoal/dht/ident"
)

var cast = []string{"anna", "ben", "cleo", "dora", "eve"}

// anyRecord draws a record among the cast, right or wrong.
func anyRecord(w *world, rt *rapid.T) ident.Record {
	who, by := rapid.SampledFrom(cast).Draw(rt, "who"), rapid.SampledFrom(cast).Draw(rt, "by")
	return recordBy(w, rt, who, by)
}

func recordBy(w *world, rt *rapid.T, who, by string) ident.Record {
	n := rapid.Uint64Range(1, 4).Draw(rt, "n")
	switch rapid.IntRange(0, 5).Draw(rt, "kind") {
	case 0, 1:
		role := rapid.SampledFrom([]ident.Role{ident.RoleMember, ident.RoleTerminal, ident.RoleAdmin}).Draw(rt, "role")
		return w.cert(who, by, n, role, start, time.Duration(n)*time.Hour)
	case 2:
		return w.appoint(who, by)
	case 3:
		return w.evict(who, by, rapid.SampledFrom([]string{"", "ben", "cleo", "ben,cleo", "dora"}).Draw(rt, "keep"), start.Add(time.Duration(n)))
	case 4:
		return must[ident.Departure](w.t)(ident.IssueDeparture(w.key(by), w.origin.ID(), n, start))
	default:
		return must[ident.Notice](w.t)(ident.IssueNotice(w.key(by), w.origin.ID(), n, [32]byte{byte(n)}, start))
	}
}

// founded begins with a pool of anna's.
func founded(w *world) []ident.Record {
	return []ident.Record{w.cert("anna", "anna", 1, ident.RoleAdmin, start, ident.CertificateLife)}
}

var instant = Moment{Boot: time.Hour, Wall: start.Add(time.Minute)}

func learned(w *world, recs ...ident.Record) *View {
	r := New(Config{Origin: w.origin, Self: w.id("anna")})
	r.Step(instant, Learn{Records: recs})
	return r.View()
}

// standings says all that a view has to say, but for what the wall clock of learning leaves.
func standings(w *world, v *View) string {
	var out []string
	for _, m := range append(v.Members(), v.Former()...) {
		out = append(out, fmt.Sprintf("%s %s %s", w.names[m.ID], m.Role, m.Standing))
	}
	if n, ok := v.Notice(); ok {
		out = append(out, fmt.Sprintf("secret %d by %s", n.Number, w.names[n.Signer]))
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// The same set of records gives the same roster, in whatever order, pieces and repetitions it comes.
func TestOrderDoesNotMatter(t *testing.T) {
	w := newWorld(t, "anna")
	rapid.Check(t, func(rt *rapid.T) {
		recs := founded(w)
		for range rapid.IntRange(1, 14).Draw(rt, "records") {
			recs = append(recs, anyRecord(w, rt))
		}
		want := learned(w, recs...)
		r := New(Config{Origin: w.origin, Self: w.id("anna")})
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(recs)-1), 0, 2*len(recs)).Draw(rt, "order") {
			r.Step(instant, Learn{Records: recs[i : i+1]})
		}
		for _, i := range rapid.Permutation(indices(len(recs))).Draw(rt, "rest") {
			r.Step(instant, Learn{Records: recs[i : i+1]})
		}
		got := r.View()
		if standings(w, got) != standings(w, want) || got.Digest() != want.Digest() {
			rt.Errorf("one by one: %s\nat once: %s", standings(w, got), standings(w, want))
		}
		// What it passes on brings another to the same.
		if passed := learned(w, got.Records()...); passed.Digest() != got.Digest() || members(w, passed) != members(w, got) {
			rt.Errorf("passed on: %s\nhere: %s", standings(w, passed), standings(w, got))
		}
	})
}

func indices(n int) (out []int) {
	for i := range n {
		out = append(out, i)
	}
	return out
}

func members(w *world, v *View) string {
	var out []string
	for _, m := range v.Members() {
		out = append(out, w.names[m.ID]+" "+m.Role.String())
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// Whoever the first admin evicted is out for good, and nothing that it signs, however dated, changes anything for others:
// nobody new comes in by it, nobody goes.
func TestAnEvictedAdminHasNoSay(t *testing.T) {
	w := newWorld(t, "anna")
	rapid.Check(t, func(rt *rapid.T) {
		recs := founded(w)
		for range rapid.IntRange(1, 12).Draw(rt, "records") {
			recs = append(recs, anyRecord(w, rt))
		}
		recs = append(recs, w.evict("ben", "anna", "", start))
		before := learned(w, recs...)
		if _, reason := before.Judge(w.id("anna"), start); reason != OK {
			return // an admin whom nobody senior evicted can take the first one down too: see DESIGN.md of dht/pool
		}
		more := slices.Clone(recs)
		for range rapid.IntRange(1, 8).Draw(rt, "forgeries") {
			who := rapid.SampledFrom(append([]string{"mallory", "oscar"}, cast...)).Draw(rt, "victim")
			by := rapid.SampledFrom([]string{"ben", "mallory", "oscar"}).Draw(rt, "forger")
			rec := recordBy(w, rt, who, by)
			if slices.ContainsFunc(recs, func(r ident.Record) bool { return slotOf(r) == slotOf(rec) }) {
				continue // what it signed before its eviction it may replace; none of it counts
			}
			more = append(more, rec)
		}
		after := learned(w, more...)
		if d, ok := find(more, "left/"+w.id("ben").String()); ok && d.By() == w.id("ben") {
			return
		}
		if got, want := members(w, after), members(w, before); got != want {
			rt.Errorf("before: %s\nafter: %s", want, got)
		}
		for _, name := range []string{"ben", "mallory", "oscar"} {
			if _, reason := after.Judge(w.id(name), start); reason == OK {
				rt.Errorf("%s is in", name)
			}
		}
	})
}

func find(recs []ident.Record, key string) (ident.Record, bool) {
	for _, r := range recs {
		if r.Key() == key {
			return r, true
		}
	}
	return nil, false
}

// Only a chain of appointments from the first admin makes an admin, and only what an admin signed makes a member.
func TestNoRightWithoutAChain(t *testing.T) {
	w := newWorld(t, "anna")
	outsiders := []string{"ben", "cleo", "dora", "eve"}
	rapid.Check(t, func(rt *rapid.T) {
		recs := founded(w)
		for range rapid.IntRange(1, 20).Draw(rt, "records") {
			recs = append(recs, recordBy(w, rt, rapid.SampledFrom(cast).Draw(rt, "who"), rapid.SampledFrom(outsiders).Draw(rt, "by")))
		}
		if got := members(w, learned(w, recs...)); got != "anna admin" {
			rt.Errorf("%s", got)
		}
	})
}

// Nobody is judged away who was heard of within the time, nor while this peer has just woken up.
func TestNobodyIsJudgedTooSoon(t *testing.T) {
	w := newWorld(t, "anna")
	recs := append(founded(w), w.cert("ben", "anna", 1, ident.RoleMember, start, ident.CertificateLife))
	rapid.Check(t, func(rt *rapid.T) {
		r := New(Config{Origin: w.origin, Self: w.id("anna")})
		now := Moment{Boot: time.Hour, Wall: start}
		r.Step(now, Learn{Records: recs})
		awake, heard, bye := now.Boot, now.Boot, false
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			gap := time.Duration(rapid.Int64Range(0, int64(8*time.Second)).Draw(rt, "gap"))
			if rapid.IntRange(0, 9).Draw(rt, "sleeps") == 0 {
				gap += time.Hour
			}
			now.Boot, now.Wall = now.Boot+gap, now.Wall.Add(gap)
			if gap > stallAfter {
				awake = now.Boot
			}
			var out Out
			switch rapid.IntRange(0, 6).Draw(rt, "event") {
			case 0, 1:
				out, heard, bye = r.Step(now, Beat{Peer: w.id("ben")}), now.Boot, false
			case 2:
				out, bye = r.Step(now, Bye{Peer: w.id("ben")}), true
			case 3:
				out, awake = r.Step(now, Woke{}), now.Boot
			default:
				out = r.Step(now, Tick{})
			}
			for _, c := range out.Changes {
				soon := now.Boot-heard <= AwayAfter || now.Boot-awake < WakeGrace
				if c.Now.ID == w.id("ben") && c.Was.State == Online && c.Now.State != Online && soon && !bye {
					rt.Fatalf("judged %v after it was heard, %v after waking", now.Boot-heard, now.Boot-awake)
				}
			}
			if p := r.there[w.id("ben")]; p != nil && p.state == Online && p.beat+AwayAfter+1 > now.Boot && out.Wake > p.beat+AwayAfter+1 {
				rt.Fatalf("wants to be woken %v after ben is away", out.Wake-p.beat-AwayAfter)
			}
			if out.Wake <= now.Boot || out.Wake > now.Boot+BeatEvery {
				rt.Fatalf("wants to be woken %v ahead", out.Wake-now.Boot)
			}
		}
	})
}

// A member with bad intent can fill only its part of the memory, and what counts still fits.
func TestStrayRecordsAreBounded(t *testing.T) {
	w := newWorld(t, "anna")
	r := New(Config{Origin: w.origin, Self: w.id("anna")})
	r.Step(instant, Learn{Records: founded(w)})
	refused := 0
	for i := range strayMax + 10 {
		name := fmt.Sprintf("sock %d", i)
		out := r.Step(instant, Learn{Records: []ident.Record{w.appoint(name, name)}})
		refused += len(out.Rejected)
		if len(out.Save) != 0 || len(r.records) > strayMax+1 {
			t.Fatalf("%d held, saved %v", len(r.records), out.Save)
		}
	}
	if refused != strayMax+10 {
		t.Errorf("%d were refused", refused)
	}
	out := r.Step(instant, Learn{Records: []ident.Record{w.cert("ben", "anna", 1, ident.RoleMember, start, time.Hour)}})
	if len(out.Save) != 1 {
		t.Errorf("what counts finds no room: %+v", out)
	}
}

func TestSeenOutlivesARestart(t *testing.T) {
	w := newWorld(t, "anna")
	seen := map[peer.ID]time.Time{w.id("ben"): start.Add(-80 * time.Hour)}
	r := New(Config{Origin: w.origin, Self: w.id("anna"), Seen: seen})
	now := Moment{Boot: time.Hour, Wall: start}
	r.Step(now, Learn{Records: append(founded(w), w.cert("ben", "anna", 1, ident.RoleMember, start, ident.CertificateLife))})
	for range 10 {
		now.Boot, now.Wall = now.Boot+BeatEvery, now.Wall.Add(BeatEvery)
		r.Step(now, Tick{})
	}
	m, _ := r.View().Judge(w.id("ben"), now.Wall)
	if m.State != Absent || !m.Seen.Equal(seen[m.ID]) {
		t.Errorf("%v, seen %v", m.State, m.Seen)
	}
}

func TestReasonsAreSaid(t *testing.T) {
	seen := make(map[string]bool)
	for r := OK; r <= ReasonMax; r++ {
		if s := r.String(); s == "" || seen[s] {
			t.Errorf("reason %d reads %q", r, s)
		}
		seen[r.String()] = true
	}
	if !strings.Contains((ReasonMax + 1).String(), "16") {
		t.Error((ReasonMax + 1).String())
	}
}

// TestPace: a large pool's heartbeats are slower, and its members are given as much longer to be silent.
func TestPace(t *testing.T) {
	for members, want := range map[int]time.Duration{0: BeatEvery, 64: BeatEvery, 128: 2 * BeatEvery, 1 << 20: paceMost * BeatEvery} {
		if beat, away := Pace(members); beat != want || away != 5*want {
			t.Errorf("%d members: %v and %v", members, beat, away)
		}
	}
	w := newWorld(t, "anna")
	recs := founded(w)
	for i := range 127 {
		recs = append(recs, w.cert(fmt.Sprint("ben", i), "anna", 1, ident.RoleMember, start, ident.CertificateLife))
	}
	r := New(Config{Origin: w.origin, Self: w.id("anna")})
	now := Moment{Boot: time.Hour, Wall: start.Add(time.Minute)}
	tick := func(d time.Duration, ev Event) State {
		for end := now.Boot + d; now.Boot < end; {
			now.Boot, now.Wall = now.Boot+BeatEvery, now.Wall.Add(BeatEvery)
			r.Step(now, Tick{})
		}
		r.Step(now, ev)
		m, _ := r.View().Judge(w.id("ben5"), now.Wall)
		return m.State
	}
	r.Step(now, Learn{Records: recs[:1]})
	r.Step(now, Learn{Records: recs})
	tick(time.Minute, Beat{Peer: w.id("ben5")})
	if s := tick(2*AwayAfter-BeatEvery, Tick{}); s != Online {
		t.Errorf("it is %v before its time", s)
	}
	if s := tick(2*BeatEvery, Tick{}); s != Away {
		t.Errorf("it is %v although it was silent for five heartbeats", s)
	}
}
