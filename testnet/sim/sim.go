// Package sim runs the real market (tasks/market) over the real replicas of storage/quorum on virtual time: clocks whose rates
// are up to a tenth apart and which go on in sleep, disks that lose what was not synced, and a network that loses, doubles,
// delays, reorders and partitions. Processes crash, machines sleep, owners take them back. One seed is one schedule, the
// same on every machine, so one that fails can be run again.
//
// After every step it checks what must hold: at most one commit a task, on all replicas the same; no commit that anybody was
// told of is unknown to a later leader or lost with one of three stewards gone; no lease outlives its time and no open task
// goes unannounced; nothing runs past its lease; an exclusive task never runs twice at a time, and only its newest attempt
// commits. And when the faults end, the job does.
//
// The package owns no rule of the market: it may only find that one is broken. It can take a guard away, to see that its loss
// is noticed.
package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/quorum/replica"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
)

// Guard is a check that a schedule can do without.
type Guard uint8

// The guards.
const (
	None  Guard = iota // nothing is taken away
	Open               // the ledger takes a second result
	Token              // ledger and steward take a result whatever its token
	Lease              // an exclusive task is granted before its lease must have lapsed
	Vote               // a replica votes for whoever asks
	Fsync              // a disk says that it has what it may yet lose
)

// String names what is missing.
func (g Guard) String() string {
	return [...]string{"nothing", "the check that a task is open", "the token check", "the wait for a lease", "the vote check", "fsync"}[g]
}

const (
	finishWithin = 10 * time.Minute // from the end of all faults to the job's end
	settleWithin = 2 * time.Minute  // from the job's end until nobody holds anything of it
	nightEnds    = 9 * time.Hour
)

// Result says how a schedule went, or several together.
type Result struct {
	Schedules int
	Tasks     int
	Starts    int // attempts begun
	Leaders   int
	Steps     int           // events of virtual time
	Longest   time.Duration // virtual time from the end of faults to the job's end
}

func (r *Result) add(o Result) {
	r.Schedules += o.Schedules
	r.Tasks += o.Tasks
	r.Starts += o.Starts
	r.Leaders += o.Leaders
	r.Steps += o.Steps
	r.Longest = max(r.Longest, o.Longest)
}

// Run plays one schedule, all guards standing unless one is named. An error is a broken promise.
func Run(seed uint64, without Guard) (Result, error) { return Trace(seed, without, nil) }

// Trace is Run, telling what happens line by line; nil tells nobody.
func Trace(seed uint64, without Guard, tell func(string)) (Result, error) {
	w := newWorld(seed, without, tell)
	w.chaos = true
	w.After(w.upTo(w.plan.every), w.mischief)
	w.run(w.plan.chaos, nil)
	w.heal()
	healed := w.Now
	if !w.over() {
		w.run(healed+finishWithin, w.over)
	}
	if w.err == nil && !w.over() {
		w.fail("the job has not ended %v after the last fault", finishWithin)
	}
	w.res.Longest = w.Now - healed
	w.run(w.Now+settleWithin, w.settled)
	if w.err == nil && !w.settled() {
		w.fail("the job has ended, and %v later somebody does not know", settleWithin)
	}
	w.final()
	w.morning()
	return w.res, w.err
}

// morning waits for who slept all night, who must find out what became of the job. The others sleep a little less.
func (w *world) morning() {
	for _, x := range w.nodes {
		if x.away && w.err == nil && x.idle() {
			for _, y := range w.nodes {
				w.sleep(y, x.asleep-w.Now-w.between(time.Second, time.Minute))
			}
			w.run(nightEnds, func() bool { return !x.idle() && w.settled() })
			if w.err == nil && (x.idle() || !w.settled()) {
				w.fail("%s woke in the morning and did not find its way", x.id)
			}
		}
	}
}

func (w *world) guards() market.Guards {
	switch w.without {
	case Open:
		return market.AllGuards &^ market.OpenGuard
	case Token:
		return market.AllGuards &^ market.TokenGuard
	case Lease:
		return market.AllGuards &^ market.LeaseGuard
	}
	return market.AllGuards
}

