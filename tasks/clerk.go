package tasks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/tasks/card"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/keep"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

const (
	// listEvery is how long committed outputs gather before they are listed.
	listEvery = 250 * time.Millisecond
	// recordsMax bounds the keep records of one job: 786,432 pieces, 30 MB of names. A job with more is canceled.
	recordsMax = 1024
	// freshMax bounds the committed tasks that wait to be looked at; beyond, all are looked at again.
	freshMax = 64 << 10
	// holdTime is longer than any seat lasts.
	holdTime = 400 * 24 * time.Hour
	// pageWait bounds the fetching of one page from another steward.
	pageWait = 30 * time.Second
)

// clerk writes what a seat must not forget: pages of results as pieces, on every steward, and, on the leading one, the records that
// list the job's pieces, and the job's card. It works on a goroutine that lives only while there is something to do.
type clerk struct {
	s *seat

	mu     sync.Mutex
	began  bool
	busy   bool
	again  bool
	failed bool // the last time
	closed bool
	timer  *time.Timer
	all    bool     // of a new reign: look at all results
	fresh  []uint32 // committed tasks whose outputs are not listed
	holds  []func()

	// The working goroutine's:
	records int                // of this job, as far as is known
	recent  map[chunk.CID]bool // what was listed last, of which the keeper may not have heard
}

func (c *clerk) init(s *seat) { c.s = s }

// begin lets the clerk work, with what there is to do by now. A machine is restored before it has a group, whose other stewards it may
// have to ask.
func (c *clerk) begin() {
	c.mu.Lock()
	c.began = true
	c.mu.Unlock()
	c.look()
}

// look is called after each entry: are there pages to be stored?
func (c *clerk) look() {
	if len(c.s.ledger.Sealed()) > 0 || len(c.s.ledger.Missing()) > 0 {
		c.work()
	}
}

// applied notes what was committed, for the leader to list. It may run within the ledger.
func (c *clerk) applied(a market.Applied) {
	if !c.s.leading.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range a.Outcomes {
		if o := &a.Outcomes[i]; o.Kind == market.Finish && o.Status == market.Committed {
			if len(c.fresh) >= freshMax {
				c.all = true
				continue
			}
			c.fresh = append(c.fresh, o.Task)
		}
	}
	c.soon()
}

// reign begins the leader's duties.
func (c *clerk) reign() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = true
	c.soon()
}

// soon has the work done in a moment. mu is held.
func (c *clerk) soon() {
	if c.timer == nil && !c.closed {
		c.timer = time.AfterFunc(listEvery, func() {
			c.mu.Lock()
			c.timer = nil
			c.mu.Unlock()
			c.work()
		})
	}
}

// work has it done now.
func (c *clerk) work() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed || !c.began:
	case c.busy:
		c.again = true
	default:
		c.busy = c.s.t.start(c.run)
	}
}

// behind reports whether something is left to do that failed before.
func (c *clerk) behind() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

func (c *clerk) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	for _, f := range c.holds {
		f()
	}
	c.holds = nil
}

func (c *clerk) run() {
	for {
		err := errors.Join(c.pages(c.s.ctx), c.duties(c.s.ctx))
		if err != nil && c.s.ctx.Err() == nil {
			c.s.t.log.Warn("tasks: a steward's records", "job", c.s.id.Short(), "err", err)
		}
		c.mu.Lock()
		c.failed = err != nil
		if !c.again || c.closed || err != nil { // what failed is tried again by upkeep
			c.busy, c.again = false, false
			c.mu.Unlock()
			return
		}
		c.again = false
		c.mu.Unlock()
	}
}

