package replica

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/agenda"
)

// world is a group under virtual time: replicas, their disks and clocks, and a network, all of whose faults follow from a seed.
type world struct {
	agenda.Agenda

	blank  int // replicas, the last ones, that begin as blank ones
	seed   uint64
	rng    *rand.Rand
	nodes  []*node
	faults faults
	break_ mutation
	timing Timing
	logMax int
	snaps  int

	nextID   uint64
	agreed   []Command       // what the group agreed on
	seen     map[uint64]int  // proposals in it
	leaders  map[uint64]int  // by term
	never    map[uint64]bool // proposals of which it was said that they never happen
	ops      map[uint64]func(result int, why Reason)
	messages int
	spin     int
	failure  error

	transcript *strings.Builder
	still      bool // chances are replaced by what is likely
}

// faults says how bad the world is.
type faults struct {
	loss, double float64
	delay        time.Duration // at most
	disk         time.Duration // at most
}

// mutation takes a guard away, to see that the checks notice.
type mutation int

const (
	nothing   mutation = iota
	noSync             // the disk says durable before it is
	voteTwice          // every vote that is asked for is given
	noDedupe           // a follower's ask is appended each time it comes
)

// node is a peer with its part in the group.
type node struct {
	stands  bool // it founds the group and did not begin yet
	w       *world
	n       int
	peer    peer.ID
	id      uint64 // of its replica; another one after it was removed and came back
	r       *Replica
	life    int // events of an earlier one are void
	side    int // of a partition
	log     [][]byte
	durable int // records of log
	lastSeq uint64
	snaps   map[uint64]machine

	// Its clock: boot = offset + rate * now, and a clock may jump forward.
	offset time.Duration
	rate   float64
	frozen time.Duration // until when it sleeps
	held   []Event
	wakeAt time.Duration

	m       machine
	applied []Batch // waiting for the machine
	busy    bool
	want    bool // a snapshot
	member  bool
	at      Batch // the last one that was applied
}

// machine is the state machine: values by key, and a counter.
type machine struct {
	values   map[byte]int
	commands uint64
	index    uint64
}

func (m machine) clone() machine {
	c := machine{values: map[byte]int{}, commands: m.commands, index: m.index}
	for k, v := range m.values {
		c.values[k] = v
	}
	return c
}

// A command adds to a value and returns what it is then, or sets it.
func addCommand(key byte, n int) []byte { return []byte{'+', key, byte(n)} }
func setCommand(key byte, n int) []byte {
	return binary.BigEndian.AppendUint32([]byte{'=', key}, uint32(n))
}

func (m *machine) apply(c Command) int {
	m.commands = c.Index
	switch key := c.Data[1]; c.Data[0] {
	case '+':
		m.values[key] += int(c.Data[2])
		return m.values[key]
	default:
		m.values[key] = int(binary.BigEndian.Uint32(c.Data[2:]))
		return m.values[key]
	}
}

func newWorld(seed uint64, n int) *world { return newWorldWith(seed, n, func(*world) {}) }

func newWorldWith(seed uint64, n int, set func(*world)) *world {
	w := &world{
		seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), seen: map[uint64]int{}, leaders: map[uint64]int{},
		never: map[uint64]bool{}, ops: map[uint64]func(int, Reason){},
		faults: faults{delay: 5 * time.Millisecond, disk: 2 * time.Millisecond},
	}
	set(w)
	w.nextID = w.rng.Uint64() >> 1
	var members []Member
	for i := range n {
		x := w.addNode()
		x.id = w.rng.Uint64()>>1 + 1
		if w.still {
			x.id, x.rate, x.offset = uint64(i+1), 1, 0
		}
		members = append(members, Member{ID: x.id, Peer: x.peer})
	}
	var votes []uint64
	for i, x := range w.nodes {
		x.stands = i == 0
		if i > 0 && i > n-1-w.blank { // of a peer that knows of no founders
			x.found(Offered("test", x.id))
			continue
		}
		x.found(Founded("test", x.id, members[0].ID, members))
		if i > 0 {
			votes = append(votes, x.id)
		}
	}
	w.nodes[0].step(Campaign{Votes: votes})
	return w
}

func (w *world) addNode() *node {
	n := len(w.nodes)
	x := &node{
		w: w, n: n, peer: peer.ID(fmt.Sprintf("peer %d", n)), snaps: map[uint64]machine{},
		rate: 1 + (w.rng.Float64()-0.5)/5, offset: time.Duration(w.rng.Int64N(int64(time.Hour))),
	}
	w.nodes = append(w.nodes, x)
	return x
}

