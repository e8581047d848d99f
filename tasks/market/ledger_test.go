package market

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"github.com/shoal-os/shoal/dht/canon"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/tasks/job"
)

// model is what a ledger must do, without a thought for size.
type model struct {
	splits, all int
	exclusive   bool
	attempts    int
	state       map[int]State
	won         map[int]Command
	failed      map[int]map[job.Token]peer.ID
	canceled    bool
}

func (m *model) apply(c Command, term uint64) Status {
	if c.Kind == Cancel {
		if m.over() {
			return Closed
		}
		m.canceled = true
		return Canceled
	}
	t := int(c.Task)
	if t >= m.all || t >= m.splits && !m.splitsClosed() {
		return Unready
	}
	if m.state[t] != Open {
		return Closed
	}
	if m.canceled {
		return Canceled
	}
	if c.Token.Term > term || c.Token.Seq == 0 || c.Kind == Finish && m.exclusive && c.Checked != term {
		return Stale
	}
	if c.Kind == Finish {
		m.state[t], m.won[t] = Succeeded, c
		return Committed
	}
	if m.failed[t] == nil {
		m.failed[t] = map[job.Token]peer.ID{}
	}
	if _, ok := m.failed[t][c.Token]; ok {
		return Repeated
	}
	m.failed[t][c.Token] = c.By
	peers := map[peer.ID]bool{}
	for _, p := range m.failed[t] {
		peers[p] = true
	}
	if len(peers) < PoisonPeers && len(m.failed[t]) < m.attempts {
		return Counted
	}
	m.state[t] = Failed
	if m.all > m.splits && t < m.splits && m.state[m.splits] == Open {
		m.state[m.splits] = Skipped
	}
	return Poisoned
}

func (m *model) splitsClosed() bool {
	for t := range m.splits {
		if m.state[t] == Open {
			return false
		}
	}
	return true
}

func (m *model) over() bool {
	for t := range m.all {
		if m.state[t] == Open {
			return m.canceled
		}
	}
	return true
}

