package exchange

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
	"github.com/shoal-os/shoal/storage/exchange/sched"
)

// Reader is somebody who reads a root while it arrives. Whatever job fetches
// the root, now or later, puts what its readers need before all else. It is
// safe for concurrent use.
type Reader struct {
	of    circle
	swarm *Swarm

	// Guarded by swarm.mu.
	needs   bitfield.Run
	waiting bool   // for needs.First, which is not here
	since   uint64 // who began to wait first
}

// NewReader registers a reader of root that needs nothing yet. What it needs is
// fetched by the root's private job, or by its other one. Close it.
func (s *Swarm) NewReader(root chunk.CID, private bool) *Reader {
	r := &Reader{of: circle{root, private}, swarm: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readers == nil {
		s.readers = map[circle]map[*Reader]bool{}
	}
	if s.readers[r.of] == nil {
		s.readers[r.of] = map[*Reader]bool{}
	}
	s.readers[r.of][r] = true
	return r
}

// Need says what the reader needs from now on, instead of what it needed
// before: a run of leaves, whose first it waits for or not. Leaves that are here
// may be among them.
func (r *Reader) Need(run bitfield.Run, waiting bool) {
	r.swarm.mu.Lock()
	defer r.swarm.mu.Unlock()
	if r.needs == run && r.waiting == waiting {
		return
	}
	if waiting && !r.waiting {
		r.swarm.turns++
		r.since = r.swarm.turns
	}
	r.needs, r.waiting = run, waiting
	r.swarm.tellReaders(r.of)
}

// Close takes the reader, with all it needs, off the root.
func (r *Reader) Close() {
	s := r.swarm
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.readers[r.of], r)
	if len(s.readers[r.of]) == 0 {
		delete(s.readers, r.of)
	}
	s.tellReaders(r.of)
}

// Suggest has peers asked that may have part of a root, if it is being fetched.
func (s *Swarm) Suggest(root chunk.CID, private bool, from []peer.AddrInfo) {
	j := s.job(circle{root, private})
	for _, info := range from {
		if j != nil {
			j.suggest(info, viaLink)
		}
	}
}

// tellReaders has the root's job look at its readers again. The caller holds mu.
func (s *Swarm) tellReaders(c circle) {
	if j := s.jobs[c]; j != nil {
		select {
		case j.reads.changed <- struct{}{}:
		default:
		}
	}
}

// needed returns what the readers of a root need, those who wait first and in
// the order in which they began to; waiting is how many do.
func (s *Swarm) needed(c circle) (runs []bitfield.Run, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Reader
	for r := range s.readers[c] {
		if r.needs.Count > 0 {
			all = append(all, *r)
		}
		if r.waiting {
			waiting++
		}
	}
	slices.SortFunc(all, func(a, b Reader) int {
		if a.waiting != b.waiting {
			if a.waiting {
				return -1
			}
			return 1
		}
		return int(int64(a.since - b.since))
	})
	for i := range all {
		runs = append(runs, all[i].needs)
	}
	return runs, waiting
}

// reads is a job's side of its root's readers. Its fields belong to run's
// goroutine.
type reads struct {
	changed chan struct{}      // holds a token when readers said something new
	own     *bitfield.Bitfield // what the job itself is to fetch
	asked   *bitfield.Bitfield // what is fetched for readers only
	twin    map[int32]int32    // a leaf that is not fetched itself → the equal one that is
}

// plan notes what the job itself fetches, before any reader is heard.
func (j *job) plan(want *bitfield.Bitfield) *bitfield.Bitfield {
	if j.spec.OnDemand {
		want, j.total, j.present = bitfield.New(want.Len()), 0, 0
	}
	j.reads.own, j.reads.asked = want.Clone(), bitfield.New(want.Len())
	return want
}

// hear has the scheduler fetch what readers need now, beginning where the one
// who has waited longest is, and no more of what none needs any longer.
func (j *job) hear() {
	if j.sched == nil {
		return
	}
	runs, waiting := j.swarm.needed(circle{j.spec.Root, j.spec.Private})
	need, first := j.missing(runs)
	for _, r := range minus(j.reads.asked, need) {
		j.step(sched.Event{Kind: sched.Unwanted, Run: r})
	}
	j.reads.asked = bitfield.New(need.Len())
	for _, r := range minus(need, j.reads.asked) {
		for i := r.First; i < r.First+r.Count; i++ {
			if !j.reads.own.Has(i) {
				j.reads.asked.Set(i)
			}
			if !j.sched.Needs(i) {
				j.step(sched.Event{Kind: sched.Wanted, Run: bitfield.Run{First: i, Count: 1}})
			}
		}
	}
	if waiting > 0 && first >= 0 {
		j.step(sched.Event{Kind: sched.Seek, Run: bitfield.Run{First: first}})
	}
}

// minus is what is in a and not in b, as runs.
func minus(a, b *bitfield.Bitfield) []bitfield.Run { return a.RunsSince(b.Clone(), a.Len()) }

// missing is what of runs is not here, and the leaf to begin with; -1 for none.
func (j *job) missing(runs []bitfield.Run) (need *bitfield.Bitfield, first int) {
	need, first = bitfield.New(len(j.tree.Leaves)), -1
	for _, r := range runs {
		for i := max(r.First, 0); i < min(r.First+r.Count, len(j.tree.Leaves)); i++ {
			if j.root.Has(i) {
				continue
			}
			leaf := j.stand(i)
			if first < 0 {
				first = leaf
			}
			need.Set(leaf)
		}
	}
	return need, first
}

// stand is the leaf that is fetched for leaf i: another with equal bytes, perhaps.
func (j *job) stand(i int) int {
	if j.same == nil {
		return i
	}
	if j.reads.twin == nil {
		j.reads.twin = map[int32]int32{}
		for one, others := range j.same {
			for _, o := range others {
				j.reads.twin[o] = one
			}
		}
	}
	if one, ok := j.reads.twin[int32(i)]; ok && !j.root.Has(int(one)) {
		return int(one)
	}
	return i
}

// idle reports that the job only waits for readers to need something.
func (j *job) idle() bool { return j.spec.OnDemand && j.sched != nil && j.sched.Left() == 0 }
