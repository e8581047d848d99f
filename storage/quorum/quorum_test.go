package quorum

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/shoal-os/shoal/storage/folder"
	"github.com/shoal-os/shoal/storage/folder/crash"
)

// slowFS takes a while to make things durable.
type slowFS struct {
	*crash.FS
	pool *fakePool
}

func (f slowFS) Create(name string) (folder.File, error) {
	file, err := f.FS.Create(name)
	return slowFile{file, f.pool}, err
}

type slowFile struct {
	folder.File
	pool *fakePool
}

func (f slowFile) Sync() error {
	f.pool.mu.Lock()
	slow := f.pool.slow
	f.pool.mu.Unlock()
	if slow > 0 {
		<-time.After(f.pool.chance(slow))
	}
	return f.File.Sync()
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits, in virtual time, until a condition holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in a minute not: %s", what)
		}
	}
}

func TestOneVoter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePool(t, 1, 1)
		defer p.close()
		id := GroupID{1}
		g, err := p.nodes[0].Create(within(t, time.Second), id, "table", p.ids(0))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			if r, err := g.Propose(within(t, time.Second), add("n", 1)); err != nil || number(r) != i+1 {
				t.Fatal(number(r), err)
			}
		}
		p.nodes[0].kill()
		p.nodes[0].start()
		g, ok := p.nodes[0].Group(id)
		if !ok {
			t.Fatal("the group is gone")
		}
		if err := g.Read(within(t, 5*time.Second)); err != nil || value(g, "n") != 100 {
			t.Errorf("%d: %v", value(g, "n"), err)
		}
		if _, err := p.nodes[0].Create(within(t, time.Second), id, "table", p.ids(0)); !errors.Is(err, ErrExists) {
			t.Error(err)
		}
		if _, err := p.nodes[0].Create(within(t, time.Second), GroupID{2}, "chair", p.ids(0)); !errors.Is(err, ErrKind) {
			t.Error(err)
		}
		if _, err := g.Propose(within(t, time.Second), make([]byte, CommandMax+1)); !errors.Is(err, ErrTooLarge) {
			t.Error(err)
		}
	})
}

func TestCreateNeedsAMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePool(t, 1, 3)
		defer p.close()
		p.part(0, 1, 1)
		if _, err := p.nodes[0].Create(within(t, 10*time.Second), GroupID{1}, "table", p.ids(0, 1, 2)); !errors.Is(err, ErrNoQuorum) {
			t.Error(err)
		}
		p.part(0, 0, 1)
		g, err := p.nodes[0].Create(within(t, 10*time.Second), GroupID{1}, "table", p.ids(0, 1, 2))
		if err != nil || len(g.Status().Members) != 2 {
			t.Fatal(g.Status(), err)
		}
		p.part(0, 0, 0)
		if err := g.Add(within(t, 10*time.Second), p.nodes[2].id); err != nil {
			t.Fatal(err)
		}
		if st := g.Status(); len(st.Members) != 3 || st.Members[0].Learner || st.Members[1].Learner || st.Members[2].Learner {
			t.Errorf("%+v", st.Members)
		}
	})
}

func TestNoQuorumIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePool(t, 1, 3)
		defer p.close()
		id := GroupID{1}
		g, err := p.nodes[0].Create(within(t, time.Second), id, "table", p.ids(0, 1, 2))
		if err != nil {
			t.Fatal(err)
		}
		p.part(0, 1, 2)
		// The leader tries at once, and cannot know what becomes of it.
		if _, err := g.Propose(within(t, 4*time.Second), add("n", 1)); !errors.Is(err, ErrMaybe) || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		// By now it knows that it leads nobody, so nothing is tried.
		if _, err := g.Propose(within(t, time.Second), add("n", 100)); !errors.Is(err, ErrNoQuorum) || errors.Is(err, ErrMaybe) {
			t.Error(err)
		}
		if err := g.Read(within(t, time.Second)); !errors.Is(err, ErrNoQuorum) {
			t.Error(err)
		}
		p.part(0, 0, 0)
		if r, err := g.Propose(within(t, 10*time.Second), add("n", 10)); err != nil || number(r) != 10 && number(r) != 11 {
			t.Error(number(r), err)
		}
	})
}

func TestMembersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePool(t, 1, 5)
		defer p.close()
		id := GroupID{1}
		g, err := p.nodes[0].Create(within(t, time.Second), id, "table", p.ids(0, 1, 2))
		if err != nil {
			t.Fatal(err)
		}
		pad := wish{Key: "pad", Pad: make([]byte, 50_000)}.encode()
		for range 20 { // enough for a snapshot
			if _, err := g.Propose(within(t, time.Second), pad); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := g.Propose(within(t, time.Second), add("n", 7)); err != nil {
			t.Fatal(err)
		}
		// A member that is not the leader asks for a newcomer; then the leader is to go, and then another one.
		one, _ := p.nodes[1].Group(id)
		for _, err := range []error{
			one.Add(within(t, 10*time.Second), p.nodes[3].id), one.Remove(within(t, 10*time.Second), p.nodes[0].id),
			one.Add(within(t, 10*time.Second), p.nodes[4].id), one.Remove(within(t, 10*time.Second), p.nodes[2].id),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range []int{1, 3, 4} {
			g, ok := p.nodes[n].Group(id)
			if !ok {
				t.Fatal("no replica at", n)
			}
			if err := g.Read(within(t, 10*time.Second)); err != nil || value(g, "n") != 7 {
				t.Errorf("node %d: %d, %v", n, value(g, "n"), err)
			}
		}
		eventually(t, "those who were removed forget the group", func() bool {
			return len(p.nodes[0].Groups()) == 0 && len(p.nodes[2].Groups()) == 0
		})
		if _, err := g.Propose(within(t, time.Second), pad); !errors.Is(err, ErrNotVoter) {
			t.Error(err)
		}
		// The one that was removed is made a member again.
		if err := one.Add(within(t, 10*time.Second), p.nodes[0].id); err != nil {
			t.Fatal(err)
		}
		if err := one.Transfer(within(t, 10*time.Second), p.nodes[0].id); err != nil {
			t.Fatal(err)
		}
		if g, ok := p.nodes[0].Group(id); !ok || g.Read(within(t, time.Second)) != nil || value(g, "n") != 7 {
			t.Error("not back")
		}
	})
}

func TestDissolve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePool(t, 1, 3)
		defer p.close()
		id := GroupID{1}
		g, err := p.nodes[0].Create(within(t, time.Second), id, "table", p.ids(0, 1, 2))
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the third one knows the group", func() bool {
			g, ok := p.nodes[2].Group(id)
			return ok && len(g.Status().Members) == 3
		})
		p.nodes[2].kill()
		if err := g.Dissolve(within(t, 10*time.Second)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "both forget it", func() bool { return len(p.nodes[0].Groups()) == 0 && len(p.nodes[1].Groups()) == 0 })
		if _, err := g.Propose(within(t, time.Second), add("n", 1)); !errors.Is(err, ErrDissolved) {
			t.Error(err)
		}
		for _, n := range []int{0, 1} {
			p.nodes[n].kill()
			p.nodes[n].start()
		}
		p.nodes[2].start() // it was away, and learns of it
		eventually(t, "the third one forgets it", func() bool { return len(p.nodes[2].Groups()) == 0 })
		if _, err := p.nodes[0].Create(within(t, time.Second), id, "table", p.ids(0)); !errors.Is(err, ErrExists) {
			t.Error(err)
		}
	})
}

// A peer whose disk is lost does not vote again for the group that it has forgotten.
func TestLostDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePool(t, 1, 4)
		defer p.close()
		id := GroupID{1}
		g, err := p.nodes[0].Create(within(t, time.Second), id, "table", p.ids(0, 1, 2))
		if err != nil {
			t.Fatal(err)
		}
		x := p.nodes[2]
		x.kill()
		x.fs = newFakePool(t, 99, 0).disk()
		x.start()
		if _, err := g.Propose(within(t, 10*time.Second), add("n", 1)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the leader knows", func() bool {
			for _, m := range g.Status().Members {
				if m.Peer == x.id && m.Lost {
					return true
				}
			}
			return false
		})
		if len(x.Groups()) != 0 {
			t.Error("it has a replica again")
		}
		if err := errors.Join(g.Remove(within(t, 10*time.Second), x.id), g.Add(within(t, 10*time.Second), x.id)); err != nil {
			t.Fatal(err)
		}
		if g, ok := x.Group(id); !ok || g.Read(within(t, time.Second)) != nil || value(g, "n") != 1 {
			t.Error("it is no member again")
		}
	})
}

func TestQuietGroupsSendNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePool(t, 1, 3)
		defer p.close()
		for i := range 20 {
			if _, err := p.nodes[i%3].Create(within(t, time.Second), GroupID{byte(i + 1)}, "table", p.ids(0, 1, 2)); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(5 * time.Second)
		before := p.nodes[0].sent.Load() + p.nodes[1].sent.Load() + p.nodes[2].sent.Load()
		<-time.After(24 * time.Hour)
		if n := p.nodes[0].sent.Load() + p.nodes[1].sent.Load() + p.nodes[2].sent.Load() - before; n != 0 {
			t.Errorf("%d messages in a day", n)
		}
		// A leader that dies in the quiet is noticed all the same.
		p.nodes[0].kill()
		start := time.Now()
		g, _ := p.nodes[1].Group(GroupID{1})
		if err := g.until(within(t, 10*time.Second), func(st Status) bool { return st.Leader != "" && st.Leader != p.nodes[0].id }); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > 1200*time.Millisecond {
			t.Errorf("a new leader after %v", d)
		} else {
			t.Logf("a new leader after %v", d)
		}
		// And one that comes back falls quiet with the others.
		p.nodes[0].start()
		eventually(t, "all are quiet", func() bool {
			for _, x := range p.nodes {
				for _, g := range x.Groups() {
					if !g.Status().Quiet {
						return false
					}
				}
			}
			return true
		})
	})
}

// brittle is a machine that cannot read its own snapshots.
type brittle struct{ table }

func (b *brittle) Restore([]byte) error { return errors.New("I forgot how") }

// A machine that fails stops its own replica, and nothing else.
func TestBrokenMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePool(t, 1, 4)
		defer p.close()
		for _, x := range p.nodes[:3] {
			x.Register("brittle", newTable)
		}
		p.nodes[3].Register("brittle", func(GroupID) Machine { return &brittle{table{Values: map[string]int{}}} })
		id := GroupID{1}
		g, err := p.nodes[0].Create(within(t, time.Second), id, "brittle", p.ids(0, 1, 2))
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if _, err := g.Propose(within(t, time.Second), wish{Key: "n", Pad: make([]byte, 50_000)}.encode()); err != nil {
				t.Fatal(err)
			}
		}
		_ = g.Add(within(t, 3*time.Second), p.nodes[3].id)
		eventually(t, "the newcomer's replica stopped", func() bool {
			g, ok := p.nodes[3].Group(id)
			return ok && g.Status().Err != nil
		})
		bad, _ := p.nodes[3].Group(id)
		if err := bad.Read(within(t, time.Second)); err == nil || errors.Is(err, ErrNotVoter) {
			t.Error(err)
		}
		if _, err := g.Propose(within(t, 5*time.Second), add("n", 1)); err != nil {
			t.Error(err)
		}
	})
}

// A leader that wakes after hours finds out that there is another one before it believes in itself again.
func TestSleepingLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePool(t, 1, 3)
		defer p.close()
		id := GroupID{1}
		g, err := p.nodes[0].Create(within(t, time.Second), id, "table", p.ids(0, 1, 2))
		if err != nil {
			t.Fatal(err)
		}
		if err := g.until(within(t, time.Minute), func(st Status) bool { return st.Quiet }); err != nil {
			t.Fatal(err)
		}
		p.nodes[0].Woke()
		eventually(t, "it leads again, for the others say so", func() bool { return g.Status().Leading })
		p.part(1, 0, 0)
		p.nodes[0].Woke()
		synctest.Wait()
		if st := g.Status(); st.Leading || st.Leader != p.nodes[0].id {
			t.Errorf("alone it is %+v", st)
		}
	})
}

// operation is what a client did with one key.
type operation struct {
	key   string
	write bool
	add   int
	known bool
}

var registers = porcupine.Model{
	Partition: func(history []porcupine.Operation) (out [][]porcupine.Operation) {
		parts := map[string][]porcupine.Operation{}
		for _, op := range history {
			parts[op.Input.(operation).key] = append(parts[op.Input.(operation).key], op)
		}
		for _, part := range parts {
			out = append(out, part)
		}
		return out
	},
	Init: func() any { return 0 },
	Step: func(state, input, output any) (bool, any) {
		op, n := input.(operation), state.(int)
		if op.write {
			n += op.add
		}
		return !op.known || output.(int) == n, n
	},
	Equal: func(a, b any) bool { return a == b },
}

