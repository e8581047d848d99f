package market

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"github.com/shoal-os/shoal/tasks/job"
)

// desk is one worker whose stewards are the test.
type desk struct {
	t   testing.TB
	now Moment
	w   *Worker
	seq uint64 // of orders
}

var lendsAll = Lends{Cores: 4, Memory: 8 << 30, Mains: true, Wasm: true, Labels: []string{"os=linux"}}

func newDesk(t testing.TB, lends Lends) *desk {
	d := &desk{t: t, now: Moment(time.Hour), w: NewWorker("w")}
	d.step(WorkerEvent{Kind: Changed, Lends: lends})
	return d
}

func (d *desk) step(ev ...WorkerEvent) *WorkerOut {
	d.t.Helper()
	out := d.w.Step(d.now, ev...)
	if err := d.w.Check(); err != nil {
		d.t.Fatal(err)
	}
	return out
}

func (d *desk) pass(t time.Duration) *WorkerOut {
	d.now = d.now.Add(t)
	return d.step()
}

func adOf(n uint64, owner peer.ID) *Ad {
	ad := &Ad{Submitter: owner, Term: 1, Seq: 1, Open: 10, Stewards: []peer.ID{"s1", "s2", "s3"}, Leader: "s1",
		Needs: Needs{Kind: job.Wasm, Cores: 1, Memory: 1 << 30}}
	binary.BigEndian.PutUint64(ad.Job[:], n+1)
	return ad
}

// stand brings the worker to a standing, welcomed stream for a job.
func (d *desk) stand(ad *Ad) (id job.ID, stream uint64) {
	d.t.Helper()
	d.step(WorkerEvent{Kind: Announced, Ad: ad})
	out := d.step(WorkerEvent{Kind: Looked, Job: ad.Job})
	if len(out.Dials) != 1 {
		d.t.Fatalf("no dial: %+v", out)
	}
	stream = out.Dials[0].Stream
	d.step(WorkerEvent{Kind: Connected, Job: ad.Job, Stream: stream})
	d.order(ad.Job, stream, Order{Term: 1, Ack: 1, Full: 1, Welcome: true, Open: 10})
	return ad.Job, stream
}

func (d *desk) order(id job.ID, stream uint64, o Order) *WorkerOut {
	d.t.Helper()
	d.seq++
	o.Seq = d.seq
	return d.step(WorkerEvent{Kind: Ordered, Job: id, Stream: stream, Order: &o})
}

func grants(term uint64, tasks ...uint32) (out []Lease) {
	for _, t := range tasks {
		out = append(out, Lease{t, job.Token{Term: term, Seq: uint64(t) + 1}})
	}
	return out
}

func TestWorkerStartsWhatFits(t *testing.T) {
	d := newDesk(t, lendsAll)
	ad := adOf(1, "anna")
	ad.Needs.Memory = 3 << 30 // two fit into 8 GiB, though there are four cores
	id, stream := d.stand(ad)
	out := d.order(id, stream, Order{Term: 1, Ack: 1, Open: 10, Grants: grants(1, 0, 1, 2)})
	if len(out.Starts) != 2 {
		t.Fatalf("%d tasks start", len(out.Starts))
	}
	out = d.step(WorkerEvent{Kind: Ended, Job: id, End: End{Lease: out.Starts[0].Lease, Ran: time.Second, Result: []byte("r")}})
	if len(out.Starts) != 1 || len(out.Posts) != 1 || len(out.Posts[0].Report.Commits) != 1 {
		t.Errorf("%+v", out)
	}
}

func TestWorkerGivesBackWhatWaits(t *testing.T) {
	d := newDesk(t, lendsAll)
	id, stream := d.stand(adOf(1, "anna"))
	d.order(id, stream, Order{Term: 1, Ack: 1, Open: 10, Grants: grants(1, 0, 1, 2, 3, 4)})
	out := d.pass(queueMax)
	if len(out.Posts) == 0 || len(out.Posts[0].Report.Released) != 1 || out.Posts[0].Report.Why != Busy {
		t.Errorf("a task that found no core was kept: %+v", out)
	}
}