// TestLedgerAgainstModel plays random commands to three replicas, one of which is restored from snapshots of another now
// and then and one of which stores its pages, and to the model.
func TestLedgerAgainstModel(t *testing.T) {
	result := testResult(t, "")
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.SampledFrom([]int{1, 3, 130, 300}).Draw(rt, "tasks")
		m := &model{splits: n, all: n, attempts: job.FailuresDefault, state: map[int]State{}, won: map[int]Command{}, failed: map[int]map[job.Token]peer.ID{}}
		signed := testJob(t, func(s *job.Spec) {
			s.Split.Count = uint32(n)
			if s.Exclusive = rapid.Bool().Draw(rt, "exclusive"); s.Exclusive {
				m.exclusive = true
			}
			if rapid.Bool().Draw(rt, "reduce") {
				s.Reduce = &s.Command
				m.all++
			}
		})
		replicas := []*Ledger{NewLedger(signed.ID, nil), NewLedger(signed.ID, nil), NewLedger(signed.ID, nil)}
		pages := map[chunk.CID][]byte{}
		index, term := uint64(0), uint64(1)
		send := func(list ...Command) []Status {
			data, err := EncodeBatch(time.UnixMilli(int64(1000+index)), list)
			if err != nil {
				rt.Fatal(err)
			}
			index++
			var first []byte
			for i, l := range replicas {
				reply := l.Apply(index, term, data)
				if i == 0 {
					first = reply
				} else if !bytes.Equal(reply, first) {
					rt.Fatalf("replica %d says %v, replica 0 %v", i, reply, first)
				}
			}
			out, err := DecodeReplies(first)
			if err != nil {
				rt.Fatal(err)
			}
			return out
		}
		if got := send(Command{Kind: Submit, Data: signed.Raw}); got[0] != Accepted {
			rt.Fatal(got)
		}
		for range rapid.IntRange(0, 400).Draw(rt, "steps") {
			switch k := rapid.IntRange(0, 60).Draw(rt, "kind"); {
			case k == 0:
				term++
			case k == 1:
				snap, err := replicas[0].Snapshot()
				if err != nil {
					rt.Fatal(err)
				}
				replicas[1] = NewLedger(signed.ID, nil)
				if err := replicas[1].Restore(snap); err != nil {
					rt.Fatal(err)
				}
				again, _ := replicas[1].Snapshot()
				if !bytes.Equal(snap, again) {
					rt.Fatal("a restored ledger has another snapshot")
				}
			case k == 2:
				for _, p := range replicas[2].Sealed() {
					if chunk.SumRaw(p.Data) != p.CID || len(p.Data) > PageMax {
						rt.Fatal("a page that is not what its name says")
					}
					pages[p.CID] = p.Data
					replicas[2].Stored(p.CID)
				}
			case k == 3 && rapid.IntRange(0, 20).Draw(rt, "cancel") == 0:
				c := Command{Kind: Cancel, Data: []byte("why")}
				if got, want := send(c)[0], m.apply(c, term); got != want {
					rt.Fatalf("cancel: %v, want %v", got, want)
				}
			default:
				c := Command{Kind: Finish, By: peer.ID(rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "by")), Data: result}
				if k < 20 {
					c.Kind = Fail
				}
				c.Task = uint32(rapid.IntRange(0, m.all).Draw(rt, "task"))
				c.Token = job.Token{Term: rapid.Uint64Range(0, term+1).Draw(rt, "term"), Seq: rapid.Uint64Range(0, 5).Draw(rt, "seq")}
				c.Checked = rapid.SampledFrom([]uint64{term, term - 1}).Draw(rt, "checked")
				got, want := send(c)[0], m.apply(c, term)
				if was, ok := m.won[int(c.Task)]; ok && want == Closed && c.Kind == Finish && was.Token == c.Token && was.By == c.By && got == Committed {
					continue // the same again
				}
				if got != want {
					rt.Fatalf("%+v: %v, want %v", c, got, want)
				}
			}
		}
		for _, l := range replicas {
			compare(rt, l, m, pages)
		}
	})
}

// compare holds a ledger against the model.
func compare(t *rapid.T, l *Ledger, m *model, pages map[chunk.CID][]byte) {
	p := l.Progress()
	done, failed := 0, 0
	for task := range m.all {
		want := m.state[task]
		if want == Open && m.canceled {
			want = Dropped
		}
		if got := l.State(task); got != want {
			t.Fatalf("task %d is %v, want %v", task, got, want)
		}
		rec, in, err := l.ResultAt(task)
		for _, c := range in {
			if data, ok := pages[c]; ok && err != nil {
				rec, err = RecordIn(data, task)
			}
		}
		switch m.state[task] {
		case Open:
			if !errors.Is(err, ErrOpen) {
				t.Fatalf("task %d has a result: %v", task, err)
			}
			continue
		case Succeeded:
			done++
			if won := m.won[task]; err != nil || rec.Token != won.Token || rec.By != won.By || !bytes.Equal(rec.Results[0], won.Data) {
				t.Fatalf("task %d: %+v, %v", task, rec, err)
			}
		case Failed:
			failed++
			if err != nil || len(rec.Results) == 0 || len(rec.Results) > failuresKept {
				t.Fatalf("task %d: %+v, %v", task, rec, err)
			}
		}
	}
	if p.Done != done || p.Failed != failed || p.Over != m.over() || p.Over == p.Ended.IsZero() {
		t.Fatalf("%+v; done %d, failed %d, over %v", p, done, failed, m.over())
	}
}

