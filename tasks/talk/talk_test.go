package talk

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

func peerN(t testing.TB, n int) peer.ID {
	t.Helper()
	var seed [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n))
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func someAd(t testing.TB) *market.Ad {
	return &market.Ad{
		Job: job.ID{1, 2}, Submitter: peerN(t, 1), Term: 3, Seq: 4, Open: 5, Stewards: []peer.ID{peerN(t, 1), peerN(t, 2)}, Leader: peerN(t, 2),
		Needs: market.Needs{Kind: job.Wasm, Cores: 1, Memory: 1 << 30, Labels: []string{"os=linux"}}, Priority: -3, Exclusive: true, Crowd: 6,
	}
}

var (
	someLease  = market.Lease{Task: 7, Token: job.Token{Term: 2, Seq: 9}}
	someReport = &market.Report{
		Seq: 1, Ack: 2, Full: true, Term: 3, Offer: &market.Offer{Slots: 4, Ahead: 5, Fit: 600, Prefer: []market.Span{{First: 1, Count: 2}, {First: 9, Count: 1}}},
		Held:     []market.Held{{Lease: someLease, Phase: market.Frozen, Live: true, Ran: 5 * time.Second}},
		Released: []market.Lease{someLease}, Why: market.Owner,
		Commits:  []market.Commit{{Lease: someLease, Ran: time.Millisecond, Result: []byte("result")}},
		Failures: []market.Failure{{Lease: someLease, Result: []byte("failure")}},
	}
)

func someOrder(t testing.TB) *market.Order {
	return &market.Order{
		Seq: 1, Ack: 2, Full: 3, Term: 4, Welcome: true, NotLeader: true, Leader: peerN(t, 3), Over: true, Open: 9, Grants: []market.Lease{someLease},
		Revoked: []market.Lease{someLease}, Verdicts: []market.Verdict{{Lease: someLease, Status: market.Counted}},
	}
}

func someView(t testing.TB) *View {
	return &View{
		Progress: market.Progress{Submitted: true, Tasks: 9, Done: 3, Failed: 1, Skipped: 1, Dropped: 1, Canceled: "why", Canceler: peerN(t, 1), Over: true, Ended: time.UnixMilli(5).UTC()},
		Leader:   peerN(t, 1), Term: 2, Stewards: []peer.ID{peerN(t, 1)}, Spare: 1, Leading: true, Workers: 2, Slots: 3, Attempts: 4, Retries: 5, Rate: 6.5,
		Leases: []market.Standing{{Lease: someLease, Worker: peerN(t, 2), Phase: market.Running, Ran: time.Second, Copy: true}},
	}
}

func TestRoundTrips(t *testing.T) {
	same := func(what string, got, want any, err error) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, should be %+v, %v", what, got, want, err)
		}
	}
	raw, err := EncodeAd(someAd(t))
	if err != nil {
		t.Fatal(err)
	}
	ad, err := DecodeAd(raw)
	same("ad", ad, someAd(t), err)
	report, err := ReportFrom(ReportMessage(someReport))
	same("report", report, someReport, err)
	order, err := OrderFrom(OrderMessage(someOrder(t)))
	same("order", order, someOrder(t), err)
	view, err := ViewFrom(ViewMessage(someView(t)))
	same("view", view, someView(t), err)
	news := &News{Progress: someView(t).Progress, Leader: peerN(t, 1), Closed: []Span{{market.Span{First: 1, Count: 5}, market.Failed}}}
	gotNews, err := NewsFrom(NewsMessage(news))
	same("news", gotNews, news, err)
	result := &Result{7, market.Record{State: market.Failed, Token: someLease.Token, By: peerN(t, 1), Ran: time.Second, At: time.UnixMilli(9).UTC(), Results: [][]byte{{1}, {2}}}}
	gotResult, err := ResultFrom(ResultMessage(result))
	same("result", gotResult, result, err)
	refusal := &Refusal{NotLeader, "another", peerN(t, 1)}
	if err := RefusalFrom(RefusalMessage(refusal)); !reflect.DeepEqual(err, refusal) || !errors.Is(err, &Refusal{Code: NotLeader}) || errors.Is(err, &Refusal{Code: NoJob}) {
		t.Errorf("%+v", err)
	}
}