// TestKeptReadyByTheCoresTime: how many tasks a worker asks for beside those that run follows from how long each had its core,
// which on a busy machine is much longer than its program ran.
func TestKeptReadyByTheCoresTime(t *testing.T) {
	for _, c := range []struct{ had, ran time.Duration }{
		{aheadTime, aheadTime}, {aheadTime, time.Millisecond}, {aheadTime / 10, time.Millisecond}, {time.Microsecond, time.Microsecond},
	} {
		d := newDesk(t, lendsAll)
		id, stream := d.stand(adOf(1, "anna"))
		p := d.w.order[0]
		for i := range uint32(2 * aheadMax) {
			if n := d.w.ahead(p, 1); n > int(i) {
				t.Fatalf("%d are kept ready when %d have ended", n, i)
			}
			out := d.order(id, stream, Order{Term: 1, Ack: p.seq, Full: p.seq, Open: 1000, Grants: grants(1, i)})
			if len(out.Starts) != 1 {
				t.Fatalf("%d tasks start", len(out.Starts))
			}
			d.now = d.now.Add(c.had)
			d.step(WorkerEvent{Kind: Ended, Job: id, End: End{Lease: out.Starts[0].Lease, Ran: c.ran, Result: []byte("r")}})
		}
		want := min(lendsAll.Cores*int(aheadTime/c.had), aheadMax)
		if n := d.w.ahead(p, 1); n != want {
			t.Errorf("of tasks that run for %v and have a core for %v, %d are kept ready, not %d", c.ran, c.had, n, want)
		}
	}
}

// TestLessIsLent: the newest attempts are frozen, and given back when no room comes.
func TestLessIsLent(t *testing.T) {
	d := newDesk(t, lendsAll)
	id, stream := d.stand(adOf(1, "anna"))
	d.order(id, stream, Order{Term: 1, Ack: 1, Open: 10, Grants: grants(1, 0, 1)})
	d.now = d.now.Add(time.Second)
	d.order(id, stream, Order{Term: 1, Ack: 1, Open: 10, Grants: grants(1, 2, 3)})
	less := lendsAll
	less.Cores = 2
	out := d.step(WorkerEvent{Kind: Changed, Lends: less})
	if len(out.Freeze) != 2 || out.Freeze[0].Task < 2 || out.Freeze[1].Task < 2 {
		t.Fatalf("frozen: %v", out.Freeze)
	}
	d.now = d.now.Add(time.Second)
	less.Cores = 3
	if out = d.step(WorkerEvent{Kind: Changed, Lends: less}); len(out.Thaw) != 1 {
		t.Fatalf("thawed: %v", out.Thaw)
	}
	// Renewed meanwhile, or the leases would run out first.
	for range 4 {
		out = d.pass(RenewEvery)
		for _, p := range out.Posts {
			if p.Report.Full {
				d.order(id, stream, Order{Term: 1, Ack: p.Report.Seq, Full: p.Report.Seq, Open: 10})
			}
			if len(p.Report.Released) == 1 && p.Report.Why == Owner {
				return
			}
		}
	}
	t.Error("a frozen attempt without room was kept")
}

func TestNothingRunsPastItsLease(t *testing.T) {
	d := newDesk(t, lendsAll)
	id, stream := d.stand(adOf(1, "anna"))
	sent := d.now
	d.now = d.now.Add(2 * time.Second) // the grant was long on its way
	out := d.order(id, stream, Order{Term: 1, Ack: 1, Open: 10, Grants: grants(1, 0)})
	if len(out.Starts) != 1 || out.Starts[0].Until != sent.Add(SafeTTL) {
		t.Fatalf("%+v", out.Starts)
	}
	d.now = sent.Add(SafeTTL)
	if out = d.step(); len(out.Freeze) != 1 {
		t.Fatal("it runs on")
	}
	// A grant that comes after its time never starts.
	if out = d.order(id, stream, Order{Term: 1, Ack: 1, Open: 10, Grants: grants(1, 5)}); len(out.Starts) != 0 {
		t.Error("a grant started after its time")
	}
	if out = d.pass(frozenKeep); len(out.Kill) == 0 {
		t.Error("a frozen guest keeps its memory for ever")
	}
}

