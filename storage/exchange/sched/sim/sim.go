// Package sim drives the real download scheduler through seeded swarms on
// virtual time: peers of many speeds that join, leave, fall silent, choke,
// refuse, gain leaves and lie. One seed is one run, the same on every machine.
// After each step it checks the scheduler's invariants.
package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/shoal-os/shoal/dht/agenda"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
	"github.com/shoal-os/shoal/storage/exchange/sched"
)

const (
	leafBytes = 1 << 20
	stepsMax  = 2_000_000
	// slack is what a run may take beyond what its one reliable peer would need
	// alone: two silences until they are noticed, and delays.
	slack = 30 * time.Second
)

// Result says how one run went.
type Result struct {
	Seed    uint64
	Leaves  int
	Bytes   int64         // needed
	Twice   int64         // right bytes that came again although other leaves were free when asked
	Endgame int64         // right bytes that came again in the endgame
	Wrong   int64         // bytes of liars
	Time    time.Duration // virtual
	Banned  int
	Steps   int
}

// Run simulates one download. An error is a broken promise: a stall, a broken
// invariant, an honest peer banned, or a lying one believed.
func Run(seed uint64) (Result, error) { return run(seed, sound) }

// fault is a guard that a run does without, to see that its loss is noticed.
type fault uint8

const (
	sound      fault = iota
	unverified       // wrong bytes pass for right ones
	unheard          // the scheduler is not told of wrong bytes
	deserted         // it is not told who has left
	deaf             // it is not told what has arrived
)

func run(seed uint64, f fault) (Result, error) {
	w := newWorld(seed)
	w.fault = f
	for !w.done {
		if w.res.Steps++; w.res.Steps > stepsMax {
			return w.res, fmt.Errorf("seed %d: no end after %d steps", seed, stepsMax)
		}
		if w.Len() == 0 {
			return w.res, fmt.Errorf("seed %d: stalled at %v with %d leaves missing", seed, w.Now, w.s.Left())
		}
		if !w.Next(w.limit) {
			return w.res, fmt.Errorf("seed %d: %d of %d leaves missing after %v", seed, w.s.Left(), w.res.Leaves, w.limit)
		}
		if w.err != nil {
			return w.res, fmt.Errorf("seed %d at %v: %w", seed, w.Now, w.err)
		}
	}
	w.res.Time = w.Now
	if len(w.came) < w.res.Leaves {
		return w.res, fmt.Errorf("seed %d: done with %d of %d leaves right", seed, len(w.came), w.res.Leaves)
	}
	return w.res, nil
}

// world is one simulated swarm around one downloader.
type world struct {
	agenda.Agenda

	rng   *rand.Rand
	s     *sched.Scheduler
	peers map[sched.Peer]*server
	limit time.Duration
	tick  time.Duration // when a Tick is due
	size  int           // bytes of a leaf
	came  map[int]bool  // leaves that arrived right
	late  map[asked]bool
	done  bool
	res   Result
	err   error // the first
	fault fault
}

type asked struct {
	peer sched.Peer
	leaf int
}

// server is a simulated peer.
type server struct {
	id     sched.Peer
	rate   float64 // bytes/s
	delay  time.Duration
	have   *bitfield.Bitfield // nil: all
	lies   float64            // chance that a leaf is wrong
	silent bool
	choked bool
	gone   bool
	queue  []int
	busy   bool
}

func newWorld(seed uint64) *world {
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	w := &world{rng: rng, peers: map[sched.Peer]*server{}, came: map[int]bool{}, late: map[asked]bool{}}
	n := 1 + rng.IntN(400)
	w.size = leafBytes
	if rng.IntN(3) == 0 {
		w.size = 4096
	}
	w.res = Result{Seed: seed, Leaves: n, Bytes: int64(n) * int64(w.size)}
	w.s = sched.New(sched.Config{
		Leaves: n, Size: func(int) int { return w.size }, Seed: rng.Uint64(), Sequential: rng.IntN(4) == 0,
	})
	// One peer has everything, is honest and stays: the run must end in about
	// the time that it alone would need.
	reliable := &server{id: 1, rate: math.Exp(rng.Float64()*4) * 2e6, delay: w.someDelay()}
	w.limit = time.Duration(2*float64(w.res.Bytes)/reliable.rate*float64(time.Second)) + slack
	w.joinAt(time.Duration(rng.IntN(2000))*time.Millisecond, reliable)
	for k := range rng.IntN(8) {
		w.joinAt(time.Duration(rng.IntN(10000))*time.Millisecond, w.someServer(sched.Peer(k+2), n))
	}
	return w
}

