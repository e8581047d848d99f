package replica

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

var (
	seeds    = flag.Int("seeds", 150, "how many schedules the simulation runs")
	firstOne = flag.Uint64("first", 1, "the first of them")
	oneSeed  = flag.Uint64("seed", 0, "the one schedule to run")
	chaosFor = 15 * time.Second
)

// operation is what a client did with one key.
type operation struct {
	key   byte
	write byte // '+', '=', or 0 to read
	arg   int
	known bool // the result is
}

// registers is the sequential specification: one value by key, that can be set and added to.
var registers = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := map[byte][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(operation).key
			parts[key] = append(parts[key], op)
		}
		var out [][]porcupine.Operation
		for _, key := range []byte{'a', 'b', 'c'} {
			out = append(out, parts[key])
		}
		return out
	},
	Init: func() any { return 0 },
	Step: func(state, input, output any) (bool, any) {
		op, was := input.(operation), state.(int)
		now := was
		switch op.write {
		case '+':
			now += op.arg
		case '=':
			now = op.arg
		}
		return !op.known || output.(int) == now, now
	},
	Equal: func(a, b any) bool { return a == b },
}

// chaos is one schedule.
type chaos struct {
	*world
	history []porcupine.Operation
	maybe   int
	on      bool
	counts  map[string]int
	moving  bool // the members are changing
}

// client does one operation after another.
func (c *chaos) client(n int) {
	if !c.on {
		return
	}
	again := func() { c.After(c.chance(100*time.Millisecond), func() { c.client(n) }) }
	x := c.nodes[c.rng.IntN(len(c.nodes))]
	if x.r == nil || x.frozen > c.Now || !x.member {
		again()
		return
	}
	op := operation{key: "abc"[c.rng.IntN(3)], write: "+=\x00"[c.rng.IntN(3)], arg: c.rng.IntN(100)}
	call := c.Now
	end := func(result int, why Reason) {
		again()
		switch {
		case why == OK:
			op.known = true
			c.history = append(c.history, porcupine.Operation{
				ClientId: n, Input: op, Output: result, Call: int64(call), Return: int64(c.Now),
			})
		case why == Maybe && op.write != 0:
			c.maybe++
			c.history = append(c.history, porcupine.Operation{
				ClientId: 1000 + c.maybe, Input: op, Output: 0, Call: int64(call), Return: math.MaxInt64,
			})
		}
	}
	patience := 200*time.Millisecond + c.chance(3*time.Second)
	switch op.write {
	case 0:
		c.read(x, patience, func(_ int, why Reason) { end(x.m.values[op.key], why) })
	case '+':
		c.propose(x, addCommand(op.key, op.arg), patience, end)
	default:
		c.propose(x, setCommand(op.key, op.arg), patience, end)
	}
}

// mischief does something bad every now and then.
func (c *chaos) mischief() {
	if !c.on {
		return
	}
	c.After(20*time.Millisecond+c.chance(600*time.Millisecond), c.mischief)
	x := c.nodes[c.rng.IntN(len(c.nodes))]
	names := []string{"crash", "crash", "restart", "restart", "cut", "join", "sleep", "jump", "weather", "disk", "absent", "present", "transfer", "members", "checkpoint"}
	what := names[c.rng.IntN(len(names))]
	c.counts[what]++
	switch what {
	case "crash":
		if x.r != nil {
			x.crash()
		}
	case "restart":
		if x.r == nil && x.member {
			x.start()
		}
	case "cut":
		x.side = 1 + c.rng.IntN(2)
	case "join":
		for _, y := range c.nodes {
			y.side = 0
		}
	case "sleep":
		x.sleep(c.chance(4 * time.Second))
	case "jump":
		x.offset += c.chance(8 * time.Hour)
		x.step(Woke{})
	case "weather":
		c.faults.loss, c.faults.double = c.rng.Float64()*0.3, c.rng.Float64()*0.3
		c.faults.delay = 1 + c.chance(200*time.Millisecond)
	case "disk":
		c.faults.disk = 1 + c.chance(100*time.Millisecond)
	case "absent", "present":
		y := c.nodes[c.rng.IntN(len(c.nodes))]
		if x != y {
			x.step(Presence{Peer: y.peer, Present: what == "present"})
		}
	case "transfer":
		if l := c.leader(); l != nil && x.r != nil {
			l.step(Transfer{To: x.id})
		}
	case "checkpoint":
		x.step(Checkpoint{})
	case "members":
		c.move()
	}
}

// move adds a node or takes one out.
func (c *chaos) move() {
	members := c.members()
	if c.moving || len(members) == 0 {
		return
	}
	in := map[*node]bool{}
	for _, x := range members {
		in[x] = true
	}
	x := c.nodes[c.rng.IntN(len(c.nodes))]
	c.moving = true
	stop := func() { c.moving = false }
	switch {
	case in[x] && len(members) > 2:
		c.change(Remove, Member{ID: x.id}, func(why Reason) {
			if stop(); why == OK {
				c.counts["removed"]++
			}
		})
	case !in[x] && !x.member:
		x.id = c.rng.Uint64()>>1 + 1
		x.found(Offered("test", x.id))
		c.change(AddLearner, Member{ID: x.id, Peer: x.peer}, func(why Reason) {
			if why != OK {
				stop()
				return
			}
			c.counts["learner"]++
			c.promote(x, 20, stop)
		})
	default:
		stop()
	}
}