// TestFlood: announcements without end take bounded memory, and do not push out what is in hand.
func TestFlood(t *testing.T) {
	d := newDesk(t, lendsAll)
	id, stream := d.stand(adOf(0, "anna"))
	d.order(id, stream, Order{Term: 1, Ack: 1, Open: 10, Grants: grants(1, 0)})
	looks := 0
	for n := range uint64(20_000) {
		d.now = d.now.Add(time.Microsecond)
		looks += len(d.step(WorkerEvent{Kind: Announced, Ad: adOf(n+1, "mallory")}).Looks)
	}
	if looks > ownedMax || len(d.w.order) > ownedMax+1 {
		t.Errorf("one submitter has %d looks at jobs, %d kept in mind", looks, len(d.w.order))
	}
	for n := range uint64(20_000) {
		d.step(WorkerEvent{Kind: Announced, Ad: adOf(n+50_000, peer.ID(fmt.Sprint("m", n)))})
	}
	if len(d.w.order) > jobsMax || d.w.jobs[id] == nil || d.w.Held()[0].Phase != Running {
		t.Errorf("%d jobs in mind", len(d.w.order))
	}
}

func TestWhyNot(t *testing.T) {
	for name, c := range map[string]struct {
		lends  func(*Lends)
		needs  func(*Ad)
		do     func(d *desk, id job.ID)
		reason string
	}{
		"proc":     {needs: func(a *Ad) { a.Needs.Kind = job.Proc }, reason: "allow-exec"},
		"wasm":     {lends: func(l *Lends) { l.Wasm = false }, reason: "WebAssembly"},
		"kind":     {needs: func(a *Ad) { a.Needs.Kind = 9 }, reason: "kind of program"},
		"cores":    {needs: func(a *Ad) { a.Needs.Cores = 5 }, reason: "fewer cores"},
		"memory":   {needs: func(a *Ad) { a.Needs.Memory = 9 << 30 }, reason: "less memory"},
		"label":    {needs: func(a *Ad) { a.Needs.Labels = []string{"gpu"} }, reason: "not gpu"},
		"battery":  {lends: func(l *Lends) { l.Cores, l.Why = Allow(WhenMains, 4, false, 80, true) }, reason: "battery"},
		"in use":   {lends: func(l *Lends) { l.Cores, l.Why = Allow(WhenIdle, 4, true, 80, false) }, reason: "only when idle"},
		"empty":    {lends: func(l *Lends) { l.Cores, l.Why = Allow(WhenAlways, 4, false, 10, true) }, reason: "battery is low"},
		"mine":     {do: func(d *desk, _ job.ID) { d.step(WorkerEvent{Kind: Mine, On: true}) }, reason: "shoal mine"},
		"stopping": {do: func(d *desk, _ job.ID) { d.step(WorkerEvent{Kind: Stopping}) }, reason: "stopping"},
		"looking":  {reason: "looked at"},
		"look": {do: func(d *desk, id job.ID) {
			d.step(WorkerEvent{Kind: Looked, Job: id, Look: Look{Refused: "its module does not compile"}})
		}, reason: "does not compile"},
		"dialing": {do: func(d *desk, id job.ID) { d.step(WorkerEvent{Kind: Looked, Job: id}) }, reason: "leading steward"},
	} {
		lends, ad := lendsAll, adOf(1, "anna")
		if c.lends != nil {
			c.lends(&lends)
		}
		if c.needs != nil {
			c.needs(ad)
		}
		d := newDesk(t, lends)
		d.step(WorkerEvent{Kind: Announced, Ad: ad})
		if c.do != nil {
			c.do(d, ad.Job)
		}
		if got := d.w.Why(ad.Job); !strings.Contains(got, c.reason) {
			t.Errorf("%s: %q", name, got)
		}
	}
	d := newDesk(t, lendsAll)
	if got := d.w.Why(job.ID{9}); !strings.Contains(got, "no announcement") {
		t.Errorf("an unknown job: %q", got)
	}
	id, stream := d.stand(adOf(1, "anna"))
	if got := d.w.Why(id); !strings.Contains(got, "waits for a task") {
		t.Errorf("standing by: %q", got)
	}
	d.order(id, stream, Order{Term: 1, Ack: 1, Grants: grants(1, 0)})
	if got := d.w.Why(id); !strings.Contains(got, "1 running") {
		t.Errorf("running: %q", got)
	}
	d.order(id, stream, Order{Term: 1, Over: true})
	if got := d.w.Why(id); got != "it is over" {
		t.Errorf("over: %q", got)
	}
	if out := d.step(WorkerEvent{Kind: Announced, Ad: adOf(1, "anna")}); len(out.Looks) != 0 {
		t.Error("a job that is over was taken up again")
	}
}