func (w *world) someDelay() time.Duration {
	return time.Duration(100+w.rng.IntN(150_000)) * time.Microsecond
}

// someServer makes a peer of any kind, and plans what will befall it.
func (w *world) someServer(id sched.Peer, leaves int) *server {
	p := &server{id: id, rate: math.Exp(w.rng.Float64()*7) * 1e5, delay: w.someDelay()}
	if w.rng.IntN(2) == 0 {
		p.have = bitfield.New(leaves)
		for i := range leaves {
			if w.rng.IntN(2) == 0 {
				p.have.Set(i)
			}
		}
		w.gain(p, leaves)
	}
	at := time.Duration(w.rng.IntN(20000)) * time.Millisecond
	switch w.rng.IntN(6) {
	case 0:
		p.lies = 0.2 + 0.8*w.rng.Float64()
	case 1:
		w.at(at, func() error { p.silent = true; return nil })
	case 2:
		w.at(at, func() error { return w.leave(p) })
	case 3:
		w.at(at, func() error { return w.choke(p, true) })
		w.at(at+5*time.Second, func() error { return w.choke(p, false) })
	}
	return p
}

// gain has a partial peer receive leaves from elsewhere, having said so before
// or not. Now and then it says so of leaves that never come.
func (w *world) gain(p *server, leaves int) {
	for range 10 {
		first := w.rng.IntN(leaves)
		r := bitfield.Run{First: first, Count: 1 + w.rng.IntN(min(32, leaves-first))}
		at := time.Duration(w.rng.IntN(20000)) * time.Millisecond
		if w.rng.IntN(2) == 0 {
			w.at(at-time.Duration(w.rng.IntN(3000))*time.Millisecond, func() error {
				if w.peers[p.id] != p || p.gone {
					return nil
				}
				return w.step(sched.Event{Kind: sched.Soon, Peer: p.id, Run: r})
			})
		}
		if w.rng.IntN(4) == 0 {
			continue
		}
		w.at(at, func() error {
			p.have.SetRun(r)
			if w.peers[p.id] != p || p.gone {
				return nil
			}
			return w.step(sched.Event{Kind: sched.Has, Peer: p.id, Run: r})
		})
	}
}

func (w *world) at(t time.Duration, do func() error) {
	w.After(t-w.Now, func() {
		if err := do(); w.err == nil {
			w.err = err
		}
	})
}

func (w *world) joinAt(t time.Duration, p *server) {
	w.at(t, func() error {
		if p.gone {
			return nil
		}
		w.peers[p.id] = p
		have := p.have
		if have != nil {
			have = have.Clone()
		}
		return w.step(sched.Event{Kind: sched.Joined, Peer: p.id, Have: have})
	})
}

func (w *world) leave(p *server) error {
	p.gone = true
	if w.peers[p.id] != p {
		return nil
	}
	delete(w.peers, p.id)
	return w.step(sched.Event{Kind: sched.Left, Peer: p.id})
}

func (w *world) choke(p *server, on bool) error {
	p.choked = on
	if on {
		p.queue = nil
	}
	if w.peers[p.id] != p {
		return nil
	}
	kind := sched.Unchoked
	if on {
		kind = sched.Choked
	}
	return w.step(sched.Event{Kind: kind, Peer: p.id})
}

// epoch is virtual time 0.
var epoch = time.Unix(1_000_000_000, 0)

