package market

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"github.com/shoal-os/shoal/tasks/job"
)

// bench is one leading steward whose workers and log are the test.
type bench struct {
	t     testing.TB
	now   Moment
	s     *Steward
	l     *Ledger
	index uint64
	seq   map[peer.ID]uint64
}

func newBench(t testing.TB, change func(*job.Spec)) *bench {
	signed := testJob(t, change)
	b := &bench{t: t, now: Moment(time.Hour), s: NewSteward(signed.ID, "s"), l: NewLedger(signed.ID, nil), seq: map[peer.ID]uint64{}}
	b.apply(Command{Kind: Submit, Data: signed.Raw})
	v, _ := b.l.View()
	b.step(StewardEvent{Kind: Lead, Term: 1, View: v, Stewards: []peer.ID{"s"}})
	return b
}

func (b *bench) apply(c ...Command) {
	b.t.Helper()
	data, err := EncodeBatch(time.UnixMilli(1), c)
	if err != nil {
		b.t.Fatal(err)
	}
	b.index++
	var got Applied
	b.l.applied = func(a Applied) { got = a }
	b.l.Apply(b.index, 1, data)
	b.step(StewardEvent{Kind: Result, Applied: got})
}

func (b *bench) step(ev StewardEvent) *StewardOut {
	b.t.Helper()
	out := b.s.Step(b.now, ev)
	if err := b.s.Check(); err != nil {
		b.t.Fatal(err)
	}
	return out
}

// say has a worker report; the first time it opens its stream.
func (b *bench) say(id peer.ID, r Report) *StewardOut {
	b.t.Helper()
	if b.seq[id] == 0 {
		b.step(StewardEvent{Kind: Joined, Peer: id, Stream: 1})
		r.Full = true
	}
	b.seq[id]++
	r.Seq, r.Term = b.seq[id], 1
	if r.Ack == 0 {
		r.Ack = 1 << 40
	}
	return b.step(StewardEvent{Kind: Reported, Peer: id, Stream: 1, Report: &r})
}

func granted(out *StewardOut, id peer.ID) (list []Lease) {
	for _, a := range out.Orders {
		if a.To == id {
			list = append(list, a.Order.Grants...)
		}
	}
	return list
}

func TestAnnouncements(t *testing.T) {
	b := newBench(t, func(s *job.Spec) {})
	start := b.now
	var times []time.Duration
	for range 100_000 {
		b.now = b.now.Add(100 * time.Millisecond)
		if out := b.step(StewardEvent{}); out.Announce != nil {
			times = append(times, b.now.Sub(start))
			if out.Announce.Open != 3 || out.Announce.Seq != uint64(len(times)+1) {
				t.Fatalf("%+v", out.Announce)
			}
		}
		if len(times) == 9 {
			break
		}
	}
	want := []time.Duration{1, 3, 7, 15, 31, 63, 123, 183, 243} // and the first at 0
	for i := range want {
		if d := times[i] - want[i]*time.Second; d < 0 || d > time.Second {
			t.Errorf("announced after %v", times)
			break
		}
	}
}

// TestGrantsAreSpread: a few tasks go to many workers, not all to the first; the fitter first.
func TestGrantsAreSpread(t *testing.T) {
	b := newBench(t, func(s *job.Spec) { s.Split.Count = 6 })
	for k := range 3 {
		b.say(peer.ID(fmt.Sprint("w", k)), Report{Offer: &Offer{}})
	}
	for k := range 3 {
		id := peer.ID(fmt.Sprint("w", k))
		b.s.apply(&StewardEvent{Kind: Reported, Peer: id, Stream: 1, Report: &Report{Seq: 9, Term: 1, Ack: 9, Offer: &Offer{Slots: 4, Ahead: 50, Fit: uint16(k)}}})
	}
	out := b.step(StewardEvent{})
	for k := range 3 {
		if got := granted(out, peer.ID(fmt.Sprint("w", k))); len(got) != 2 || got[0].Task != uint32(2-k) {
			t.Errorf("w%d has %v", k, got)
		}
	}
}

// TestKeptReady: with plenty open a worker also gets what it keeps ready, but never more than its part of half of what is left.
func TestKeptReady(t *testing.T) {
	b := newBench(t, func(s *job.Spec) { s.Split.Count = 100 })
	if got := granted(b.say("w", Report{Offer: &Offer{Slots: 2, Ahead: 20}}), "w"); len(got) != 22 {
		t.Errorf("%d granted", len(got))
	}
	b = newBench(t, func(s *job.Spec) { s.Split.Count = 12 })
	if got := granted(b.say("w", Report{Offer: &Offer{Slots: 2, Ahead: 20}}), "w"); len(got) != 7 {
		t.Errorf("%d granted of 12", len(got))
	}
}

