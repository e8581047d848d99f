package market

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/tasks/job"
)

// stage is how far a worker is with a job.
type stage uint8

const (
	looking  stage = iota // the shell has been asked
	refused               // this peer cannot run it
	unasked               // enough others are asked to bid
	waiting               // to bid
	apart                 // without a stream, to dial at dialAt
	dialing               // a stream was asked for
	standing              // there is a stream
)

// pursuit is one job as a worker sees it.
type pursuit struct {
	id    job.ID
	ad    Ad
	heard Moment // last news
	stage stage
	why   string // refused
	look  Look
	draw  uint32 // this worker's lot for the job; see invited
	bidAt Moment

	at       peer.ID // the steward of the stream, or whom to dial
	stream   uint64
	dialAt   Moment
	backoff  time.Duration
	dead     peer.ID // whom a dial did not reach, last …
	deadAt   Moment  // … and when
	answered Moment  // the last order came
	moveAt   Moment  // when to leave a steward that does not lead; zero: it leads, or has not said

	term    uint64 // greatest seen
	ready   uint64 // the term that welcomed us on this stream
	in, seq uint64 // last order's and report's
	stamps  [stampsMax]Moment
	renewAt Moment
	due     bool  // a Full report is to be sent now
	believe Offer // what the steward thinks is on offer

	open     uint32
	held     map[uint32]*attempt
	n        [Done + 1]int // attempts by phase
	dueAt    Moment        // no deadline of an attempt is before
	mean     time.Duration // of the times that an attempt has its cores; 0 unknown
	ended    int           // attempts that mean is made of
	line     []*attempt    // queued ones in the order of their grants, and some that have left
	unsent   []*attempt    // results to hand over
	released []given
}

// given is a lease to give back with the next report.
type given struct {
	Lease
	why Reason
}

func (w *Worker) announced(ad *Ad) {
	if slices.Contains(w.gone, ad.Job) || w.stopped || len(ad.Stewards) > StewardsMax || ad.Open == 0 {
		return
	}
	p := w.jobs[ad.Job]
	if p == nil {
		if p = w.admit(ad); p == nil {
			return
		}
	} else if ad.Term < p.ad.Term || ad.Term == p.ad.Term && ad.Seq <= p.ad.Seq {
		return // old
	}
	p.ad, p.heard = *ad, w.now
	switch p.stage {
	case refused, unasked:
		w.consider(p)
	case standing:
		if p.at != ad.Leader && (ad.Term > p.term || p.moveAt != 0) {
			w.move(p, ad.Leader)
		}
		return
	case apart:
		if ad.Term >= p.term {
			p.dialAt = min(p.dialAt, w.now.Add(dialFirst))
		}
	}
	p.open = ad.Open
	if p.stage != dialing {
		p.at = ad.Leader
	}
}

// admit makes room for a job, at the cost of one that matters less; nil if there is none.
func (w *Worker) admit(ad *Ad) *pursuit {
	owned := 0
	var worst *pursuit
	for _, p := range w.order {
		if p.ad.Submitter == ad.Submitter {
			owned++
		}
		if len(p.held) == 0 && p.stage != standing && p.stage != dialing && (worst == nil || p.heard < worst.heard) {
			worst = p
		}
	}
	if owned >= ownedMax {
		return nil
	}
	if len(w.order) >= jobsMax {
		if worst == nil {
			return nil
		}
		w.forget(worst, false)
	}
	p := &pursuit{id: ad.Job, ad: *ad, held: map[uint32]*attempt{}, heard: w.now, at: ad.Leader, draw: drawLot(ad.Job, w.self)}
	w.jobs[ad.Job] = p
	at, _ := slices.BinarySearchFunc(w.order, ad.Job, func(p *pursuit, id job.ID) int { return compareIDs(p.id, id) })
	w.order = slices.Insert(w.order, at, p)
	w.consider(p)
	return p
}

func compareIDs(a, b job.ID) int { return slices.Compare(a[:], b[:]) }

// consider decides whether a job is worth a look.
func (w *Worker) consider(p *pursuit) {
	if p.stage == refused && w.unfit(&p.ad.Needs) == "" && p.look.Refused != "" && w.now < p.bidAt {
		return // looked at not long ago
	}
	if p.why = w.unfit(&p.ad.Needs); p.why != "" {
		p.stage = refused
		return
	}
	if !w.invited(p) {
		p.stage = unasked
		return
	}
	p.stage = looking
	p.bidAt = w.now.Add(lookRetry)
	ad := p.ad
	w.out.Looks = append(w.out.Looks, &ad)
}

// unfit says why this peer cannot run a task with such needs whatever else it does; "" if it can.
func (w *Worker) unfit(n *Needs) string {
	l := &w.lends
	switch {
	case n.Kind == job.Wasm && !l.Wasm:
		return "it does not run WebAssembly"
	case n.Kind == job.Proc && !l.Proc:
		return "its owner does not allow native commands (up --allow-exec)"
	case n.Kind != job.Wasm && n.Kind != job.Proc:
		return "it does not know this kind of program"
	case l.Cores > 0 && n.Cores > l.Cores:
		return "it lends fewer cores than a task needs"
	case n.Memory > l.Memory:
		return "it lends less memory than a task needs"
	}
	for _, need := range n.Labels {
		if !slices.Contains(l.Labels, need) {
			return "it is not " + need
		}
	}
	return ""
}

// refit looks again at what was refused when what is lent changes.
func (w *Worker) refit() {
	for _, p := range w.order {
		if p.stage == refused && p.look.Refused == "" {
			w.consider(p)
		}
	}
}

func (w *Worker) looked(p *pursuit, l Look) {
	if p.stage != looking {
		return
	}
	p.look = l
	if l.Refused != "" {
		p.stage, p.why, p.bidAt = refused, l.Refused, w.now.Add(lookRetry)
		return
	}
	p.stage = waiting
	p.bidAt = w.now.Add(bidSpread * time.Duration(FitMax-w.fitness(p)) / FitMax)
}

// fitness is how well this peer fits, from 0 to FitMax: idle cores count most, then inputs that are here, power, and how
// long it will stay awake.
func (w *Worker) fitness(p *pursuit) int {
	share := func(have, of int64) int64 {
		if of <= 0 {
			return 1000
		}
		return max(0, min(1000, have*1000/of))
	}
	idle := share(int64(w.cores()-w.used()), int64(w.cores()))
	local := share(p.look.Local/1000, p.look.Total/1000)
	power := int64(1000)
	if !w.lends.Mains {
		power = share(int64(w.lends.Battery), 200)
	}
	awake := int64(1000)
	if w.lends.Awake > 0 {
		awake = share(int64(w.lends.Awake), int64(time.Hour))
	}
	return int(400*idle+300*local+200*power+100*awake) / 1000
}