func (w *world) fail(format string, args ...any) {
	if w.failure == nil {
		w.failure = fmt.Errorf("seed %d at %v: %w", w.seed, w.Now, fmt.Errorf(format, args...))
	}
}

func (w *world) chance(d time.Duration) time.Duration {
	if d <= 0 || w.still {
		return max(d, 0)
	}
	return time.Duration(w.rng.Int64N(int64(d)))
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	end := w.Now + d
	for was := w.Now; w.failure == nil && w.Next(end); was = w.Now {
		if w.spin++; w.Now > was {
			w.spin = 0
		}
		if w.spin > 10_000 {
			w.fail("time stands still")
		}
	}
	w.Now = max(w.Now, end)
}

// until lets time pass until a condition holds.
func (w *world) until(limit time.Duration, ok func() bool) bool {
	end := w.Now + limit
	for w.failure == nil && w.Now < end {
		if ok() {
			return true
		}
		w.run(10 * time.Millisecond)
	}
	return w.failure == nil && ok()
}

// found begins the first life of a replica.
func (x *node) found(st *State) {
	x.log = [][]byte{st.Record()}
	x.durable = 1
	x.start()
}

// start begins a life from what is on disk.
func (x *node) start() {
	st := new(State)
	for _, rec := range x.log {
		if err := st.Load(rec); err != nil {
			x.w.fail("node %d: load: %v", x.n, err)
			return
		}
	}
	if x.stands {
		st.Stand()
		x.stands = false
	}
	x.life++
	x.lastSeq, x.busy, x.want, x.applied, x.held = 0, false, false, nil, nil
	x.m = machine{values: map[byte]int{}, index: st.Snapshot.Index}
	if !st.Snapshot.Fresh {
		m, ok := x.snaps[st.Snapshot.Index]
		if !ok {
			x.w.fail("node %d: its snapshot %d is not there", x.n, st.Snapshot.Index)
			return
		}
		x.m = m.clone()
	}
	x.member = true
	r, err := New(Config{Seed: x.w.rng.Uint64(), Timing: x.w.timing, LogMax: x.w.logMax}, st, x.boot())
	if err != nil {
		x.w.fail("node %d: %v", x.n, err)
		return
	}
	x.r = r
	x.step()
}

// crash takes its power. What was not durable may be there or not.
func (x *node) crash() {
	x.r = nil
	x.life++
	loose := len(x.log) - x.durable
	if loose > 0 {
		x.log = x.log[:x.durable+x.w.rng.IntN(loose+1)]
	}
	x.durable = len(x.log)
}

func (x *node) boot() time.Duration {
	return x.offset + time.Duration(float64(x.w.Now)*x.rate)
}

// step gives the replica events, unless it sleeps: then they come when it wakes.
func (x *node) step(events ...Event) {
	if x.r == nil || x.w.failure != nil {
		return
	}
	if x.frozen > x.w.Now {
		x.held = append(x.held, events...)
		return
	}
	out := x.r.Step(x.boot(), events...)
	if x.r.err != nil {
		x.w.fail("node %d: %v", x.n, x.r.err)
		return
	}
	x.act(out)
	x.check()
	if x.r != nil && x.r.gone {
		x.leave()
	}
}

func (x *node) sleep(d time.Duration) {
	x.frozen = x.w.Now + d
	life := x.life
	x.w.After(d, func() {
		if x.life == life && x.frozen <= x.w.Now {
			held := x.held
			x.held = nil
			x.step(held...)
		}
	})
}

// later runs f after a while if the replica still lives.
func (x *node) later(d time.Duration, f func()) {
	life := x.life
	x.w.After(d, func() {
		if x.life == life {
			f()
		}
	})
}

// act carries out what a step wants.
func (x *node) act(out Out) {
	w := x.w
	x.describe(out)
	for _, s := range out.Saves {
		x.save(s)
	}
	for _, m := range out.Send {
		w.send(x, m)
	}
	x.applied = append(x.applied, out.Apply...)
	x.want = x.want || out.Snapshot
	x.work()
	for _, d := range out.Done {
		w.done(d)
	}
	x.arm(out)
}

func (x *node) arm(out Out) {
	if out.Idle {
		x.wakeAt = 0
		return
	}
	d := time.Duration(float64(out.Wake-x.boot())/x.rate) + time.Microsecond
	at := x.w.Now + max(d, 0)
	x.wakeAt = at
	x.later(max(d, 0), func() {
		if x.wakeAt == at {
			x.step()
		}
	})
}