// TestManyTasks: a million tasks, most of them done in order and stored, make a small snapshot.
func TestManyTasks(t *testing.T) {
	const n = 1_000_000
	if testing.Short() {
		t.Skip("a million tasks")
	}
	signed := testJob(t, func(s *job.Spec) { s.Split.Count = n })
	l := NewLedger(signed.ID, nil)
	result := testResult(t, "")
	index := uint64(0)
	send := func(list []Command) {
		data, err := EncodeBatch(time.UnixMilli(1), list)
		if err != nil {
			t.Fatal(err)
		}
		index++
		l.Apply(index, 1, data)
		for _, p := range l.Sealed() {
			l.Stored(p.CID)
		}
	}
	send([]Command{{Kind: Submit, Data: signed.Raw}})
	var list []Command
	for i := range uint32(n) {
		if i%10_000 == 77 {
			continue // stragglers keep a page open each
		}
		list = append(list, Command{Kind: Finish, Lease: Lease{i, job.Token{Term: 1, Seq: uint64(i) + 1}}, By: "worker", Ran: time.Second, Data: result})
		if len(list) == 1000 {
			send(list)
			list = list[:0]
		}
	}
	send(list)
	snap, err := l.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("snapshot of %d tasks: %d bytes, %d pages", n, len(snap), len(l.Pages()))
	if len(snap) > 2<<20 {
		t.Errorf("the snapshot has %d bytes", len(snap))
	}
	back := NewLedger(signed.ID, nil)
	if err := back.Restore(snap); err != nil {
		t.Fatal(err)
	}
	if a, b := back.Progress(), l.Progress(); a != b || a.Open() != n/10_000 {
		t.Errorf("%+v, was %+v", a, b)
	}
	if len(back.Missing()) != len(l.Pages()) {
		t.Errorf("%d pages are missing of %d", len(back.Missing()), len(l.Pages()))
	}
}