func TestPreferred(t *testing.T) {
	b := newBench(t, func(s *job.Spec) { s.Split.Count = 100 })
	got := granted(b.say("w", Report{Offer: &Offer{Slots: 5, Prefer: []Span{{40, 2}, {90, 1 << 31}, {500, 1}}}}), "w")
	var tasks []uint32
	for _, l := range got {
		tasks = append(tasks, l.Task)
	}
	if !slices.Equal(tasks, []uint32{40, 41, 90, 91, 92}) {
		t.Errorf("granted %v", tasks)
	}
}

// TestOfferInFlight: an offer that was made before the worker saw a grant is less that grant.
func TestOfferInFlight(t *testing.T) {
	b := newBench(t, func(s *job.Spec) { s.Split.Count = 100 })
	if got := granted(b.say("w", Report{Offer: &Offer{Slots: 3}, Ack: 1}), "w"); len(got) != 3 {
		t.Fatalf("%v", got)
	}
	if got := granted(b.say("w", Report{Offer: &Offer{Slots: 4}, Ack: 1}), "w"); len(got) != 1 {
		t.Errorf("granted %v", got)
	}
}

// TestBadResults: what is no result is not put into the log, and its task goes to somebody else.
func TestBadResults(t *testing.T) {
	failed := testResult(t, "it failed")
	for name, raw := range map[string][]byte{
		"empty": nil, "noise": []byte("\xff\xff\xff"), "large": make([]byte, job.ResultMax+1), "failed": failed,
	} {
		b := newBench(t, func(s *job.Spec) { s.Split.Count = 1 })
		got := granted(b.say("w", Report{Offer: &Offer{Slots: 1}}), "w")
		b.say("other", Report{Offer: &Offer{Slots: 1}})
		out := b.say("w", Report{Commits: []Commit{{Lease: got[0], Result: raw}}})
		if len(out.Propose) != 0 || len(granted(out, "other")) != 1 {
			t.Errorf("%s: %+v", name, out)
		}
	}
	b := newBench(t, func(s *job.Spec) {})
	for _, l := range []Lease{{77, job.Token{Term: 1, Seq: 1}}, {1 << 31, job.Token{}}} {
		if out := b.say("w", Report{Commits: []Commit{{Lease: l, Result: testResult(t, "")}}, Released: []Lease{l}}); len(out.Propose) != 0 {
			t.Errorf("a result of task %d is proposed", l.Task)
		}
	}
}

// TestFailedTaskGoesToAnother: and to who failed only if there is nobody else, after a while.
func TestFailedTaskGoesToAnother(t *testing.T) {
	b := newBench(t, func(s *job.Spec) { s.Split.Count = 1 })
	l := granted(b.say("w", Report{Offer: &Offer{Slots: 1}}), "w")[0]
	out := b.say("w", Report{Failures: []Failure{{l, testResult(t, "bad")}}, Offer: &Offer{Slots: 1}})
	b.apply(out.Propose...)
	if b.s.OpenTasks() != 1 {
		t.Fatal("the task is not open")
	}
	if why := b.s.Why(0, func(p peer.ID) string { return string(p) }); !strings.Contains(why, "failed 1 times (w)") {
		t.Errorf("why: %q", why)
	}
	if got := granted(b.say("other", Report{Offer: &Offer{Slots: 1}}), "other"); len(got) != 1 {
		t.Error("another does not get it")
	}
}

func TestWhyTask(t *testing.T) {
	name := func(p peer.ID) string { return string(p) }
	b := newBench(t, func(s *job.Spec) { s.Split.Count, s.Reduce = 3, &s.Command })
	check := func(task int, want string) {
		t.Helper()
		if got := b.s.Why(task, name); !strings.Contains(got, want) {
			t.Errorf("task %d: %q, want %q", task, got, want)
		}
	}
	check(0, "no peer has offered")
	check(3, "waits for the 3 tasks before")
	check(4, "no such task")
	b.say("w", Report{Offer: &Offer{Slots: 1}})
	check(0, "w has it ready")
	check(1, "in use; it is one of 2")
	out := b.say("w", Report{Commits: []Commit{{Lease: Lease{0, job.Token{Term: 1, Seq: 1}}, Result: testResult(t, "")}}})
	b.apply(out.Propose...)
	check(0, "it is done")
	b.step(StewardEvent{Kind: Follow, Term: 2, Peer: "x"})
	check(1, "does not lead")
}

