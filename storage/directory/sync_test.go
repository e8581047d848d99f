package directory

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-os/shoal/storage/directory/names"
	"github.com/shoal-os/shoal/storage/folder/crash"
)

// fifty is how many records fifty peers converge on. The default keeps the race detector quick; -fifty 10000 is the
// size that is claimed.
var fifty = flag.Int("fifty", 300, "records for the test of fifty peers")

// virtual runs a test of a pool in virtual time: minutes cost nothing.
func virtual(t *testing.T, f func(t *testing.T, p *fakePool)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newFakePool(t)) })
}

// settled waits until all hold the same, and fails after limit.
func settled(t *testing.T, limit time.Duration, nodes ...*fakeNode) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		synctest.Wait()
		if equal(nodes...) {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			for _, x := range nodes {
				t.Logf("%s: %+v", x.id.Name, x.Status())
			}
			t.Fatalf("not equal after %s", limit)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func TestNewsArrives(t *testing.T) {
	virtual(t, func(t *testing.T, p *fakePool) {
		a, b, c := p.join(1), p.join(2), p.join(3)
		p.connect(1, a, b, c)
		settle(5 * time.Second)
		streams := a.streams.Load() + b.streams.Load() + c.streams.Load()
		a.put("k", "1")
		settled(t, time.Second, a, b, c)
		b.put("k", "2")
		settled(t, time.Second, a, b, c)
		if err := c.Delete("k"); err != nil {
			t.Fatal(err)
		}
		settled(t, time.Second, a, b, c)
		if a.value("k") != "-" || a.Status().Tombstones != 1 {
			t.Errorf("%q", a.value("k"))
		}
		settle(10 * time.Second)
		if now := a.streams.Load() + b.streams.Load() + c.streams.Load(); now != streams {
			t.Errorf("%d streams were opened although all news arrived", now-streams)
		}
	})
}

func TestCatchUpOnConnection(t *testing.T) {
	virtual(t, func(t *testing.T, p *fakePool) {
		a, b := p.join(1), p.join(2)
		for i := range 500 {
			a.put(fmt.Sprint("a", i), "x")
			b.put(fmt.Sprint("b", i), "x")
		}
		p.connect(1, a, b)
		took := settled(t, 5*time.Second, a, b)
		if a.Len() != 1000 || took > time.Second {
			t.Errorf("%d records after %s", a.Len(), took)
		}
		p.connect(2, a) // apart
		a.put("late", "1")
		if err := b.Delete("a1"); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		if equal(a, b) {
			t.Fatal("they are not apart")
		}
		p.connect(2, b)
		settled(t, 5*time.Second, a, b)
		if a.value("a1") != "-" || b.value("late") != "1" {
			t.Error("something is missing")
		}
	})
}

func TestLostNewsIsMadeUpFor(t *testing.T) {
	virtual(t, func(t *testing.T, p *fakePool) {
		a, b, c := p.join(1), p.join(2), p.join(3)
		p.connect(1, a, b, c)
		settle(5 * time.Second)
		p.lose(1)
		a.put("lost", "1")
		settle(time.Second)
		if equal(a, b) {
			t.Fatal("it was not lost")
		}
		// Nothing at all arrives: the minute's comparison finds it.
		settled(t, 70*time.Second, a, b, c)
		p.lose(0.5)
		for i := range 50 {
			a.put(fmt.Sprint("k", i), "1")
			settle(100 * time.Millisecond)
		}
		// Some news arrives, and its digest tells that more is missing.
		settled(t, 10*time.Second, a, b, c)
		a.put("heartbeat", "1")
		p.lose(1)
		settle(time.Second)
		b.Heard(a.id.ID, a.Digest())
		settled(t, 10*time.Second, a, b)
	})
}

func TestNewsIsBatchedAndBounded(t *testing.T) {
	virtual(t, func(t *testing.T, p *fakePool) {
		a, b := p.join(1), p.join(2)
		p.connect(1, a, b)
		var changes []Change
		for i := range 3000 {
			changes = append(changes, Change{Key: fmt.Sprint("k", i), Value: make([]byte, 100)})
		}
		for i := range 8 {
			changes = append(changes, Change{Key: fmt.Sprint("large", i), Value: make([]byte, ValueMax)})
		}
		if err := a.Write(t.Context(), changes...); err != nil {
			t.Fatal(err)
		}
		settled(t, 5*time.Second, a, b)
		if n, largest := p.newsCount.Load(), p.newsLargest.Load(); n > 30 || largest > newsTopicMax || largest < newsMax/2 {
			t.Errorf("%d messages of up to %d bytes", n, largest)
		}
	})
}

func TestOutboxIsBounded(t *testing.T) {
	virtual(t, func(t *testing.T, p *fakePool) {
		a, b := p.join(1), p.join(2)
		p.connect(1, a, b)
		settle(5 * time.Second)
		p.lose(1)
		a.put("k", "1")
		settle(time.Second)
		full := outbox{wake: make(chan struct{}, 1)}
		if !full.add(nil) || full.add(make([]*Record, outboxMax+1)) || len(full.records) != outboxMax {
			t.Errorf("%d records wait", len(full.records))
		}
		// What finds no room is fetched instead, before the minute is over.
		a.contacts.hurry()
		settled(t, 5*time.Second, a, b)
	})
}

// TestReconciliationCost is issue 4's bound, over streams with all that they add: ten records differ among 10,000.
func TestReconciliationCost(t *testing.T) {
	const costMax = 20_000
	virtual(t, func(t *testing.T, p *fakePool) {
		a, b := p.join(1), p.join(2)
		fillSame(t, 9_990, a, b)
		for i := range 10 { // at any times, which costs most
			x := []*fakeNode{a, b}[i%2]
			ago := time.Duration(i*37) * time.Hour
			r, err := Record{Key: fmt.Sprint("only one", i), Author: x.id.ID, Time: names.At(now().Add(-ago))}.Sign(testPool, x.id.Key)
			if err != nil {
				t.Fatal(err)
			}
			x.hold(r)
		}
		p.connect(1, a, b)
		settled(t, 5*time.Second, a, b)
		for _, x := range []*fakeNode{a, b} {
			sent, received := x.sent.Load(), x.received.Load()
			t.Logf("%s sent %d and received %d bytes", x.id.Name, sent, received)
			if sent+received > costMax {
				t.Errorf("%d bytes, the limit is %d", sent+received, costMax)
			}
		}
		if a.Len() != 10_000 {
			t.Errorf("%d records", a.Len())
		}
		before := a.sent.Load() + a.received.Load()
		settle(10 * time.Minute)
		if idle := (a.sent.Load() + a.received.Load() - before) / 10; idle > 400 {
			t.Errorf("a minute of nothing costs %d bytes with one other member", idle)
		} else {
			t.Logf("a minute of nothing costs %d bytes with one other member", idle)
		}
	})
}

// fillSame puts the same n records into all, spread over the last month, without telling anybody.
func fillSame(t testing.TB, n int, nodes ...*fakeNode) {
	t.Helper()
	author := nodes[0].id
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range n {
		ago := time.Duration(rng.Int64N(int64(20 * 24 * time.Hour)))
		r, err := Record{
			Key: fmt.Sprintf("common/%06d", i), Value: make([]byte, 60), Author: author.ID,
			Time: names.At(now().Add(-ago)) + names.HLC(i%7),
		}.Sign(testPool, noSigner{})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range nodes {
			x.hold(r)
		}
	}
}

// hold puts a record into memory alone.
func (x *fakeNode) hold(r *Record) {
	x.Directory.mu.Lock()
	defer x.Directory.mu.Unlock()
	x.replica.Apply(r)
}

// noSigner signs nothing, quickly: for records that are only ever held.
type noSigner struct{}

func (noSigner) Sign([]byte) ([]byte, error) { return make([]byte, 64), nil }

func TestFiftyPeersConverge(t *testing.T) {
	real := time.Now()
	virtual(t, func(t *testing.T, p *fakePool) {
		nodes := make([]*fakeNode, 50)
		for i := range nodes {
			nodes[i] = p.join(i + 1)
		}
		p.lose(0.02)
		p.connect(1, nodes...)
		settle(5 * time.Second)
		start := time.Now()
		each := *fifty / len(nodes)
		for i, x := range nodes {
			go func() {
				var changes []Change
				for j := range each {
					changes = append(changes, Change{Key: fmt.Sprintf("%d/%d", i, j), Value: []byte("some value of ordinary size")})
				}
				if err := x.Write(t.Context(), changes...); err != nil {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		settled(t, time.Minute, nodes...)
		var sent int64
		for _, x := range nodes {
			if x.Len() != each*len(nodes) {
				t.Errorf("%s has %d records", x.id.Name, x.Len())
			}
			sent += x.sent.Load()
		}
		t.Logf("%d records on 50 peers: equal after %s; news %d messages, %d kB; streams %d kB each peer",
			each*len(nodes), time.Since(start), p.newsCount.Load(), p.newsBytes.Load()/1000, sent/50/1000)
	})
	t.Logf("real time %s", time.Since(real).Round(time.Millisecond))
}

// TestHalvesHeal joins two halves that went on apart.
func TestHalvesHeal(t *testing.T) {
	virtual(t, func(t *testing.T, p *fakePool) {
		nodes := make([]*fakeNode, 12)
		for i := range nodes {
			nodes[i] = p.join(i + 1)
		}
		p.connect(1, nodes...)
		settle(5 * time.Second)
		left, right := nodes[:6], nodes[6:]
		p.connect(2, right...)
		for i := range 60 {
			nodes[i%12].put(fmt.Sprint("same", i%7), fmt.Sprint(i))
			nodes[i%12].put(fmt.Sprint("own", i), fmt.Sprint(i))
			settle(time.Second)
		}
		settled(t, time.Second, left...)
		settled(t, time.Second, right...)
		p.connect(1, right...)
		took := settled(t, 5*time.Second, nodes...)
		t.Logf("equal %s after healing", took)
		if nodes[0].Len() != 67 {
			t.Errorf("%d keys", nodes[0].Len())
		}
	})
}

func TestStalePeerDoesNotRevive(t *testing.T) {
	virtual(t, func(t *testing.T, p *fakePool) {
		a, b, c := p.join(1), p.join(2), p.join(3)
		p.connect(1, a, b, c)
		a.put("kept", "1")
		a.put("deleted while c was away", "1")
		settled(t, 5*time.Second, a, b, c)
		settle(2 * time.Hour)
		p.connect(3, c)
		if err := a.Delete("deleted while c was away"); err != nil {
			t.Fatal(err)
		}
		settle(time.Hour)
		c.put("written while away", "1")
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		for _, x := range []*fakeNode{a, b, c} { // forty days in one step
			x.skew.Add(int64(40 * 24 * time.Hour))
		}
		settle(2 * time.Hour)
		if s := a.Status(); s.Tombstones != 0 {
			t.Fatalf("the deletion is remembered still: %+v", s)
		}
		c.fs = c.fs.(*crash.FS).Reboot()
		c.open()
		p.connect(1, c)
		settled(t, 10*time.Second, a, b, c)
		if got := fmt.Sprint(keysOf(b.Directory, "")); got != "[kept written while away]" {
			t.Errorf("keys %s", got)
		}
	})
}