// TestTheLargestFits: what market may say at most is a frame.
func TestTheLargestFits(t *testing.T) {
	r := &market.Report{Seq: 1 << 60, Ack: 1 << 60, Full: true, Term: 1 << 60, Offer: &market.Offer{Slots: market.SlotsMax, Ahead: market.SlotsMax, Fit: market.FitMax}}
	lease := market.Lease{Task: job.TasksMax, Token: job.Token{Term: 1 << 62, Seq: 1 << 62}}
	for range market.HeldMax {
		r.Held = append(r.Held, market.Held{Lease: lease, Phase: market.Done, Live: true, Ran: 1 << 60})
		r.Released = append(r.Released, lease)
	}
	for range market.PreferMax {
		r.Offer.Prefer = append(r.Offer.Prefer, market.Span{First: job.TasksMax, Count: job.TasksMax})
	}
	for range market.CommitsMax {
		r.Commits = append(r.Commits, market.Commit{Lease: lease, Ran: 1 << 60, Result: make([]byte, job.ResultMax)})
	}
	o := &market.Order{Seq: 1, Leader: peerN(t, 1)}
	for range market.GrantsMax {
		o.Grants = append(o.Grants, lease)
	}
	for range verdictsMax {
		o.Revoked = append(o.Revoked, lease)
		o.Verdicts = append(o.Verdicts, market.Verdict{Lease: lease, Status: market.Repeated})
	}
	if _, err := ReportFrom(ReportMessage(r)); err != nil {
		t.Error(err)
	}
	if _, err := OrderFrom(OrderMessage(o)); err != nil {
		t.Error(err)
	}
	for _, m := range []proto.Message{ReportMessage(r), OrderMessage(o)} {
		if err := wire.WriteMsg(new(bytes.Buffer), m, FrameMax); err != nil {
			t.Error(err)
		}
	}
}

func TestBounds(t *testing.T) {
	many := func(n int) (out []*pb.Lease) { return make([]*pb.Lease, n) }
	for i, m := range []*pb.Report{
		{}, {Seq: 1, Why: 99}, {Seq: 1, Held: make([]*pb.Held, market.HeldMax+1)}, {Seq: 1, Released: many(market.HeldMax + 1)},
		{Seq: 1, Commits: make([]*pb.Commit, market.CommitsMax+1)}, {Seq: 1, Commits: []*pb.Commit{{Result: make([]byte, job.ResultMax+1)}}},
		{Seq: 1, Failures: []*pb.Commit{{Result: make([]byte, market.FailureMax+1)}}}, {Seq: 1, Held: []*pb.Held{{Phase: 0}}}, {Seq: 1, Held: []*pb.Held{{Phase: 5}}},
		{Seq: 1, Held: []*pb.Held{{Phase: 1, RanUs: 1 << 63}}}, {Seq: 1, Offer: &pb.Offer{Slots: market.SlotsMax + 1}}, {Seq: 1, Offer: &pb.Offer{Prefer: []uint32{1}}},
		{Seq: 1, Released: []*pb.Lease{{Task: job.TasksMax + 1}}},
	} {
		if r, err := ReportFrom(m); err == nil {
			t.Errorf("report %d: %+v", i, r)
		}
	}
	for i, m := range []*pb.Order{
		{}, {Seq: 1, Grants: many(market.GrantsMax + 1)}, {Seq: 1, Revoked: many(verdictsMax + 1)}, {Seq: 1, Leader: []byte("nobody")},
		{Seq: 1, Verdicts: []*pb.Verdict{{Status: 99}}}, {Seq: 1, Open: job.TasksMax + 2},
	} {
		if o, err := OrderFrom(m); err == nil {
			t.Errorf("order %d: %+v", i, o)
		}
	}
	for i, edit := range []func(*pb.Ad){
		func(m *pb.Ad) { m.Job = nil }, func(m *pb.Ad) { m.Term = 0 }, func(m *pb.Ad) { m.Leader = nil }, func(m *pb.Ad) { m.Submitter = []byte{1} },
		func(m *pb.Ad) { m.Cores = job.CoresMax + 1 }, func(m *pb.Ad) { m.Memory = 1 << 63 }, func(m *pb.Ad) { m.Priority = 9 }, func(m *pb.Ad) { m.Kind = 0 },
		func(m *pb.Ad) { m.Stewards = make([][]byte, market.StewardsMax+1) }, func(m *pb.Ad) { m.Labels = make([]string, job.NeedsMax+1) },
	} {
		m := AdMessage(someAd(t))
		edit(m)
		if a, err := AdFrom(m); err == nil {
			t.Errorf("announcement %d: %+v", i, a)
		}
	}
	for i, q := range []*pb.Ask{
		{}, {Kind: 99}, {Kind: AskView}, {Kind: AskView, Job: make([]byte, 31)}, {Kind: AskResults, Job: make([]byte, 32), Task: job.TasksMax + 1},
		{Kind: AskCancel, Job: make([]byte, 32), Why: string(make([]byte, market.NoteMax+1))}, {Kind: AskSubmit, Data: make([]byte, job.SignedMax+1)},
	} {
		if err := CheckAsk(q); err == nil {
			t.Errorf("question %d: %v", i, q)
		}
	}
}