// TestManyOpenTasks: the millionth task is found at once.
func TestManyOpenTasks(t *testing.T) {
	signed := testJob(t, func(s *job.Spec) { s.Split.Count = job.TasksMax })
	m := newMill(t, signed, 4)
	result := testResult(t, "")
	for m.rounds = 0; m.l.Progress().Done < 50_000; {
		done := m.l.Progress().Done
		m.turn(result)
		if m.rounds++; m.rounds > 10_000 {
			t.Fatalf("only %d tasks are done", done)
		}
	}
}

// TestAnyReport: whatever workers say, the steward keeps its books.
func TestAnyReport(t *testing.T) {
	good, bad := testResult(t, ""), testResult(t, "bad")
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(t, func(s *job.Spec) {
			s.Split.Count = 5
			s.Exclusive = rapid.Bool().Draw(rt, "exclusive")
			if rapid.Bool().Draw(rt, "reduce") {
				s.Reduce = &s.Command
			}
		})
		lease := rapid.Custom(func(t *rapid.T) Lease {
			return Lease{uint32(rapid.IntRange(0, 7).Draw(t, "task")), job.Token{Term: rapid.Uint64Range(0, 2).Draw(t, "term"), Seq: rapid.Uint64Range(0, 9).Draw(t, "seq")}}
		})
		leases := rapid.SliceOfN(lease, 0, 3)
		term := uint64(1)
		for range rapid.IntRange(0, 150).Draw(rt, "steps") {
			b.now = b.now.Add(time.Duration(rapid.Int64Range(0, int64(4*time.Second)).Draw(rt, "time")))
			ev := StewardEvent{Kind: StewardKind(rapid.IntRange(0, int(Confirmed)).Draw(rt, "kind"))}
			ev.Peer, ev.Stream = peer.ID(rapid.SampledFrom([]string{"w1", "w2", "w3"}).Draw(rt, "peer")), rapid.Uint64Range(1, 2).Draw(rt, "stream")
			ev.Term, ev.At = term, b.now
			switch ev.Kind {
			case Lead, Follow:
				if rapid.IntRange(0, 5).Draw(rt, "often") > 0 {
					continue
				}
				term++
				ev.Term = term
				ev.View, _ = b.l.View()
			case Result:
				continue // the ledger's alone
			case Refused:
				for _, l := range leases.Draw(rt, "refused") {
					ev.Commands = append(ev.Commands, Command{Kind: Finish, Lease: l})
				}
				ev.Never = rapid.Bool().Draw(rt, "never")
			}
			r := &Report{Seq: rapid.Uint64Range(0, 300).Draw(rt, "seq"), Ack: rapid.Uint64Range(0, 50).Draw(rt, "ack"), Full: rapid.Bool().Draw(rt, "full"),
				Term: rapid.Uint64Range(term-1, term).Draw(rt, "said"), Released: leases.Draw(rt, "released"), Why: Reason(rapid.IntRange(0, 9).Draw(rt, "why"))}
			for _, l := range leases.Draw(rt, "held") {
				r.Held = append(r.Held, Held{l, Phase(rapid.IntRange(0, 6).Draw(rt, "phase")), rapid.Bool().Draw(rt, "live"), time.Second})
			}
			for _, l := range leases.Draw(rt, "commits") {
				r.Commits = append(r.Commits, Commit{l, -time.Second, rapid.SampledFrom([][]byte{good, bad, nil}).Draw(rt, "result")})
			}
			for _, l := range leases.Draw(rt, "failures") {
				r.Failures = append(r.Failures, Failure{l, rapid.SampledFrom([][]byte{good, bad, []byte("x")}).Draw(rt, "failure")})
			}
			if rapid.Bool().Draw(rt, "offers") {
				r.Offer = &Offer{Slots: rapid.IntRange(-5, 5).Draw(rt, "slots"), Ahead: rapid.IntRange(-5, 5).Draw(rt, "ahead"), Prefer: []Span{{3, 1 << 31}}}
			}
			ev.Report = r
			out := b.step(ev)
			if len(out.Propose) > 0 && rapid.Bool().Draw(rt, "log") {
				b.applyIn(term, slices.Clone(out.Propose))
			}
		}
	})
}

func (b *bench) applyIn(term uint64, c []Command) {
	data, err := EncodeBatch(time.UnixMilli(1), c)
	if err != nil {
		b.t.Fatal(err)
	}
	b.index++
	var got Applied
	b.l.applied = func(a Applied) { got = a }
	b.l.Apply(b.index, term, data)
	b.step(StewardEvent{Kind: Result, Applied: got})
}