// leave is what a peer does that is told that it is no member any more.
func (x *node) leave() {
	if x.member {
		x.crash()
		x.member = false
	}
}

// promote waits until a learner is in step, and gives it its vote.
func (c *chaos) promote(x *node, tries int, stop func()) {
	l := c.leader()
	inStep := false
	if l != nil {
		l.r.Progress(func(id uint64, p Progress) { inStep = inStep || id == x.id && p.Match+5 >= l.r.commit })
	}
	switch {
	case tries == 0 || !c.on:
		stop()
	case inStep:
		c.change(Promote, Member{ID: x.id}, func(why Reason) {
			if why == OK {
				c.counts["promoted"]++
			}
			stop()
		})
	default:
		c.After(200*time.Millisecond, func() { c.promote(x, tries-1, stop) })
	}
}

// schedule runs one seed; n is how many of five nodes begin as voters.
func schedule(seed uint64, b mutation) (*chaos, error) {
	c := &chaos{on: true, counts: map[string]int{}}
	c.world = newWorld(seed, []int{1, 3, 3, 3, 5}[seed%5])
	c.break_ = b
	if seed%2 == 0 {
		c.logMax = 2 << 10
	}
	for len(c.nodes) < 5 {
		c.addNode()
	}
	for i := range 5 {
		c.client(i)
	}
	c.mischief()
	c.run(chaosFor)
	c.on = false
	c.heal()
	return c, errors.Join(c.settleDown(), c.failure)
}

// settleDown expects that all goes well once nothing is wrong any more.
func (c *chaos) settleDown() error {
	c.until(time.Minute, func() bool { return !c.moving })
	c.run(3 * time.Second) // for a change whose end nobody waited for, and for those who leave
	var members []*node
	if !c.until(time.Minute, func() bool { members = c.members(); return len(members) > 0 }) {
		return fmt.Errorf("seed %d: no leader after all is well", c.seed)
	}
	for _, x := range c.nodes {
		if l := c.leader(); x.member && l != nil {
			if _, in := l.r.book.Get(x.id); !in {
				x.leave()
			}
		}
	}
	pending := len(members)
	var final func(x *node)
	final = func(x *node) {
		c.propose(x, addCommand('z', 1), time.Minute, func(_ int, why Reason) {
			if why == OK || why == Ended {
				pending--
			} else {
				final(x) // a snapshot that came just now leaves it open
			}
		})
	}
	for _, x := range members {
		final(x)
	}
	if !c.until(30*time.Second, func() bool { return pending == 0 }) {
		return fmt.Errorf("seed %d: %d of %d proposals hang after all is well", c.seed, pending, len(members))
	}
	same := func() bool {
		for _, x := range members {
			if x.r != nil && !x.r.gone && x.m.commands != uint64(len(c.agreed)) || !x.r.clock.quiet {
				return false
			}
		}
		return true
	}
	if !c.until(time.Minute, same) {
		return fmt.Errorf("seed %d: the members are not the same and quiet after all is well", c.seed)
	}
	n := c.messages
	c.run(10 * time.Minute)
	if c.messages != n {
		return fmt.Errorf("seed %d: %d messages in a quiet group", c.seed, c.messages-n)
	}
	if res := porcupine.CheckOperationsTimeout(registers, c.history, 20*time.Second); res == porcupine.Illegal {
		return fmt.Errorf("seed %d: the history is not linearizable", c.seed)
	}
	return nil
}

func TestChaos(t *testing.T) {
	if *oneSeed != 0 {
		c, err := schedule(*oneSeed, nothing)
		t.Log(len(c.history), "operations,", c.counts)
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	total, ops, maybe := map[string]int{}, 0, 0
	for seed := range uint64(*seeds) {
		c, err := schedule(*firstOne+seed, nothing)
		if err != nil {
			t.Fatal(err)
		}
		ops += len(c.history)
		maybe += c.maybe
		c.counts["snapshot"] = c.snaps
		for k, n := range c.counts {
			total[k] += n
		}
	}
	t.Logf("%d schedules, %d operations of which %d have an unknown end, %v", *seeds, ops, maybe, total)
}

func TestChaosIsTheSameEachTime(t *testing.T) {
	a, _ := schedule(7, nothing)
	b, _ := schedule(7, nothing)
	if len(a.agreed) == 0 || len(a.agreed) != len(b.agreed) || a.messages != b.messages || a.Now != b.Now {
		t.Errorf("%d commands and %d messages, then %d and %d", len(a.agreed), a.messages, len(b.agreed), b.messages)
	}
}

// Without its guards the simulation must fail, or it shows nothing.
func TestChaosNoticesWhatIsMissing(t *testing.T) {
	for b, name := range map[mutation]string{noSync: "fsync", voteTwice: "vote check", noDedupe: "numbers of asks"} {
		red := 0
		for seed := uint64(1); seed <= 400 && red == 0; seed++ {
			if _, err := schedule(seed, b); err != nil {
				red++
				t.Logf("without the %s: %v", name, err)
			}
		}
		if red == 0 {
			t.Errorf("without the %s nothing fails", name)
		}
	}
}
