package exchange

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
	"github.com/shoal-os/shoal/storage/exchange/sched"
)

const (
	notesMax      = 512
	housekeeping  = 200 * time.Millisecond
	progressEvery = 200 * time.Millisecond
)

// ErrBusy reports a root that is being fetched already.
var ErrBusy = errors.New("already being fetched")

// Job says what to fetch.
type Job struct {
	Root chunk.CID
	From []peer.AddrInfo // where a link says that it is
	// Into is the partial to go on with, when the tree is known. Otherwise Begin is
	// called once with the verified tree and returns the partial to fill.
	Into  *block.Root
	Begin func(ctx context.Context, tree *chunk.Tree, nodes [][]byte) (*block.Root, error)
	// Want chooses leaves; nil for all.
	Want func(*chunk.Tree) *bitfield.Bitfield
	// Timeout ends the job when nothing came from anybody for so long; 0 waits for ever.
	Timeout    time.Duration
	Sequential bool
	// Web are URLs where the bytes of a single file lie too. They come from a link,
	// so only public addresses are asked unless WebPrivate is true.
	Web        []string
	WebPrivate bool
	// OnDemand fetches nothing but what readers need (see Reader), and ends only
	// with its context or, while a reader needs something, by Timeout.
	OnDemand bool
	// Private asks members only, whom From names (addresses are not needed), and
	// is known to members only. Into and what Begin returns are to be in Config.Private.
	Private  bool
	Repair   bool           // bounded by SetRepairRate, too
	Progress func(Progress) // may be nil; called often, from one goroutine
}

// Phase is what a job is doing.
type Phase string

// The phases of a job.
const (
	Finding  Phase = "finding"
	Treeing  Phase = "tree"
	Fetching Phase = "fetching"
)

// Progress is where a job stands. Bytes are of file content.
type Progress struct {
	Phase       Phase
	Done, Total int64 // Total is -1 while unknown
	Peers       int   // that serve now
	Rate        float64
}

// Source is a peer that sent leaves.
type Source struct {
	Peer  peer.ID
	Bytes int64
}

// Banned is a peer that was found lying.
type Banned struct {
	Peer peer.ID
	Why  string
}

// Report says what a job did. It is filled in for failed jobs too.
type Report struct {
	Fetched int64 // leaf bytes received and kept
	Wasted  int64 // leaf bytes received in vain: twice, wrong, or not whole when it ended
	Sources []Source
	Banned  []Banned
	Web     []WebSource
}

// Fetch fills a partial from whoever has the root. It returns once every
// wanted leaf is verified and written; the caller finishes the partial. A
// cancelled context, or an error, leaves the partial to be gone on with.
//
// Errors: NoProviderError, ErrBusy, chunk.ErrTree (the root itself is bad),
// what Begin returned, or the disk's own.
func (s *Swarm) Fetch(ctx context.Context, spec Job) (Report, error) {
	j := &job{
		swarm: s, spec: spec, notes: make(chan note, notesMax), work: make(chan *slab, slabsMax),
		cands: map[peer.ID]*candidate{}, started: time.Now(), lastNews: time.Now(),
		sessions: map[sched.Peer]*session{}, bytes: map[peer.ID]int64{},
		reads: reads{changed: make(chan struct{}, 1)},
	}
	j.ctx, j.cancel = context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, j.cancel)
	defer stop()
	s.mu.Lock()
	if err := s.ctx.Err(); err != nil {
		s.mu.Unlock()
		return Report{}, fmt.Errorf("exchange: fetch %s: %w", spec.Root, err)
	}
	key := circle{spec.Root, spec.Private}
	if s.jobs[key] != nil {
		s.mu.Unlock()
		return Report{}, fmt.Errorf("exchange: fetch %s: %w", spec.Root, ErrBusy)
	}
	s.jobs[key] = j
	s.tasks.Add(1)
	s.mu.Unlock()
	defer s.tasks.Done()

	err := j.run()
	j.cancel()
	j.tasks.Wait()
	j.sweep()
	s.mu.Lock()
	delete(s.jobs, key)
	s.mu.Unlock()
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return j.report(), err
}