func FuzzAd(f *testing.F) {
	raw, err := EncodeAd(someAd(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := DecodeAd(raw)
		if err != nil {
			return
		}
		if again, err := EncodeAd(a); err != nil || !bytes.Equal(again, raw) {
			t.Errorf("%+v has two encodings: %v", a, err)
		}
	})
}

// fuzz decodes what comes, and what passes is written and read again as the same.
func fuzz[V any](f *testing.F, seed proto.Message, fresh func() proto.Message, from func(proto.Message) (V, error), to func(V) proto.Message) {
	raw, err := encode(seed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := fresh()
		if proto.Unmarshal(raw, m) != nil {
			return
		}
		v, err := from(m)
		if err != nil {
			return
		}
		if again, err := from(to(v)); err != nil || !reflect.DeepEqual(again, v) {
			t.Errorf("%+v became %+v, %v", v, again, err)
		}
	})
}

func FuzzReport(f *testing.F) {
	fuzz(f, ReportMessage(someReport), func() proto.Message { return new(pb.Report) },
		func(m proto.Message) (*market.Report, error) { return ReportFrom(m.(*pb.Report)) },
		func(r *market.Report) proto.Message { return ReportMessage(r) })
}

func FuzzOrder(f *testing.F) {
	fuzz(f, OrderMessage(someOrder(f)), func() proto.Message { return new(pb.Order) },
		func(m proto.Message) (*market.Order, error) { return OrderFrom(m.(*pb.Order)) },
		func(o *market.Order) proto.Message { return OrderMessage(o) })
}

func FuzzView(f *testing.F) {
	fuzz(f, ViewMessage(someView(f)), func() proto.Message { return new(pb.View) },
		func(m proto.Message) (*View, error) { return ViewFrom(m.(*pb.View)) },
		func(v *View) proto.Message { return ViewMessage(v) })
}

func FuzzAnswer(f *testing.F) {
	for _, a := range []*pb.Answer{
		RefusalMessage(&Refusal{NoJob, "none", ""}), {News: NewsMessage(&News{Closed: []Span{{market.Span{First: 1, Count: 2}, market.Succeeded}}})},
		{Results: []*pb.Result{ResultMessage(&Result{Task: 1, Record: market.Record{State: market.Succeeded, Results: [][]byte{{1}}}})}},
	} {
		raw, err := encode(a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var a pb.Answer
		if proto.Unmarshal(raw, &a) != nil {
			return
		}
		_ = RefusalFrom(&a)
		if n, err := NewsFrom(a.GetNews()); err == nil && len(n.Closed) > ClosedMax {
			t.Error("a bound is not held")
		}
		for _, r := range a.GetResults() {
			if x, err := ResultFrom(r); err == nil && x.Task > job.TasksMax {
				t.Error("a bound is not held")
			}
		}
		_, _ = PeersOf(a.GetPeers(), market.StewardsMax)
	})
}

func FuzzAsk(f *testing.F) {
	raw, err := encode(&pb.Ask{Kind: AskCancel, Job: make([]byte, 32), Why: "why"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var q pb.Ask
		if proto.Unmarshal(raw, &q) == nil && CheckAsk(&q) == nil && (q.GetKind() < AskView || q.GetKind() > AskPage || len(q.GetWhy()) > market.NoteMax) {
			t.Errorf("%+v", &q)
		}
	})
}
