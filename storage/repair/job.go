package repair

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/placement"
)

const (
	// rateBurst is how many bytes a limited fetch may have at once.
	rateBurst = 4 << 20
	// movingEvery is how often the planner hears that bytes of a fetch arrive.
	movingEvery = 2 * time.Second
)

// errNoSource is for a piece that nobody who was asked could give.
var errNoSource = errors.New("no member that is there gave it")

// job is the fetching of one piece.
type job struct {
	piece.Piece
	why    placement.Why
	from   []peer.ID
	ctx    context.Context
	cancel context.CancelFunc
	bytes  atomic.Int64
	began  time.Time
	done   chan struct{} // closed when it ended; err is set then
	err    error
}

// startJob begins to fetch a piece. mu is held.
func (r *Repair) startJob(f placement.Fetch) {
	if r.jobs[f.Piece] != nil {
		return
	}
	j := &job{
		Piece: piece.Piece{ID: f.Piece, Size: f.Size}, why: f.Why, from: slices.Clone(f.From),
		began: time.Now(), done: make(chan struct{}),
	}
	j.ctx, j.cancel = context.WithCancel(r.ctx)
	r.jobs[f.Piece] = j
	if f.Size > piece.SmallMax || !f.Piece.IsRaw() {
		r.wg.Go(func() { r.endJob(j, r.restoreOr(j, r.takeLarge)) })
		return
	}
	r.enqueue(j)
}

// stopJob ends a fetch that the planner wants no more; it is owed no answer. mu is held.
func (r *Repair) stopJob(id chunk.CID) {
	if j := r.jobs[id]; j != nil {
		j.cancel()
		delete(r.jobs, id)
	}
}

// endJob tells the planner how a fetch ended.
func (r *Repair) endJob(j *job, err error) {
	j.cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	j.err = err
	close(j.done)
	if r.jobs[j.ID] != j {
		return // the planner stopped it
	}
	delete(r.jobs, j.ID)
	if err != nil {
		r.log.Debug("a piece was not fetched", "piece", j.ID, "for", j.why, "err", err)
		r.step(placement.Failed{Piece: j.ID})
		return
	}
	r.step(placement.Taken{Piece: j.ID})
}

// restoreOr takes a piece out of quarantine, or else has it fetched.
func (r *Repair) restoreOr(j *job, fetch func(*job) error) error {
	if r.store.Restore(j.ID) {
		return nil
	}
	err := fetch(j)
	if errors.Is(err, piece.ErrQuota) && r.makeRoom() {
		err = fetch(j)
	}
	if err == nil {
		r.counted.mend(j.Size)
	}
	return err
}

// makeRoom deletes what lies in quarantine, now that there is no room for something better. It reports whether that was
// anything.
func (r *Repair) makeRoom() bool {
	if r.store.Usage().Quarantined == 0 {
		return false
	}
	c, err := r.store.Purge(true)
	if err != nil {
		r.log.Warn("the quarantine is not emptied", "err", err)
	}
	return c.Purged > 0
}

// takeLarge fetches a large piece by the swarm: without haste from afar, as fast as it goes from nearby or for a writer.
func (r *Repair) takeLarge(j *job) error {
	take := r.cfg.Fetch.TakePieceNow
	if j.why != placement.ForWriter && slices.ContainsFunc(j.from, func(p peer.ID) bool { return !r.cfg.Near(p) }) {
		take = r.cfg.Fetch.TakePiece
	}
	last := time.Now()
	return take(j.ctx, j.Piece, j.from, func(bytes int64) {
		if bytes == j.bytes.Swap(bytes) || time.Since(last) < movingEvery {
			return
		}
		last = time.Now()
		r.does(placement.Moving{Piece: j.ID})
	})
}

// queues hold the small pieces to be fetched, by the member that is asked next. One goroutine for each of these fetches
// them in runs.
type queues struct {
	mu   sync.Mutex
	list map[peer.ID][]*job
}