// TestLooseResultsAreBounded: results in the worst of orders do not gather in memory.
func TestLooseResultsAreBounded(t *testing.T) {
	const pages = 400
	signed := testJob(t, func(s *job.Spec) { s.Split.Count = pages * PageTasks })
	l := NewLedger(signed.ID, nil)
	big, err := (&job.Result{Stdout: job.Stream{Inline: make([]byte, job.InlineMax)}}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	index := uint64(0)
	send := func(list []Command) {
		data, err := EncodeBatch(time.UnixMilli(1), list)
		if err != nil {
			t.Fatal(err)
		}
		index++
		l.Apply(index, 1, data)
	}
	send([]Command{{Kind: Submit, Data: signed.Raw}})
	stored := map[chunk.CID][]byte{}
	for k := range uint32(PageTasks) {
		for p := range uint32(pages) {
			send([]Command{{Kind: Finish, Lease: Lease{p*PageTasks + k, job.Token{Term: 1, Seq: 1}}, By: "w", Data: big}})
			for _, page := range l.Sealed() {
				stored[page.CID] = page.Data
				l.Stored(page.CID)
			}
			if l.weight > looseMax {
				t.Fatalf("%d bytes of results are in memory", l.weight)
			}
		}
	}
	for task := range pages * PageTasks {
		rec, in, err := l.ResultAt(task)
		for _, c := range in {
			if r, e := RecordIn(stored[c], task); e == nil {
				rec, err = r, nil
			}
		}
		if err != nil || !bytes.Equal(rec.Results[0], big) {
			t.Fatalf("task %d: %v", task, err)
		}
	}
	if !l.Progress().Over || len(l.loose) != 0 {
		t.Error("the job has not ended cleanly")
	}
}

func TestSubmission(t *testing.T) {
	signed := testJob(t, func(*job.Spec) {})
	other := testJob(t, func(s *job.Spec) { s.Nonce = 2 })
	l := NewLedger(signed.ID, nil)
	send := func(c Command) Status {
		data, err := EncodeBatch(time.UnixMilli(5), []Command{c})
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeReplies(l.Apply(1, 3, data))
		if err != nil {
			t.Fatal(err)
		}
		return got[0]
	}
	finish := Command{Kind: Finish, Lease: Lease{0, job.Token{Term: 1, Seq: 1}}, Data: testResult(t, "")}
	if s := send(finish); s != Unready {
		t.Errorf("a result before the submission: %v", s)
	}
	if _, ok := l.View(); ok || l.Job() != nil || l.State(0) != NoSuchTask {
		t.Error("there is a job before its submission")
	}
	if s := send(Command{Kind: Submit, Data: other.Raw}); s != Unready {
		t.Errorf("another job's spec: %v", s)
	}
	if s := send(Command{Kind: Submit, Data: signed.Raw}); s != Accepted {
		t.Errorf("the submission: %v", s)
	}
	if s := send(Command{Kind: Submit, Data: signed.Raw}); s != Repeated {
		t.Errorf("the submission again: %v", s)
	}
	if v, ok := l.View(); !ok || v.Born != 3 || v.All != 3 || l.Job().ID != signed.ID {
		t.Error("the view")
	}
	if got := l.Apply(2, 3, []byte("nonsense")); len(got) != 0 {
		t.Errorf("an entry that makes no sense is answered with %v", got)
	}
	if _, err := DecodeReplies(nil); err == nil {
		t.Error("an empty answer is one")
	}
}

func TestExpiry(t *testing.T) {
	signed := testJob(t, func(s *job.Spec) { s.Split.Count, s.Retention = 1, time.Hour })
	l := NewLedger(signed.ID, nil)
	at := time.UnixMilli(1_000_000)
	for i, c := range []Command{{Kind: Submit, Data: signed.Raw}, {Kind: Finish, Lease: Lease{0, job.Token{Term: 1, Seq: 1}}, Data: testResult(t, "")}} {
		if l.Expired(at.Add(100 * time.Hour)) {
			t.Error("expired before its end")
		}
		data, err := EncodeBatch(at, []Command{c})
		if err != nil {
			t.Fatal(err)
		}
		l.Apply(uint64(i+1), 1, data)
	}
	if l.Expired(at.Add(59*time.Minute)) || !l.Expired(at.Add(61*time.Minute)) {
		t.Error("results are not kept for an hour")
	}
}

func TestBatchBounds(t *testing.T) {
	if _, err := EncodeBatch(time.Now(), nil); err == nil {
		t.Error("an empty batch")
	}
	if _, err := EncodeBatch(time.Now(), make([]Command, BatchMax+1)); err == nil {
		t.Error("too many commands")
	}
	var big []Command
	for range EntryMax/job.ResultMax + 1 {
		big = append(big, Command{Kind: Finish, Data: make([]byte, job.ResultMax)})
	}
	if _, err := EncodeBatch(time.Now(), big); err == nil {
		t.Error("an entry over the limit")
	}
	for _, b := range append(Batches(big), Batches(make([]Command, 2*BatchMax+1))...) {
		if _, err := EncodeBatch(time.Now(), b); err != nil {
			t.Errorf("a batch that was cut to size: %v", err)
		}
	}
	if n := len(Batches(big)); n != 2 {
		t.Errorf("%d batches", n)
	}
	c := big[0]
	if n := len(c.append(nil)); n > c.Size() {
		t.Errorf("a command of %d bytes is estimated at %d", n, c.Size())
	}
}

func TestTimesMedian(t *testing.T) {
	var h times
	if h.median() != 0 {
		t.Error("a median of nothing")
	}
	for b := range len(h) - 24 {
		if d := upper(b); d <= 0 || bucket(d) != b+1 && b > 0 || bucket(d-time.Microsecond) != b && b > 1 {
			t.Fatalf("bucket %d ends at %v, which is in %d", b, d, bucket(d))
		}
	}
	for k := range 100 {
		h.add(time.Duration(k+1) * time.Second)
	}
	if m := h.median(); m < 50*time.Second || m > 80*time.Second {
		t.Errorf("the median of 1 s to 100 s is %v", m)
	}
}

func TestTaskSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 200).Draw(t, "size")
		s, in := newTaskSet(size), map[uint32]bool{}
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			k := uint32(rapid.IntRange(0, size-1).Draw(t, "task"))
			if rapid.Bool().Draw(t, "add") {
				if s.add(k) == in[k] {
					t.Fatal("add")
				}
				in[k] = true
			} else {
				s.remove(k)
				delete(in, k)
			}
		}
		first, end := uint32(rapid.IntRange(0, size).Draw(t, "first")), uint32(rapid.IntRange(0, size).Draw(t, "end"))
		next, prev, found := end, uint32(0), false
		for k := first; k < end; k++ {
			if !in[k] {
				next = min(next, k)
				prev, found = k, true
			}
		}
		if end < first {
			next = end
		}
		if got := s.next(first, end); first <= end && got != next || s.count != len(in) {
			t.Fatalf("next of %d to %d is %d, want %d", first, end, got, next)
		}
		if got, ok := s.prev(first, end); ok != found || ok && got != prev {
			t.Fatalf("prev of %d to %d is %d %v, want %d %v", first, end, got, ok, prev, found)
		}
		d := decoder{canon.Decoder{Rest: s.append(nil)}}
		back := d.taskSet(size)
		if err := d.End(); err != nil || fmt.Sprint(back) != fmt.Sprint(s) {
			t.Fatalf("%v became %v, %v", s, back, err)
		}
	})
}