func TestStopping(t *testing.T) {
	d := newDesk(t, lendsAll)
	id, stream := d.stand(adOf(1, "anna"))
	d.order(id, stream, Order{Term: 1, Ack: 1, Open: 10, Grants: grants(1, 0)})
	out := d.step(WorkerEvent{Kind: Stopping})
	if len(out.Kill) != 1 || out.Posts[0].Report.Why != Leaving || len(out.Posts[0].Report.Released) != 1 {
		t.Errorf("%+v", out)
	}
	if out = d.step(WorkerEvent{Kind: Announced, Ad: adOf(2, "ben")}); len(out.Looks) != 0 {
		t.Error("it looks at new jobs")
	}
}

// TestDeadStreamIsLeft: a steward that answers nothing is left for another, though nobody said that the stream broke.
func TestDeadStreamIsLeft(t *testing.T) {
	d := newDesk(t, lendsAll)
	_, stream := d.stand(adOf(1, "anna"))
	var out *WorkerOut
	for range 3 {
		out = d.pass(RenewEvery)
	}
	if len(out.Hangup) != 1 || out.Hangup[0] != stream || len(out.Dials) != 1 || out.Dials[0].Peer != "s2" {
		t.Errorf("%+v", out)
	}
	if out = d.pass(dialWait); len(out.Hangup) != 1 || len(out.Dials) != 0 {
		t.Errorf("a dial that is not answered: %+v", out)
	}
	if out = d.pass(dialMax); len(out.Dials) != 1 || out.Dials[0].Peer != "s3" {
		t.Errorf("the next one: %+v", out)
	}
}