// pages makes pieces of the pages that are sealed, and fetches those that are missing.
func (c *clerk) pages(ctx context.Context) error {
	if sealed := c.s.ledger.Sealed(); len(sealed) > 0 {
		if err := c.store(ctx, sealed); err != nil {
			return err
		}
	}
	var first error
	for _, p := range c.s.ledger.Missing() {
		if _, here := c.s.t.cfg.Bytes.Get(p.CID); here {
			c.hold(p.CID)
			c.s.ledger.Stored(p.CID)
			continue
		}
		data, err := c.fetch(ctx, p.CID)
		if err == nil {
			err = c.store(ctx, []market.Page{{Number: p.Number, CID: p.CID, Data: data}})
		}
		if err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (c *clerk) hold(ids ...chunk.CID) {
	release := c.s.t.cfg.Keeper.Hold(holdTime, ids...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		release()
		return
	}
	c.holds = append(c.holds, release)
}

// store makes pages durable here.
func (c *clerk) store(ctx context.Context, pages []market.Page) error {
	batch := c.s.t.cfg.Bytes.NewBatch()
	defer batch.Close()
	var ids []chunk.CID
	for _, p := range pages {
		f, err := batch.Add(ctx, bytes.NewReader(p.Data))
		if err != nil {
			return fmt.Errorf("store a page: %w", err)
		}
		if f.Root != p.CID {
			return fmt.Errorf("store a page: %s became %s", p.CID, f.Root)
		}
		ids = append(ids, p.CID)
	}
	if err := batch.Commit(); err != nil {
		return fmt.Errorf("store a page: %w", err)
	}
	c.hold(ids...) // before the batch lets go
	for _, id := range ids {
		c.s.ledger.Stored(id)
	}
	return nil
}

// fetch gets a page from wherever it is.
func (c *clerk) fetch(ctx context.Context, id chunk.CID) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, pageWait)
	defer cancel()
	data, err := c.s.t.readPage(ctx, id)
	if err == nil {
		return data, nil
	}
	for _, m := range c.s.group.Status().Members {
		if m.Self {
			continue
		}
		a, askErr := c.s.t.ask(ctx, m.Peer, &pb.Ask{Kind: talk.AskPage, Job: c.s.id[:], Data: id.Sum[:]})
		if askErr == nil && chunk.SumRaw(a.GetData()) == id {
			return a.GetData(), nil
		}
		err = errors.Join(err, askErr)
	}
	return nil, fmt.Errorf("fetch a page: %w", err)
}

// duties are the leader's: list the job's pieces, write its card.
func (c *clerk) duties(ctx context.Context) error {
	s := c.s
	signed := s.ledger.Job()
	if !s.leading.Load() || signed == nil || s.ledger.Expired(s.t.cfg.Now()) {
		return nil
	}
	c.mu.Lock()
	fresh, all := c.fresh, c.all
	c.fresh, c.all = nil, false
	c.mu.Unlock()
	err := c.list(ctx, &signed.Spec, fresh, all)
	if err != nil {
		c.mu.Lock()
		c.all = true
		c.mu.Unlock()
	}
	return errors.Join(err, c.card(ctx, &signed.Spec))
}

// list writes the records of the outputs of tasks, and of pages, that no record lists yet. A page is listed together with, or after,
// the outputs of its tasks; so what a listed page names is listed.
func (c *clerk) list(ctx context.Context, spec *job.Spec, fresh []uint32, all bool) error {
	s := c.s
	var need []piece.Piece
	seen := map[chunk.CID]bool{}
	add := func(p piece.Piece) {
		if !seen[p.ID] && !c.recent[p.ID] && !s.t.cfg.Keeper.Lists(p.ID) {
			seen[p.ID] = true
			need = append(need, p)
		}
	}
	reader := pageReader{t: s.t}
	look := func(task int) error {
		rec, err := reader.record(ctx, s.ledger, task, all)
		if errors.Is(err, market.ErrOpen) || errors.Is(err, errListed) {
			return nil
		}
		if err != nil {
			return err
		}
		return s.t.eachPiece(ctx, &rec, add)
	}
	if all {
		c.records = 0
		for range s.t.cfg.Records.Scan(keep.Of(s.id)) {
			c.records++
		}
		for task := range spec.All() {
			if err := look(task); err != nil {
				return err
			}
		}
	} else {
		for _, task := range fresh {
			if err := look(int(task)); err != nil {
				return err
			}
		}
	}
	for _, id := range s.ledger.Pages() {
		if p, here := s.t.cfg.Bytes.Get(id); here {
			add(p)
		}
	}
	if len(need) == 0 {
		return nil
	}
	changes := keep.Lists(s.id, need)
	if c.records += len(changes); c.records > recordsMax {
		s.t.start(func() { _ = s.cancelJob(s.ctx, s.t.self, "its outputs are more files than the pool's names can hold") })
		return nil
	}
	if err := s.t.cfg.Records.Write(ctx, changes...); err != nil {
		return err
	}
	c.recent = seen
	return nil
}

// card writes what everybody may know of the job, if it changed.
func (c *clerk) card(ctx context.Context, spec *job.Spec) error {
	s := c.s
	value, err := card.Of(s.id, spec, votersOf(s.group.Status()), s.ledger.Progress()).Encode()
	if err != nil {
		return err
	}
	key := card.KeyOf(s.id)
	if old, ok := s.t.cfg.Records.Get(key); ok && bytes.Equal(old.Value, value) {
		return nil
	}
	return s.t.cfg.Records.Write(ctx, directory.Change{Key: key, Value: value})
}
