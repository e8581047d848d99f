package tasks

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pooltest"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

func TestWhy(t *testing.T) {
	t.Parallel()
	boxes, runners := withGates(t, 3)
	runners[2].refuse = "the program is too new for it"
	spec := count(3, "gate")
	spec.Needs = []string{"os=test"}
	s := boxes[0].submit(spec)
	busy(t, runners[:2]...)
	wait(t, "everybody says why", func() bool {
		list, err := boxes[1].Why(t.Context(), s.ID, 2)
		if err != nil || len(list) != 4 || !list[0].Steward {
			t.Fatalf("%+v, %v", list, err)
		}
		i := slices.IndexFunc(list, func(r PeerReason) bool { return !r.Steward && r.Peer == boxes[2].self.ID })
		return strings.Contains(list[0].Reason, "in use") && list[i].Reason == runners[2].refuse
	})
	if _, err := boxes[1].Why(t.Context(), s.ID, 3); !errors.Is(err, ErrNoTask) {
		t.Errorf("a task that there is not: %v", err)
	}
	if _, err := boxes[1].Why(t.Context(), job.ID{1}, 0); !errors.Is(err, ErrNoJob) {
		t.Errorf("a job that there is not: %v", err)
	}
	for _, r := range runners {
		r.open()
	}
}

func TestNoSuchJob(t *testing.T) {
	t.Parallel()
	boxes := newPool(t, 2)
	id := job.ID{7}
	_, err := boxes[0].Job(t.Context(), id)
	_, err2 := boxes[0].Result(t.Context(), id, 0)
	err3 := boxes[0].Kill(t.Context(), id, "")
	var err4 error
	for _, err4 = range boxes[0].Watch(t.Context(), id) {
	}
	for _, err := range []error{err, err2, err3, err4} {
		if !errors.Is(err, ErrNoJob) {
			t.Errorf("%v", err)
		}
	}
	s := boxes[0].submit(count(2, "task"))
	boxes[0].all(s.ID)
	if _, err := boxes[1].Result(t.Context(), s.ID, 2); !errors.Is(err, ErrNoTask) {
		t.Errorf("%v", err)
	}
	list, err := boxes[1].Jobs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "it is listed", func() bool {
		list, err = boxes[1].Jobs(t.Context())
		return err == nil && len(list) == 1 && list[0].State == Done && list[0].Name == "test"
	})
	if ids, err := boxes[1].Find(t.Context(), s.ID.Short()); err != nil || len(ids) != 1 || ids[0] != s.ID {
		t.Errorf("%v, %v", ids, err)
	}
	if _, err := boxes[0].Submit(t.Context(), job.Spec{}, SubmitOptions{}); !errors.Is(err, ErrSpec) {
		t.Errorf("%v", err)
	}
}

// TestATerminal may use the pool, and lends nothing.
func TestATerminal(t *testing.T) {
	t.Parallel()
	boxes := newPool(t, 3)
	term := newBox(t, 8).invited(boxes[0], ident.RoleTerminal)
	wait(t, "it is in", func() bool { return len(term.pool.Members()) == 4 && term.online(boxes[1].self.ID) })
	s := term.submit(count(5, "task"))
	if slices.Contains(s.Stewards, term.self.ID) || len(s.Stewards) != 3 {
		t.Errorf("%+v", s)
	}
	for _, r := range term.all(s.ID) {
		if r.Worker == term.self.ID || r.State != market.Succeeded {
			t.Errorf("%+v", r)
		}
	}
	// Its own jobs it may end, others' it may not, and it may not work.
	own := term.submit(count(5, "hang"))
	if err := term.Kill(t.Context(), own.ID, ""); err != nil {
		t.Error(err)
	}
	other := boxes[1].submit(count(5, "hang"))
	if err := term.Kill(t.Context(), other.ID, ""); !errors.Is(err, ErrRole) {
		t.Errorf("a terminal killed another's job: %v", err)
	}
	if err := boxes[1].Kill(t.Context(), other.ID, ""); err != nil {
		t.Error(err)
	}
	if seats := term.allSeats(); len(seats) > 0 {
		t.Error("it is a steward")
	}
	// A spec that is not its own.
	signed, err := job.Sign(boxes[1].self.Key, withPool(boxes[1], count(1, "task")))
	if err != nil {
		t.Fatal(err)
	}
	_, err = term.ask(t.Context(), boxes[0].self.ID, &pb.Ask{Kind: talk.AskSubmit, Data: signed.Raw})
	if !errors.Is(known(err), ErrSpec) {
		t.Errorf("another's spec was submitted: %v", err)
	}
}

func withPool(b *box, s job.Spec) job.Spec {
	s.Pool, s.Created = b.pool.ID(), b.cfg.Now()
	return s
}

// TestStrangers tries both protocols, and all others, as everybody who is no member.
func TestStrangers(t *testing.T) {
	t.Parallel()
	b := newPool(t, 1)[0]
	for _, id := range []string{string(talk.Market), string(talk.Log)} {
		if !slices.ContainsFunc(b.pool.Protocols(), func(p protocol.ID) bool { return string(p) == id }) {
			t.Fatalf("%s is not among %v", id, b.pool.Protocols())
		}
	}
	pooltest.Refusals(t, pooltest.Victim{
		Pool: b.pool, At: peer.AddrInfo{ID: b.self.ID, Addrs: b.host.Addrs()}, Admin: b.self, Tell: b.names.Put,
	})
}