// Those who wait for a slow disk to take another snapshot do not hold up time: in a test that is a hang, and a mutex does it.
func TestSnapshotsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePool(t, 1, 1)
		defer p.close()
		p.slow = time.Second
		e, id := p.nodes[0].Engine, GroupID{1}
		var wg sync.WaitGroup
		for i := range uint64(20) {
			wg.Go(func() {
				if err := e.storeSnapshot(id, i, []byte("whole")); err != nil {
					t.Error(err)
				}
				e.removeSnapshots(id, i)
			})
		}
		wg.Wait()
	})
}

// The engines, with their real logs on disks that lose power, under everything that happens to a pool at once.
func TestChaos(t *testing.T) {
	for seed := uint64(1); seed <= 12; seed++ {
		var history []porcupine.Operation
		synctest.Test(t, func(t *testing.T) { history = chaos(t, seed) })
		// Outside, for in there time stands still while it thinks.
		result := porcupine.CheckOperationsTimeout(registers, history, 10*time.Second)
		if result == porcupine.Illegal {
			t.Fatalf("seed %d: %d operations are not linearizable", seed, len(history))
		}
		t.Logf("seed %d: %d operations, %v", seed, len(history), result)
	}
}

// chaos runs one schedule and returns what the clients saw.
func chaos(t *testing.T, seed uint64) (history []porcupine.Operation) {
	p := newFakePool(t, seed, 5)
	defer p.close()
	id := GroupID{9}
	if _, err := p.nodes[0].Create(within(t, 5*time.Second), id, "table", p.ids(0, 1, 2)); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	stop := make(chan struct{})
	var wg sync.WaitGroup
	begin := time.Now()
	for c := range 6 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(p.chance(80 * time.Millisecond)):
				}
				g, ok := p.live(int(p.chance(4)), id)
				if !ok {
					continue
				}
				op := operation{key: string(rune('a' + p.chance(7))), write: p.chance(2) > 0, add: int(p.chance(100))}
				call := time.Since(begin)
				result, err := act(t, g, op, 200*time.Millisecond+p.chance(3*time.Second))
				mu.Lock()
				switch {
				case err == nil:
					op.known = true
					history = append(history, porcupine.Operation{ClientId: c, Input: op, Output: result, Call: int64(call), Return: int64(time.Since(begin))})
				case op.write && !errors.Is(err, ErrNoQuorum) && !errors.Is(err, ErrNotVoter):
					history = append(history, porcupine.Operation{ClientId: 1000 + len(history), Input: op, Output: 0, Call: int64(call), Return: math.MaxInt64})
				}
				mu.Unlock()
			}
		})
	}
	for range 60 {
		<-time.After(p.chance(500 * time.Millisecond))
		mischief(t, p, id)
	}
	close(stop)
	wg.Wait()
	p.mu.Lock()
	p.slow = 0
	p.mu.Unlock()
	for _, x := range p.nodes {
		if x.Engine == nil {
			x.start()
		}
	}
	p.part(0, 0, 0, 0, 0)
	// The first leader may give way to another with what it was given, and say that it does not know.
	for end := within(t, time.Minute); ; {
		_, g, err := p.leader(end, id)
		if err == nil {
			_, err = g.Propose(end, add("z", 1))
		}
		if err == nil {
			return history
		}
		if !errors.Is(err, ErrMaybe) || end.Err() != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// act does one operation.
func act(t *testing.T, g *Group, op operation, patience time.Duration) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if op.write {
		r, err := g.Propose(ctx, add(op.key, op.add))
		return number(r), err
	}
	if err := g.Read(ctx); err != nil {
		return 0, err
	}
	return value(g, op.key), nil
}

func mischief(t *testing.T, p *fakePool, id GroupID) {
	x := p.nodes[p.chance(4)]
	switch p.chance(7) {
	case 0:
		if x.Engine != nil {
			x.kill()
		}
	case 1, 2:
		if x.Engine == nil {
			x.start()
		}
	case 3:
		p.part(int(p.chance(1)), int(p.chance(1)), int(p.chance(1)), int(p.chance(1)), int(p.chance(1)))
	case 4, 5:
		p.part(0, 0, 0, 0, 0)
	case 6:
		p.mu.Lock()
		p.slow = time.Duration(p.rng.Int64N(int64(30 * time.Millisecond)))
		p.mu.Unlock()
	case 7:
		_, g, err := p.leader(within(t, time.Second), id)
		if err != nil {
			return
		}
		in := g.has(x.id)
		if voters := len(g.Status().Members); in && voters > 3 {
			_ = g.Remove(within(t, 2*time.Second), x.id)
		} else if !in && voters < 5 {
			_ = g.Add(within(t, 2*time.Second), x.id)
		}
	}
}