// TestAnyOrder: whatever stewards say, the worker stays within its bounds and keeps its books.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := newDesk(t, lendsAll)
		var streams []Dial
		note := func(out *WorkerOut) {
			streams = append(streams, out.Dials...)
			for _, ad := range out.Looks {
				streams = append(streams, d.step(WorkerEvent{Kind: Looked, Job: ad.Job}).Dials...)
			}
		}
		lease := rapid.Custom(func(t *rapid.T) Lease {
			return Lease{uint32(rapid.IntRange(0, 6).Draw(t, "task")), job.Token{Term: rapid.Uint64Range(0, 3).Draw(t, "term"), Seq: rapid.Uint64Range(0, 9).Draw(t, "seq")}}
		})
		var running []Attempt
		for range rapid.IntRange(0, 150).Draw(rt, "steps") {
			d.now = d.now.Add(time.Duration(rapid.Int64Range(0, int64(4*time.Second)).Draw(rt, "time")))
			var ev WorkerEvent
			ev.Kind = WorkerKind(rapid.IntRange(0, int(Sleeping)).Draw(rt, "kind"))
			ev.On = rapid.IntRange(0, 3).Draw(rt, "on") == 0
			ev.Lends = lendsAll
			ev.Lends.Cores = rapid.IntRange(0, 4).Draw(rt, "cores")
			ad := adOf(rapid.Uint64Range(0, 3).Draw(rt, "job"), "anna")
			ad.Term, ad.Seq = rapid.Uint64Range(0, 3).Draw(rt, "adTerm"), rapid.Uint64Range(0, 99).Draw(rt, "adSeq")
			ev.Ad, ev.Job = ad, ad.Job
			if n := len(streams); n > 0 {
				s := streams[rapid.IntRange(max(0, n-3), n-1).Draw(rt, "stream")]
				ev.Job, ev.Stream = s.Job, s.Stream
			}
			ev.Order = &Order{
				Seq: rapid.Uint64Range(0, 200).Draw(rt, "seq"), Ack: rapid.Uint64Range(0, 20).Draw(rt, "ack"), Full: rapid.Uint64Range(0, 20).Draw(rt, "full"),
				Term: rapid.Uint64Range(0, 3).Draw(rt, "term"), Welcome: rapid.Bool().Draw(rt, "welcome"),
				NotLeader: rapid.IntRange(0, 9).Draw(rt, "not") == 0, Leader: peer.ID(rapid.SampledFrom([]string{"", "s1", "s2", "x"}).Draw(rt, "leader")),
				Over: rapid.IntRange(0, 50).Draw(rt, "over") == 0, Open: 3,
				Grants:  rapid.SliceOfN(lease, 0, 4).Draw(rt, "grants"),
				Revoked: rapid.SliceOfN(lease, 0, 2).Draw(rt, "revoked"),
			}
			for _, l := range rapid.SliceOfN(lease, 0, 2).Draw(rt, "verdicts") {
				ev.Order.Verdicts = append(ev.Order.Verdicts, Verdict{l, Status(rapid.IntRange(0, 12).Draw(rt, "status"))})
			}
			if n := len(running); n > 0 {
				a := running[rapid.IntRange(0, n-1).Draw(rt, "ends")]
				ev.End = End{Lease: a.Lease, Ran: time.Second}
				if ev.Kind == Ended {
					ev.Job = a.Job
				}
				if rapid.Bool().Draw(rt, "result") {
					ev.End.Result, ev.End.Failed = []byte("r"), rapid.Bool().Draw(rt, "failed")
				}
			}
			out := d.step(ev)
			for _, s := range out.Starts {
				running = append(running, s.Attempt)
			}
			for _, p := range out.Posts {
				if len(p.Report.Held) > HeldMax || len(p.Report.Commits)+len(p.Report.Failures) > CommitsMax {
					rt.Fatal("a report over its bounds")
				}
			}
			note(out)
		}
	})
}

// TestRevokedIsNotLive: a result whose lease was revoked is handed over, but no later renewal makes the lease live again: a
// later leader of an exclusive job would take it for the newest attempt's.
func TestRevokedIsNotLive(t *testing.T) {
	d := newDesk(t, lendsAll)
	id, stream := d.stand(adOf(1, "anna"))
	lease := grants(1, 0)[0]
	d.order(id, stream, Order{Term: 1, Ack: 1, Open: 10, Grants: []Lease{lease}})
	d.step(WorkerEvent{Kind: Ended, Job: id, End: End{Lease: lease, Ran: time.Second, Result: []byte("r")}})
	d.order(id, stream, Order{Term: 1, Open: 10, Revoked: []Lease{lease}})
	for range 3 {
		for _, p := range d.pass(RenewEvery).Posts {
			if !p.Report.Full {
				continue
			}
			if len(p.Report.Held) != 1 || p.Report.Held[0].Live || len(p.Report.Commits) != 1 {
				t.Fatalf("%+v", p.Report)
			}
			d.order(id, stream, Order{Term: 1, Ack: p.Report.Seq, Full: p.Report.Seq, Open: 10})
		}
	}
}