// enqueue has a small piece fetched from the next member that has it. It ends the job when there is none. It may be
// called with mu held.
func (r *Repair) enqueue(j *job) {
	if len(j.from) == 0 || j.ctx.Err() != nil {
		r.wg.Go(func() { r.endJob(j, errNoSource) })
		return
	}
	p := j.from[0]
	j.from = j.from[1:]
	q := &r.queues
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.list == nil {
		q.list = map[peer.ID][]*job{}
	}
	_, busy := q.list[p]
	q.list[p] = append(q.list[p], j)
	if !busy {
		r.wg.Go(func() { r.drain(p) })
	}
}

// drain fetches what waits for one member, until nothing does.
func (r *Repair) drain(p peer.ID) {
	for {
		jobs := r.queues.next(p)
		if jobs == nil {
			return
		}
		r.takeSmall(p, jobs)
	}
}

// next takes a run's worth of jobs; nil and the queue is gone.
func (q *queues) next(p peer.ID) []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.list[p]
	if len(list) == 0 {
		delete(q.list, p)
		return nil
	}
	n, size := 0, int64(0)
	for n < len(list) && n < readMax && (n == 0 || size+list[n].Size <= runBytes) {
		size += list[n].Size
		n++
	}
	q.list[p] = list[n:]
	return list[:n:n]
}

// takeSmall fetches a run of small pieces from one member; those that it does not give are asked of the next.
func (r *Repair) takeSmall(p peer.ID, jobs []*job) {
	want, size := []piece.Piece{}, int64(0)
	urgent := r.cfg.Near(p)
	for _, j := range jobs {
		if j.ctx.Err() == nil && !r.store.Has(j.ID) && !r.store.Restore(j.ID) {
			want, size = append(want, j.Piece), size+j.Size
		}
		urgent = urgent || j.why == placement.ForWriter
	}
	if !urgent && r.rate.wait(r.ctx, size) != nil {
		size = 0 // it is closing: the read fails as well
	}
	stored, err := r.fetchRun(p, want)
	for _, j := range jobs {
		switch {
		case stored[j.ID]:
			r.counted.mend(j.Size)
			r.endJob(j, nil)
		case r.store.Has(j.ID): // it came by another way
			r.endJob(j, nil)
		case r.ctx.Err() != nil || errors.Is(err, piece.ErrQuota):
			r.endJob(j, errors.Join(err, r.ctx.Err()))
		default:
			r.enqueue(j)
		}
	}
}

// fetchRun reads small pieces from a member into the store, and returns those that are on the disk now.
func (r *Repair) fetchRun(p peer.ID, want []piece.Piece) (map[chunk.CID]bool, error) {
	if len(want) == 0 {
		return nil, nil
	}
	batch := r.store.NewBatch()
	defer batch.Close()
	got := map[chunk.CID]bool{}
	var full error
	err := r.readFrom(r.ctx, p, want, func(id chunk.CID, data []byte) error {
		err := r.addSmall(batch, id, data)
		if errors.Is(err, piece.ErrQuota) {
			full = err
			return nil
		}
		switch {
		case errors.Is(err, piece.ErrNotPiece):
			r.noteLie(p, id)
		case err == nil:
			got[id] = true
		}
		return err
	})
	if len(got) == 0 {
		return nil, errors.Join(err, full)
	}
	if err := batch.Commit(); err != nil {
		return nil, fmt.Errorf("repair: %w", err)
	}
	return got, errors.Join(err, full)
}

// addSmall adds a small piece, making room if need be.
func (r *Repair) addSmall(b *piece.Batch, id chunk.CID, data []byte) error {
	err := b.AddSmall(id, data)
	if errors.Is(err, piece.ErrQuota) && r.makeRoom() {
		err = b.AddSmall(id, data)
	}
	return err
}

// counters count bytes since the start.
type counters struct {
	mended   atomic.Int64 // fetched because the planner said so
	received atomic.Int64 // of small pieces that others gave
	sent     atomic.Int64 // of small pieces, given or read by others
	read     atomic.Int64 // of small pieces that were read from others
	news     atomic.Int64 // of what others said they hold
	pace     meter        // of mended
}

func (c *counters) mend(n int64) {
	c.mended.Add(n)
	c.pace.add(n)
}

// countingReader counts what is read.
type countingReader struct {
	io.Reader
	n *atomic.Int64
}

func (c countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}