// job is one running Fetch. Its fields belong to run's goroutine unless said
// otherwise; everybody else posts notes.
type job struct {
	swarm    *Swarm
	spec     Job
	ctx      context.Context
	cancel   context.CancelFunc
	tasks    sync.WaitGroup
	notes    chan note
	work     chan *slab
	slabs    slabs
	readyFor atomic.Int64 // leaves that may come: 0 before the partial is there

	root  *block.Root
	tree  *chunk.Tree
	same  map[int32][]int32
	reads reads
	webs  map[sched.Peer]*webSeed
	sched *sched.Scheduler
	wake  time.Time // when the scheduler wants a Tick
	treeState

	cands    map[peer.ID]*candidate
	sessions map[sched.Peer]*session
	lastID   sched.Peer
	dialing  int
	refusal  error // the last reason given for not serving a leaf

	started, lastNews time.Time
	progressAt        time.Time
	present, total    int64
	rate              rateMeter
	received, fetched int64
	look              bool      // somebody may be due for dialling
	dialAt            time.Time // when somebody may be; zero for nobody
	bytes             map[peer.ID]int64
	banned            []Banned

	mu        sync.Mutex
	connected []source           // with a session; for peer exchange
	expected  *bitfield.Bitfield // leaves that seeds were asked for; nil before there are any
}

// source is a peer that serves a job; private if it does so to members only.
type source struct {
	peer    peer.ID
	private bool
}

// note is news for run's goroutine.
type note struct {
	kind noteKind
	ev   sched.Event
	sess *session
	web  *webSeed
	info peer.AddrInfo
	via  string
	node []byte
	err  error
}

type noteKind uint8

const (
	noteSched   noteKind = iota // ev
	noteFound                   // info, via
	noteDialed                  // info, sess or err
	noteNode                    // sess, node
	noteTreeEnd                 // sess
	noteClosed                  // sess, err
	noteFailed                  // err: the job cannot go on
)

// sweep closes sessions that were opened while run was ending.
func (j *job) sweep() {
	for {
		select {
		case n := <-j.notes:
			if n.kind == noteDialed && n.sess != nil {
				n.sess.close(false)
			}
		default:
			return
		}
	}
}

// post hands a note to run; it fails only when the job has ended.
func (j *job) post(n note) error {
	select {
	case j.notes <- n:
		return nil
	case <-j.ctx.Done():
		return j.ctx.Err()
	}
}

// ready is how many leaves there are, 0 before any may come. Any goroutine.
func (j *job) ready() int { return int(j.readyFor.Load()) }

// suggest offers a peer that may have part of the root. Any goroutine.
func (j *job) suggest(info peer.AddrInfo, via string) {
	select {
	case j.notes <- note{kind: noteFound, info: info, via: via}:
	default: // a hint, and others will come
	}
}

// sources lists the peers with a session: all, or those that everybody may hear
// of. Any goroutine.
func (j *job) sources(all bool) (out []peer.ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.connected {
		if all || !s.private {
			out = append(out, s.peer)
		}
	}
	return out
}

func (j *job) run() error {
	for _, info := range j.spec.From {
		j.found(info, viaLink)
	}
	if j.swarm.cfg.Finder != nil && !j.spec.Private {
		j.tasks.Go(j.search)
	}
	if j.spec.Into != nil {
		if err := j.begin(j.spec.Into); err != nil {
			return err
		}
	} else if len(j.spec.Web) > 0 {
		if err := j.rawRoot(); err != nil {
			return err
		}
	}
	tick := time.NewTicker(housekeeping)
	defer tick.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !j.done() {
		if j.look {
			j.look = false
			j.dial()
		}
		if next := earlierOf(j.wake, j.dialAt); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		var err error
		select {
		case n := <-j.notes:
			err = j.take(n)
		case <-tick.C:
			err = j.housekeep(time.Now())
		case <-timer.C:
			j.timesUp(time.Now())
		case <-j.reads.changed:
			j.hear()
		case <-j.ctx.Done():
			err = j.ctx.Err()
		}
		if err != nil {
			return err
		}
	}
	j.progress(time.Now(), true)
	return nil
}