func newWorld(seed uint64, without Guard, tell func(string)) *world {
	w := &world{trace: tell, seed: seed, without: without, rng: rand.New(rand.NewPCG(seed, 0x7a5c)), cut: map[[2]int]bool{}, facts: newFacts()}
	w.nextID = w.rng.Uint64() >> 20
	w.somePlan()
	w.side = make([]int, w.plan.peers)
	w.sign()
	for i := range w.plan.peers {
		w.nodes = append(w.nodes, &node{
			w: w, n: i, id: peer.ID(rune('a' + i)), rate: 1 + (w.rng.Float64()-0.5)/10,
			offset: time.Hour + w.upTo(100*time.Hour),
			lends:  market.Lends{Cores: 1 + w.rng.IntN(2), Memory: 1 << 40, Mains: w.rng.IntN(2) == 0, Battery: 50, Wasm: true},
		})
	}
	w.found()
	for _, x := range w.nodes {
		x.start()
	}
	var votes []uint64
	for _, x := range w.nodes[1:w.plan.stewards] {
		votes = append(votes, x.self)
	}
	w.nodes[0].stepReplica(replica.Campaign{Votes: votes})
	w.submit(w.nodes[0])
	w.res = Result{Schedules: 1, Tasks: w.job.Spec.All()}
	return w
}

// sign makes the job.
func (w *world) sign() {
	spec := job.Spec{
		Pool: ident.PoolID{1}, Created: time.UnixMilli(1), Nonce: w.seed,
		Command:   job.Command{Kind: job.Wasm, Module: job.File{Root: chunk.SumRaw(nil), Size: 1}},
		Split:     job.Split{Kind: job.Count, Count: uint32(w.plan.tasks)},
		Exclusive: w.rng.IntN(2) == 0,
	}
	if w.rng.IntN(4) == 0 {
		spec.Reduce = &spec.Command
	}
	stdout := []byte("out")
	if w.plan.bulky {
		stdout = make([]byte, 1000)
	}
	var err error
	if w.job, err = job.Sign(submitter(), spec); err != nil {
		panic(err)
	}
	good := job.Result{Stdout: job.Stream{Inline: stdout}}
	bad := job.Result{Exit: 1, Reason: "exit code 1"}
	if w.good, err = good.Encode(); err != nil {
		panic(err)
	}
	if w.bad, err = bad.Encode(); err != nil {
		panic(err)
	}
}

// submitter is a key that is the same in every run.
var submitter = sync.OnceValue(func() crypto.PrivKey {
	key, _, err := crypto.GenerateEd25519Key(zeros{})
	if err != nil {
		panic(err)
	}
	return key
})

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// submit brings the spec into the log, until it is there.
func (w *world) submit(x *node) {
	data, err := market.EncodeBatch(time.UnixMilli(1), []market.Command{{Kind: market.Submit, By: x.id, Data: w.job.Raw}})
	if err != nil {
		panic(err)
	}
	x.ask(func(id uint64) replica.Event { return replica.Propose{ID: id, Data: data} }, w.plan.patience, func(replica.Reason) {})
	w.After(time.Second, func() { w.resubmit() })
}

// resubmit has another steward try when the submitter is gone before its submission was heard of.
func (w *world) resubmit() {
	if len(w.facts.entries) > 0 {
		return
	}
	for _, x := range w.nodes[:w.plan.stewards] {
		if x.up && !x.idle() && len(x.r.Status().Book.Members) > 0 {
			w.submit(x)
			return
		}
	}
	w.After(time.Second, func() { w.resubmit() })
}

// Many plays the schedules first, first+1, … on all cores, and stops at the first that fails.
func Many(ctx context.Context, first uint64, schedules int, progress func(done int)) (Result, error) {
	var mu sync.Mutex
	var sum Result
	var failed error
	var next, done atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				k := next.Add(1) - 1
				if k >= int64(schedules) || ctx.Err() != nil {
					return
				}
				res, err := Run(first+uint64(k), None)
				mu.Lock()
				sum.add(res)
				if failed == nil && err != nil {
					failed = err
				}
				stop := failed != nil
				mu.Unlock()
				if n := done.Add(1); progress != nil {
					progress(int(n))
				}
				if stop {
					return
				}
			}
		})
	}
	wg.Wait()
	if failed == nil && ctx.Err() != nil {
		failed = fmt.Errorf("sim: %w", ctx.Err())
	}
	return sum, failed
}
