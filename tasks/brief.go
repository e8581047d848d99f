package tasks

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

const (
	// lookWait bounds one look at a job, the fetching and compiling of its program included.
	lookWait = 10 * time.Minute
	// specWait bounds the fetching of a spec from one steward.
	specWait = 5 * time.Second
	// briefsMax is how many jobs' specs are kept; of those not in use the oldest go first.
	briefsMax = 512
	// preferTasks bounds the tasks whose inputs are looked for here before a bid.
	preferTasks = 64 << 10
)

// brief is what this peer needs to know to run a job's tasks.
type brief struct {
	signed *job.Signed
	made   time.Time
}

// look looks at an announced job, and tells the worker what it found.
func (h *hand) look(ad market.Ad) {
	h.t.start(func() {
		ctx, cancel := context.WithTimeout(h.t.ctx, lookWait)
		defer cancel()
		var l market.Look
		var err error
		select {
		case h.looks <- struct{}{}:
			defer func() { <-h.looks }()
			l, err = h.lookAt(ctx, &ad)
		case <-ctx.Done():
			err = errors.New("it was looking at other jobs for too long") // the worker waits for an answer
		}
		if err != nil {
			l = market.Look{Refused: err.Error()}
		}
		ev := h.said(market.Looked, ad.Job, 0)
		ev.Look = l
		h.box.put(ev)
	})
}

// lookAt reads the spec, holds it against the announcement, and prepares the program. An error is why this peer cannot run the job.
func (h *hand) lookAt(ctx context.Context, ad *market.Ad) (market.Look, error) {
	from := append([]peer.ID{ad.Leader}, ad.Stewards...)
	b, err := h.learn(ctx, ad.Job, from)
	if err != nil {
		return market.Look{}, err
	}
	spec := &b.signed.Spec
	if err := holdAgainst(spec, ad); err != nil {
		return market.Look{}, err
	}
	if h.t.role(spec.Submitter) == ident.RoleNone {
		return market.Look{}, errors.New("its submitter is no member of the pool")
	}
	if err := h.prepare(ctx, &spec.Command); err != nil {
		return market.Look{}, err
	}
	if spec.Reduce != nil {
		if err := h.prepare(ctx, spec.Reduce); err != nil {
			return market.Look{}, err
		}
	}
	return h.t.atHand(ctx, spec), nil
}

// holdAgainst reports what an announcement says otherwise than the spec does.
func holdAgainst(spec *job.Spec, ad *market.Ad) error {
	limits := spec.Limits()
	kind := ad.Needs.Kind == spec.Command.Kind || spec.Reduce != nil && ad.Needs.Kind == spec.Reduce.Kind
	if spec.Submitter != ad.Submitter || !kind || ad.Needs.Cores != limits.Cores || ad.Needs.Memory != limits.Memory ||
		!slices.Equal(ad.Needs.Labels, spec.Needs) || ad.Priority != spec.Priority || ad.Exclusive != spec.Exclusive {
		return errors.New("its announcement is not what its submitter signed")
	}
	return nil
}

// briefOf returns what is known of a job, or nil.
func (h *hand) briefOf(id job.ID) *brief {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.briefs[id]
}

// learn reads a job's spec: from what is known, this peer's own seat, or one of some stewards.
func (h *hand) learn(ctx context.Context, id job.ID, from []peer.ID) (*brief, error) {
	if b := h.briefOf(id); b != nil {
		return b, nil
	}
	signed, err := h.t.fetchSpec(ctx, id, from)
	if err != nil {
		return nil, err
	}
	b := &brief{signed: signed, made: time.Now()}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.briefs) >= briefsMax {
		h.trimBriefs()
	}
	h.briefs[id] = b
	return b, nil
}

// trimBriefs forgets the oldest half of the jobs of which nothing runs. mu is held.
func (h *hand) trimBriefs() {
	busy := map[job.ID]bool{}
	for a := range h.tries {
		busy[a.Job] = true
	}
	var ids []job.ID
	for id := range h.briefs {
		if !busy[id] {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b job.ID) int { return h.briefs[a].made.Compare(h.briefs[b].made) })
	for _, id := range ids[:len(ids)/2] {
		delete(h.briefs, id)
	}
}

// fetchSpec gets a spec from one of some peers, and verifies it.
func (t *Tasks) fetchSpec(ctx context.Context, id job.ID, from []peer.ID) (*job.Signed, error) {
	if s := t.seat(id); s != nil {
		if signed := s.ledger.Job(); signed != nil {
			return signed, nil
		}
	}
	err := error(ErrNoJob)
	seen := map[peer.ID]bool{t.self: true}
	for _, p := range from {
		if seen[p] || p == "" {
			continue
		}
		seen[p] = true
		var signed *job.Signed
		if signed, err = t.specFrom(ctx, id, p); err == nil {
			return signed, nil
		}
	}
	return nil, fmt.Errorf("its spec cannot be had: %w", err)
}