// step gives the scheduler an event, checks it, and carries out its answer.
func (w *world) step(ev sched.Event) error {
	switch {
	case w.fault == unverified && ev.Kind == sched.Corrupt:
		ev.Kind = sched.Verified
	case w.fault == unheard && ev.Kind == sched.Corrupt,
		w.fault == deserted && ev.Kind == sched.Left,
		w.fault == deaf && ev.Kind == sched.Arrived:
		return nil
	}
	endgame := w.s.Endgame()
	out := w.s.Step(epoch.Add(w.Now), ev)
	if err := w.s.Check(); err != nil {
		return err
	}
	for _, d := range out.Drops {
		p := w.peers[d.Peer]
		if d.Ban {
			w.res.Banned++
			if p.lies == 0 {
				return fmt.Errorf("honest peer %d banned: %s", d.Peer, d.Why)
			}
		}
		p.gone = true
		delete(w.peers, d.Peer)
	}
	for _, c := range out.Cancels {
		if p := w.peers[c.Peer]; p != nil {
			w.at(w.Now+p.delay, func() error { p.cancel(c.Run); return nil })
		}
	}
	for _, a := range out.Asks {
		if w.peers[a.Peer] == nil {
			return fmt.Errorf("leaves are asked of peer %d, who is gone", a.Peer)
		}
		w.ask(a, endgame || w.s.Endgame())
	}
	w.done = out.Done
	if at := out.Wake.Sub(epoch); !out.Wake.IsZero() && at != w.tick {
		w.tick = at
		w.at(at, func() error {
			if w.tick != at {
				return nil // a later answer asked for another time
			}
			w.tick = -1
			return w.step(sched.Event{Kind: sched.Tick})
		})
	}
	return nil
}

func (w *world) ask(a sched.Ask, endgame bool) {
	p := w.peers[a.Peer]
	for i := a.Run.First; i < a.Run.First+a.Run.Count; i++ {
		w.late[asked{p.id, i}] = endgame
	}
	w.at(w.Now+p.delay, func() error {
		if p.choked {
			return nil
		}
		for i := range a.Run.Count {
			p.queue = append(p.queue, a.Run.First+i)
		}
		w.serve(p)
		return nil
	})
}

func (p *server) cancel(r bitfield.Run) {
	kept := p.queue[:0]
	for _, l := range p.queue {
		if l < r.First || l >= r.First+r.Count {
			kept = append(kept, l)
		}
	}
	p.queue = kept
}

// serve has p send the head of its queue, if it is not sending already.
func (w *world) serve(p *server) {
	if p.busy || p.silent || p.gone || len(p.queue) == 0 {
		return
	}
	leaf := p.queue[0]
	p.queue = p.queue[1:]
	p.busy = true
	took := time.Duration(float64(w.size) / p.rate * float64(time.Second))
	w.moving(p, took)
	w.at(w.Now+took, func() error {
		p.busy = false
		if p.silent || p.gone {
			return nil
		}
		w.at(w.Now+p.delay, func() error { return w.arrive(p, leaf) })
		w.serve(p)
		return nil
	})
}

// moving reports a slow leaf's progress every second, as the shell does.
func (w *world) moving(p *server, took time.Duration) {
	for t := time.Second; t < took; t += time.Second {
		w.at(w.Now+t+p.delay, func() error {
			if p.silent || p.gone {
				return nil
			}
			return w.step(sched.Event{Kind: sched.Moving, Peer: p.id})
		})
	}
}

func (w *world) arrive(p *server, leaf int) error {
	if w.peers[p.id] != p {
		return nil
	}
	run := bitfield.Run{First: leaf, Count: 1}
	wrong := w.rng.Float64() < p.lies
	if !wrong && w.came[leaf] {
		if w.late[asked{p.id, leaf}] {
			w.res.Endgame += int64(w.size)
		} else {
			w.res.Twice += int64(w.size)
		}
	}
	err := w.step(sched.Event{Kind: sched.Arrived, Peer: p.id, Run: run, Bytes: w.size})
	verify := time.Duration(1+w.rng.IntN(5)) * time.Millisecond
	w.at(w.Now+verify, func() error {
		if wrong {
			w.res.Wrong += int64(w.size)
			if w.came[leaf] {
				return nil // the shell does not look at what it has
			}
			return w.step(sched.Event{Kind: sched.Corrupt, Peer: p.id, Run: run})
		}
		w.came[leaf] = true
		return w.step(sched.Event{Kind: sched.Verified, Run: run})
	})
	return err
}