// TestForgedAnnouncements are refused by the topic, or found out when the spec is read.
func TestForgedAnnouncements(t *testing.T) {
	t.Parallel()
	boxes, runners := withGates(t, 2)
	s := boxes[0].submit(count(1, "gate"))
	wait(t, "it runs", func() bool { return runners[0].running()+runners[1].running() > 0 })
	var real *market.Ad
	wait(t, "it was announced", func() bool {
		for _, b := range boxes {
			for _, seat := range b.allSeats() {
				if ad := seat.ad.Load(); ad != nil {
					real = ad
				}
			}
		}
		return real != nil
	})
	raw, err := talk.EncodeAd(real)
	if err != nil {
		t.Fatal(err)
	}
	if CheckAd(real.Leader, raw) != nil || CheckAd(boxes[1].self.ID, raw) == nil || CheckAd(real.Leader, append(raw, 0)) == nil {
		t.Error("the topic's check is wrong")
	}
	forged := *real
	forged.Priority++
	if _, err := boxes[1].hand.lookAt(t.Context(), &forged); err == nil {
		t.Error("an announcement that the submitter did not sign was believed")
	}
	forged = *real
	forged.Job[0]++
	if _, err := boxes[1].hand.lookAt(t.Context(), &forged); err == nil {
		t.Error("a job that there is not was looked at")
	}
	if _, err := boxes[1].hand.lookAt(t.Context(), real); err != nil {
		t.Error(err)
	}
	for _, r := range runners {
		r.open()
	}
	boxes[0].all(s.ID)
}

// TestAFloodOfAnnouncements of jobs that there are not leaves a worker at work.
func TestAFloodOfAnnouncements(t *testing.T) {
	t.Parallel()
	boxes := newPool(t, 2)
	for i := range 2000 {
		ad := &market.Ad{
			Job: job.ID{1, byte(i), byte(i >> 8)}, Submitter: boxes[1].self.ID, Leader: boxes[1].self.ID, Term: 1, Seq: 1, Open: 1000,
			Stewards: []peer.ID{boxes[1].self.ID}, Needs: market.Needs{Kind: job.Proc, Cores: 1, Memory: 1},
		}
		raw, err := talk.EncodeAd(ad)
		if err != nil {
			t.Fatal(err)
		}
		if err := boxes[1].cfg.Ads.Publish(t.Context(), raw); err != nil {
			t.Fatal(err)
		}
	}
	checkOnce(t, boxes[0].all(boxes[0].submit(count(20, "task")).ID), 20)
}

// TestAForgedResult of a member that speaks the protocol by hand.
func TestForgedResults(t *testing.T) {
	t.Parallel()
	boxes := newPool(t, 3, cores(0))
	s := boxes[0].submit(count(2, "task"))
	liar := boxes[2]
	seat := boxes[0].seat(s.ID)
	wait(t, "it leads", seat.leading.Load)
	verdicts := make(chan market.Verdict, 16)
	k := &sink{peer: liar.self.ID, close: func() {}, send: func(o *market.Order) bool {
		for _, v := range o.Verdicts {
			verdicts <- v
		}
		return true
	}}
	n := seat.join(k)
	good, err := (&job.Result{}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	bad, err := (&job.Result{Exit: 1}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	say := func(seq uint64, token job.Token, raw []byte) market.Status {
		seat.box.put(seat.reported(liar.self.ID, n, &market.Report{
			Seq: seq, Term: seat.group.Status().Term, Commits: []market.Commit{{Lease: market.Lease{Task: 0, Token: token}, Result: raw}},
		}))
		return (<-verdicts).Status
	}
	term := seat.group.Status().Term
	for i, c := range []struct {
		token job.Token
		raw   []byte
		want  market.Status
	}{
		{job.Token{Term: term, Seq: 1}, nil, market.Stale},
		{job.Token{Term: term, Seq: 1}, []byte("no result"), market.Stale},
		{job.Token{Term: term, Seq: 1}, bad, market.Stale},
		{job.Token{Term: term + 1, Seq: 1}, good, market.Stale},
		{job.Token{Term: term}, good, market.Stale},
	} {
		if got := say(uint64(i+1), c.token, c.raw); got != c.want {
			t.Errorf("forgery %d: %v", i, got)
		}
	}
	if p := seat.ledger.Progress(); p.Done+p.Failed > 0 {
		t.Errorf("%+v", p)
	}
}

// TestNothingRunsOn: Close ends every goroutine that the package started.
func TestNothingRunsOn(t *testing.T) {
	boxes, runners := withGates(t, 3)
	s := boxes[0].submit(count(9, "gate"))
	busy(t, runners...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 2)
	go func() {
		var last error
		for _, err := range boxes[1].Watch(ctx, s.ID) {
			last = err
		}
		ended <- last
	}()
	go func() { ended <- boxes[1].Logs(ctx, s.ID, 0, true, LogSink{}) }()
	for _, b := range boxes {
		if err := b.Tasks.Close(); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		if err := <-ended; err == nil {
			t.Error("it ended well with a closed peer")
		}
	}
	for _, r := range runners {
		wait(t, "its guests are gone", func() bool { return r.running() == 0 })
	}
	wait(t, "no goroutine of the package is left", func() bool {
		buf := make([]byte, 8<<20)
		buf = buf[:runtime.Stack(buf, true)]
		for g := range strings.SplitSeq(string(buf), "\n\n") {
			if strings.Contains(g, "shoal/tasks.") && !strings.Contains(g, "testing.tRunner") && !strings.Contains(g, "hosts_test.go") {
				return false
			}
		}
		return true
	})
}