func (x *node) save(s Save) {
	if s.Seq != x.lastSeq+1 {
		x.w.fail("node %d: save %d after %d", x.n, s.Seq, x.lastSeq)
	}
	x.lastSeq = s.Seq
	x.log = append(x.log, s.Record)
	if !s.Sync {
		return
	}
	upTo := len(x.log)
	d := x.w.chance(x.w.faults.disk)
	x.later(d, func() {
		if x.w.break_ != noSync {
			x.sync(upTo)
		} else {
			x.later(50*x.w.faults.disk, func() { x.sync(upTo) })
		}
		x.step(Saved{s.Seq})
	})
}

func (x *node) sync(upTo int) { x.durable = max(x.durable, min(upTo, len(x.log))) }

// work applies the next batch.
func (x *node) work() {
	if x.busy {
		return
	}
	switch {
	case len(x.applied) > 0:
		b := x.applied[0]
		x.applied = x.applied[1:]
		x.busy = true
		x.later(x.w.chance(200*time.Microsecond), func() {
			x.busy = false
			x.apply(b)
			x.step(Applied{b.Seq})
			x.work()
		})
	case x.want:
		x.want = false
		b := x.at
		if b.Seq == 0 {
			x.step(Snapshotted{})
			return
		}
		m := x.m.clone()
		x.snaps[b.Index] = m
		x.w.snaps++
		x.later(x.w.chance(5*time.Millisecond), func() {
			x.step(Snapshotted{OK: true, Index: b.Index, Term: b.Term, Book: b.Book, Size: 100})
		})
	}
}

// apply gives the machine a batch, and holds it against what the others applied.
func (x *node) apply(b Batch) {
	w := x.w
	x.at = b
	if b.Restore {
		if b.Fresh {
			x.m = machine{values: map[byte]int{}}
		} else if m, ok := x.snaps[b.Index]; ok {
			x.m = m.clone()
		} else {
			w.fail("node %d: is to restore %d, which it has not got", x.n, b.Index)
		}
		x.m.index = b.Index
		return
	}
	if b.Index < x.m.index {
		w.fail("node %d: applied %d after %d", x.n, b.Index, x.m.index)
	}
	x.m.index = b.Index
	for _, c := range b.Commands {
		if c.Index != x.m.commands+1 {
			w.fail("node %d: command %d after %d", x.n, c.Index, x.m.commands)
			return
		}
		result := x.m.apply(c)
		w.agree(x, c)
		if f := w.ops[c.ID]; f != nil && x.owns(c.ID) {
			delete(w.ops, c.ID)
			f(result, OK)
		}
	}
}

// owns: the low bits of an id are the node's number, so that only the proposer ends it.
func (x *node) owns(id uint64) bool { return int(id&0xff) == x.n }

// agree holds a command against the history.
func (w *world) agree(x *node, c Command) {
	i := int(c.Index) - 1
	switch {
	case i < len(w.agreed):
		if o := w.agreed[i]; o.ID != c.ID || o.Term != c.Term || !bytes.Equal(o.Data, c.Data) {
			w.fail("node %d: command %d is %d of term %d; it was %d of term %d", x.n, c.Index, c.ID, c.Term, o.ID, o.Term)
		}
	case i > len(w.agreed):
		w.fail("node %d: command %d, and %d were agreed on", x.n, c.Index, len(w.agreed))
	default:
		if w.seen[c.ID]++; w.seen[c.ID] > 1 {
			w.fail("proposal %d was applied twice", c.ID)
		}
		if w.never[c.ID] {
			w.fail("proposal %d was applied after all", c.ID)
		}
		if i > 0 && w.agreed[i-1].Term > c.Term {
			w.fail("terms fall at command %d", c.Index)
		}
		w.agreed = append(w.agreed, c)
	}
}

func (w *world) done(d Done) {
	if d.Reason != OK && d.Reason != Maybe {
		w.never[d.ID] = true
		if w.seen[d.ID] > 0 {
			w.fail("proposal %d was applied and is said never to be", d.ID)
		}
	}
	if f := w.ops[d.ID]; f != nil {
		delete(w.ops, d.ID)
		f(0, d.Reason)
	}
}

// check holds what must be true after every step.
func (x *node) check() {
	if st := x.r.Status(); st.Leader == st.Self {
		if was, ok := x.w.leaders[st.Term]; ok && was != x.n {
			x.w.fail("term %d has two leaders, %d and %d", st.Term, was, x.n)
		}
		x.w.leaders[st.Term] = x.n
	}
}

func (w *world) byID(id uint64) *node {
	for _, x := range w.nodes {
		if x.id == id {
			return x
		}
	}
	return nil
}