func FuzzDecodeBatch(f *testing.F) {
	signed := testJob(f, func(*job.Spec) {})
	data, err := EncodeBatch(time.UnixMilli(9), []Command{
		{Kind: Submit, By: "s", Data: signed.Raw},
		{Kind: Finish, Lease: Lease{1, job.Token{Term: 2, Seq: 3}}, By: "w", Ran: time.Second, Data: testResult(f, "")},
		{Kind: Fail, Lease: Lease{2, job.Token{Term: 2, Seq: 4}}, By: "w", Data: testResult(f, "bad")},
		{Kind: Cancel, By: "s", Data: []byte("enough")},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		at, list, err := DecodeBatch(data)
		if err == nil && len(list) > 0 {
			if again, err := EncodeBatch(at, list); err != nil || !bytes.Equal(again, data) {
				t.Errorf("two encodings of the same: %x and %x, %v", data, again, err)
			}
		}
		l := NewLedger(signed.ID, nil)
		l.Apply(1, 1, data)
		l.Apply(2, 2, data)
		if _, err := l.Snapshot(); err != nil {
			t.Error(err)
		}
	})
}

func FuzzRestore(f *testing.F) {
	signed := testJob(f, func(s *job.Spec) { s.Split.Count = 130 })
	l := NewLedger(signed.ID, nil)
	list := []Command{{Kind: Submit, By: "s", Data: signed.Raw}}
	for t := range uint32(129) {
		list = append(list, Command{Kind: Finish, Lease: Lease{t, job.Token{Term: 1, Seq: 1}}, Data: []byte{}})
	}
	list = append(list, Command{Kind: Fail, Lease: Lease{129, job.Token{Term: 1, Seq: 2}}, By: "w", Data: testResult(f, "bad")})
	data, err := EncodeBatch(time.UnixMilli(9), list)
	if err != nil {
		f.Fatal(err)
	}
	l.Apply(1, 1, data)
	snap, err := l.Snapshot()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(snap)
	for _, p := range l.Sealed() {
		l.Stored(p.CID)
	}
	if snap, err = l.Snapshot(); err != nil {
		f.Fatal(err)
	}
	f.Add(snap)
	f.Fuzz(func(t *testing.T, snap []byte) {
		l := NewLedger(signed.ID, nil)
		if err := l.Restore(snap); err != nil {
			return
		}
		l.Apply(99, 9, data)
		_ = l.Progress()
		for t := range 131 {
			_, _, _ = l.ResultAt(t)
		}
		if _, err := l.Snapshot(); err != nil {
			t.Error(err)
		}
	})
}

func FuzzRecordIn(f *testing.F) {
	e := entry{state: Succeeded, by: "w", results: [][]byte{{1, 2}}}
	f.Add(canon.AppendBytes([]byte{5}, e.append(nil)), 5)
	f.Fuzz(func(t *testing.T, page []byte, task int) {
		if r, err := RecordIn(page, task); err == nil && (r.State < Succeeded || r.State > Skipped) {
			t.Errorf("a closed task in state %d", r.State)
		}
	})
}