func (t *Tasks) specFrom(ctx context.Context, id job.ID, p peer.ID) (*job.Signed, error) {
	ctx, cancel := context.WithTimeout(ctx, specWait)
	defer cancel()
	a, err := t.ask(ctx, p, &pb.Ask{Kind: talk.AskSpec, Job: id[:]})
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(a.GetData()) != id { // before anything of it is believed
		return nil, errors.New("it is another job's")
	}
	signed, err := job.Decode(a.GetData())
	if err == nil && signed.Spec.Pool != t.cfg.Pool {
		err = errors.New("it is another pool's")
	}
	return signed, err
}

// prepare has a program ready to run.
func (h *hand) prepare(ctx context.Context, c *job.Command) error {
	if h.t.cfg.Runner == nil {
		return errors.New("this peer runs no guests")
	}
	if c.Kind != job.Wasm {
		return h.t.cfg.Runner.Prepare(ctx, c.Kind, c.Path, "")
	}
	got, err := h.shelf.get(ctx, c.Module)
	if err != nil {
		return fmt.Errorf("its program cannot be had: %w", err)
	}
	defer got.release()
	return h.t.cfg.Runner.Prepare(ctx, c.Kind, got.path, moduleID(c.Module))
}

// moduleID names a module by its bytes: by the names of its pieces, which are verified, and not by a root that somebody claims for them.
func moduleID(f job.File) string {
	h := sha256.New()
	for _, p := range f.All() {
		h.Write(p.ID.Bytes())
	}
	return hex.EncodeToString(h.Sum(nil))
}

// atHand counts the bytes of a job's inputs that are here, and the tasks whose inputs are.
func (t *Tasks) atHand(ctx context.Context, spec *job.Spec) (l market.Look) {
	count := func(f job.File) (here bool) {
		here = true
		for _, p := range f.All() {
			l.Total += p.Size
			if _, ok := t.cfg.Bytes.Get(p.ID); ok {
				l.Local += p.Size
			} else {
				here = false
			}
		}
		return here
	}
	for _, in := range spec.Inputs {
		count(in.File)
	}
	count(spec.Stdin.File)
	prefer := func(task int) {
		if n := len(l.Prefer); n > 0 && int(l.Prefer[n-1].First+l.Prefer[n-1].Count) == task {
			l.Prefer[n-1].Count++
		} else if n < market.PreferMax {
			l.Prefer = append(l.Prefer, market.Span{First: uint32(task), Count: 1})
		}
	}
	switch spec.Split.Kind {
	case job.Slices:
		count(spec.Split.File)
		t.slicesHere(spec, prefer)
	case job.Items, job.List:
		t.itemsHere(ctx, spec, count, prefer)
	}
	return l
}

// slicesHere finds the slices that lie wholly in pieces that are here.
func (t *Tasks) slicesHere(spec *job.Spec, prefer func(int)) {
	at := int64(0)
	type span struct {
		end  int64
		here bool
	}
	var spans []span
	for _, p := range spec.Split.File.All() {
		at += p.Size
		_, ok := t.cfg.Bytes.Get(p.ID)
		spans = append(spans, span{at, ok})
	}
	i := 0
	for task := range min(spec.Tasks(), preferTasks) {
		first := int64(task) * spec.Split.Slice
		end := min(first+spec.Split.Slice, spec.Split.File.Size)
		for i < len(spans) && spans[i].end <= first {
			i++
		}
		here := true
		for k := i; k < len(spans); k++ {
			here = here && spans[k].here
			if spans[k].end >= end {
				break
			}
		}
		if here {
			prefer(task)
		}
	}
}

// itemsHere finds the items all of whose inputs are here.
func (t *Tasks) itemsHere(ctx context.Context, spec *job.Spec, count func(job.File) bool, prefer func(int)) {
	items, err := t.items(ctx, spec)
	if err != nil {
		return // it is only for the preference
	}
	defer items.close()
	for task := range min(spec.Tasks(), preferTasks) {
		it, err := items.at(task)
		if err != nil || ctx.Err() != nil {
			return
		}
		here := len(it.Inputs) > 0
		for _, in := range it.Inputs {
			here = count(in.File) && here
		}
		if here {
			prefer(task)
		}
	}
}

// pieceFile is a job's file as storage names it.
func pieceFile(f job.File) piece.File {
	out := piece.File{Root: f.Root, Size: f.Size}
	for _, p := range f.All() {
		out.Pieces = append(out.Pieces, piece.Piece{ID: p.ID, Size: p.Size})
	}
	return out
}

// jobFile is a file of storage as jobs name it.
func jobFile(f piece.File) job.File {
	out := job.File{Root: f.Root, Size: f.Size}
	if len(f.Pieces) > 1 || len(f.Pieces) == 1 && f.Pieces[0].ID != f.Root {
		for _, p := range f.Pieces {
			out.Pieces = append(out.Pieces, job.Piece{ID: p.ID, Size: p.Size})
		}
	}
	return out
}

// OpenFile opens a file that a spec or a result names. ctx bounds all later reads too.
func (t *Tasks) OpenFile(ctx context.Context, f job.File) (File, error) {
	r, err := t.cfg.Bytes.Open(ctx, pieceFile(f))
	if err != nil {
		return nil, fmt.Errorf("tasks: open %s: %w", f.Root, err)
	}
	return r, nil
}