// timesUp does what was planned for about now.
func (j *job) timesUp(now time.Time) {
	if !j.dialAt.IsZero() && !now.Before(j.dialAt) {
		j.dialAt, j.look = time.Time{}, true
	}
	if !j.wake.IsZero() && !now.Before(j.wake) {
		j.step(sched.Event{Kind: sched.Tick})
	}
}

// earlierOf is the earlier of two times, where zero is none.
func earlierOf(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (j *job) done() bool { return j.sched != nil && j.sched.Left() == 0 && !j.spec.OnDemand }

// take acts on one note.
func (j *job) take(n note) error {
	switch n.kind {
	case noteFound:
		j.found(n.info, n.via)
	case noteDialed:
		j.dialed(n)
		return j.rawRoot()
	case noteNode:
		return j.node(n)
	case noteTreeEnd:
		return j.treeEnd(n.sess)
	case noteClosed:
		j.closed(n.sess, n.err)
	case noteFailed:
		return n.err
	case noteSched:
		j.event(n)
	}
	return nil
}

// event passes news on to the scheduler, keeping the books.
func (j *job) event(n note) {
	if n.web != nil {
		j.eventWeb(n)
		return
	}
	if n.sess != nil && j.sessions[n.sess.id] != n.sess {
		return // of a session that was closed
	}
	switch n.ev.Kind {
	case sched.Arrived, sched.Moving:
		j.lastNews = time.Now()
		j.bytes[n.sess.peer] += int64(n.ev.Bytes)
		j.swarm.up.got(n.sess.peer, n.ev.Bytes)
		j.received += int64(n.ev.Bytes)
		n.sess.useful = j.lastNews
		j.cands[n.sess.peer].tries = 0
	case sched.Verified:
		j.count(n.ev.Run)
	case sched.Refused:
		j.refusal = n.err
	case sched.Has:
		if j.sched == nil && n.sess.have != nil {
			n.sess.have.SetRun(n.ev.Run)
		}
	}
	j.step(n.ev)
	if n.ev.Kind == sched.Corrupt {
		j.lied(n.info.ID)
	}
}

// step moves the scheduler and does what it says.
func (j *job) step(ev sched.Event) {
	if j.sched == nil {
		return
	}
	out := j.sched.Step(time.Now(), ev)
	for _, d := range out.Drops {
		if s := j.sessions[d.Peer]; s != nil {
			j.hangUp(s, d.Why, d.Ban)
		}
	}
	for _, c := range out.Cancels {
		if s := j.sessions[c.Peer]; s != nil {
			s.queue(runFrame(frameCancel, c.Run))
		}
	}
	for _, a := range out.Asks {
		if s := j.sessions[a.Peer]; s != nil {
			s.queue(runFrame(frameAsk, a.Run))
			if s.have == nil {
				j.expect(a.Run)
			}
		}
	}
	j.actWeb(out)
	j.wake = out.Wake
}

// begin starts the leaves' part of the job, with the partial at hand.
func (j *job) begin(root *block.Root) error {
	tree, err := root.Tree()
	if err != nil {
		return err
	}
	j.root, j.tree = root, tree
	want := bitfield.Full(len(tree.Leaves))
	if j.spec.Want != nil {
		want = j.spec.Want(tree)
	}
	have, _ := root.Have()
	for i := range tree.Leaves {
		if want.Has(i) {
			j.total += max(0, int64(tree.Leaves[i].Size))
		}
		if want.Has(i) && have.Has(i) {
			want.Clear(i)
			j.present += max(0, int64(tree.Leaves[i].Size))
		}
	}
	j.same = sameLeaves(tree, want)
	want = j.plan(want)
	j.sched = sched.New(sched.Config{
		Leaves: len(tree.Leaves), Want: want, Sequential: j.spec.Sequential,
		Seed: uint64(time.Now().UnixNano()), Self: nameOf(j.swarm.cfg.Host.ID()),
		Size: func(i int) int {
			if n := tree.Leaves[i].Size; n >= 0 {
				return int(n)
			}
			return chunk.LeafSize
		},
	})
	if err := j.startVerifiers(); err != nil {
		return err
	}
	j.readyFor.Store(int64(len(tree.Leaves)))
	for id, c := range j.cands {
		if c.isFellow() {
			j.step(sched.Event{Kind: sched.Heard, Name: nameOf(id)})
		}
	}
	for _, s := range j.sessions {
		j.enlist(s)
	}
	j.enlistWeb()
	j.hear()
	return nil
}

// count adds verified leaves, and those equal to them, to what is present. A
// leaf that came twice counts once.
func (j *job) count(r bitfield.Run) {
	var kept, n int64
	for i := r.First; i < r.First+r.Count; i++ {
		if !j.sched.Needs(i) {
			continue
		}
		size := int64(j.tree.Leaves[i].Size)
		if size < 0 {
			size = max(0, j.root.Info().Size)
		}
		kept += size
		n += size * int64(1+len(j.same[int32(i)]))
	}
	j.fetched += kept
	j.present += n
	j.rate.add(n)
}

func (j *job) report() Report {
	r := Report{Fetched: j.fetched, Wasted: max(0, j.received-j.fetched), Banned: j.banned, Web: j.webSources()}
	for p, n := range j.bytes {
		r.Sources = append(r.Sources, Source{p, n})
	}
	slices.SortFunc(r.Sources, func(a, b Source) int { return int(b.Bytes - a.Bytes) })
	return r
}

// housekeep does what depends on time alone.
func (j *job) housekeep(now time.Time) error {
	j.progress(now, false)
	j.treeStalled(now)
	j.makeRoom(now)
	j.look = true
	if j.idle() {
		j.lastNews = now
	}
	if t := j.spec.Timeout; t > 0 && now.Sub(j.lastNews) > t {
		return j.noProvider(now.Sub(j.lastNews))
	}
	return nil
}

func (j *job) progress(now time.Time, force bool) {
	if j.spec.Progress == nil || (!force && now.Sub(j.progressAt) < progressEvery) {
		return
	}
	j.progressAt = now
	p := Progress{Phase: Finding, Total: -1, Peers: len(j.sessions)}
	switch {
	case j.sched != nil:
		p = Progress{Phase: Fetching, Done: j.present, Total: j.total, Peers: len(j.sessions), Rate: j.rate.read(now)}
		if j.tree.Size < 0 {
			p.Total = -1
		}
	case len(j.sessions) > 0:
		p.Phase = Treeing
		p.Done = j.treeBytes
	}
	j.spec.Progress(p)
}

// rateMeter smooths what progress shows, over about two seconds.
type rateMeter struct {
	fresh int64
	rate  float64
	mark  time.Time
}

func (m *rateMeter) add(n int64) {
	if m.mark.IsZero() {
		m.mark = time.Now()
	}
	m.fresh += n
}

func (m *rateMeter) read(now time.Time) float64 {
	if d := now.Sub(m.mark).Seconds(); !m.mark.IsZero() && d >= progressEvery.Seconds() {
		keep := max(0, 1-d/2)
		if m.rate == 0 {
			keep = 0
		}
		m.rate = keep*m.rate + (1-keep)*float64(m.fresh)/d
		m.mark, m.fresh = now, 0
	}
	return m.rate
}