// send moves a message, or not.
func (w *world) send(from *node, m Message) {
	w.messages++
	to := w.byID(m.To)
	if to == nil {
		return
	}
	if to.peer != m.Peer {
		w.fail("a message for %d goes to %s", m.To, m.Peer)
	}
	index, fresh, isSnap := m.Snapshot()
	var snap machine
	if isSnap && !fresh {
		var ok bool
		if snap, ok = from.snaps[index]; !ok {
			w.fail("node %d sends snapshot %d, which it has not got", from.n, index)
			return
		}
	}
	copies := 1
	if w.rng.Float64() < w.faults.double {
		copies = 2
	}
	lost := true
	for range copies {
		if w.rng.Float64() < w.faults.loss {
			continue
		}
		lost = false
		mm := m
		if m.Raft != nil && copies > 1 {
			mm.Raft = proto.Clone(m.Raft).(*raftpb.Message)
		}
		w.After(w.chance(w.faults.delay), func() { w.deliver(from, to, mm, index, isSnap && !fresh, snap) })
	}
	if isSnap {
		from.later(w.faults.delay, func() { from.step(SnapshotSent{To: m.To, OK: !lost}) })
	}
}

func (w *world) deliver(from, to *node, m Message, index uint64, hasSnap bool, snap machine) {
	if from.side != to.side || to.r == nil || to.id != m.To {
		return
	}
	if hasSnap {
		to.snaps[index] = snap.clone()
	}
	if w.break_ == voteTwice && (m.Raft.GetType() == raftpb.MsgVote || m.Raft.GetType() == raftpb.MsgPreVote) {
		t := raftpb.MsgVoteResp
		if m.Raft.GetType() == raftpb.MsgPreVote {
			t = raftpb.MsgPreVoteResp
		}
		term := m.Raft.GetTerm()
		yes := &raftpb.Message{Type: &t, From: &to.id, To: &from.id, Term: &term}
		w.send(to, Message{From: to.id, To: from.id, Peer: from.peer, Raft: yes})
		return
	}
	if w.break_ == noDedupe && m.Ask != nil {
		clear(to.r.proposals.askers)
		ask := *m.Ask
		ask.Seq = 1
		m.Ask = &ask
	}
	to.step(Receive{From: from.peer, Message: m})
}

// propose has a node propose a command; done is called at its end.
func (w *world) propose(x *node, data []byte, patience time.Duration, done func(result int, why Reason)) {
	w.nextID++
	id := w.nextID<<8 | uint64(x.n)
	w.ops[id] = done
	x.step(Propose{ID: id, Data: data})
	w.patience(x, id, patience)
}

func (w *world) read(x *node, patience time.Duration, done func(result int, why Reason)) {
	w.nextID++
	id := w.nextID<<8 | uint64(x.n)
	w.ops[id] = done
	x.step(Read{ID: id})
	w.patience(x, id, patience)
}

// patience gives an operation up after a while, or when its node died.
func (w *world) patience(x *node, id uint64, d time.Duration) {
	life := x.life
	w.After(d, func() {
		if w.ops[id] == nil {
			return
		}
		if x.life == life && x.r != nil && x.frozen <= w.Now {
			x.step(Cancel{id})
		}
		if f := w.ops[id]; f != nil {
			delete(w.ops, id)
			f(0, Maybe)
		}
	})
}

// change proposes a change of the members to whoever leads.
func (w *world) change(op Op, m Member, done func(why Reason)) {
	for _, x := range w.nodes {
		if x.r != nil && x.frozen <= w.Now && x.r.leading() && x.member {
			w.nextID++
			id := w.nextID<<8 | uint64(x.n)
			w.ops[id] = func(_ int, why Reason) { done(why) }
			x.step(Change{ID: id, Op: op, Member: m})
			w.patience(x, id, 5*time.Second)
			return
		}
	}
	done(NotLeader)
}

// heal ends all faults.
func (w *world) heal() {
	w.faults.loss, w.faults.double = 0, 0
	w.faults.delay, w.faults.disk = 5*time.Millisecond, 2*time.Millisecond
	for _, x := range w.nodes {
		x.side = 0
		if x.frozen > w.Now {
			x.frozen = w.Now
			held := x.held
			x.held = nil
			x.step(held...)
		}
		if x.r == nil && x.member {
			x.start()
		}
	}
	for _, x := range w.nodes {
		for _, y := range w.nodes {
			if x != y {
				x.step(Presence{Peer: y.peer, Present: true})
			}
		}
	}
}

func (w *world) leader() *node {
	for _, x := range w.nodes {
		if x.r != nil && x.r.Status().Leading {
			return x
		}
	}
	return nil
}

// members are the nodes that the leader has in its book.
func (w *world) members() (out []*node) {
	l := w.leader()
	if l == nil {
		return nil
	}
	for _, m := range l.r.book.Members {
		if x := w.byID(m.ID); x != nil {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b *node) int { return cmp.Compare(a.n, b.n) })
	return out
}
