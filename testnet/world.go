package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/shoal-os/shoal/testnet/report"
	"github.com/shoal-os/shoal/testnet/script"
)

const (
	storeDefault = 256 << 20 // bytes that each peer lends
	// inFlight bounds the steps of a block that go on at once.
	inFlight = 64
	// eventsMax bounds what a report tells of single steps.
	eventsMax = 20_000
)

// world is a run: the peers, what was done to them, and what they must have kept.
type world struct {
	cfg    Config
	plan   script.Plan
	ground ground
	why    string
	began  time.Time
	peers  []*peer

	logging sync.Mutex

	mu      sync.Mutex
	founder int              // whose pool it is; -1 before the first join
	data    map[string]*data // by name
	jobs    []*work
	out     report.Report
	repairs map[int]int64 // bytes of repairs on each peer when all was last seen safe
	wrong   []string      // bytes that were read and were not those that were stored
}

// data is what a share or put step made.
type data struct {
	name  string
	from  int
	blobs []blob
	link  string // of a share
	acked bool   // a put was acknowledged
}

func (d *data) bytes() (n int64) {
	for _, b := range d.blobs {
		n += b.size
	}
	return n
}

// path is where a file of a put lies in the pool.
func (d *data) path(b blob) string { return "/" + d.name + "/" + b.name }

func newWorld(cfg Config, plan script.Plan, g ground, why string) (*world, error) {
	w := &world{cfg: cfg, plan: plan, ground: g, why: why, began: time.Now(), founder: -1, data: map[string]*data{}}
	for i := range plan.Peers {
		w.peers = append(w.peers, w.newPeer(i))
	}
	w.out = report.Report{
		Scenario: plan.Name, About: plan.About, Seed: plan.Seed, Short: plan.Short,
		Mode: string(g.mode()), Why: why, Version: cfg.Version, Began: w.began,
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "data"), 0o755); err != nil {
		return nil, fmt.Errorf("testnet: %w", err)
	}
	return w, nil
}

// close takes everything down.
func (w *world) close() error {
	var all sync.WaitGroup
	for _, p := range w.peers {
		all.Go(func() { _, _ = p.end("killed"), w.endEnemy(p) })
	}
	all.Wait()
	errs := make([]error, 0, len(w.peers)+1)
	for _, p := range w.peers {
		errs = append(errs, p.takeDisk())
	}
	return errors.Join(append(errs, w.ground.close())...)
}

// now is the time of the report: seconds since the run began.
func (w *world) now() float64 { return time.Since(w.began).Seconds() }

// upFlags are those of `shoal up`.
func (w *world) upFlags() []string {
	store := w.plan.Setting.Store
	if store == 0 {
		store = storeDefault
	}
	flags := []string{"--store", strconv.FormatInt(store, 10)}
	if w.plan.Setting.Patience > 0 {
		flags = append(flags, "--patience", w.plan.Setting.Patience.String())
	}
	if n := w.plan.Setting.Cores; n > 0 {
		flags = append(flags, "--lend-cores", strconv.Itoa(n))
	}
	return flags
}

// run does the stages, up to the first that fails, and then looks at the promises.
func (w *world) run(ctx context.Context) {
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { w.watch(watching) })
	defer watch.Wait()
	defer stop()
	w.logLine("%s: %d peers as %s, seed %d", w.plan.Name, w.plan.Peers, w.ground.mode(), w.plan.Seed)
	if w.why != "" {
		w.logLine("not in namespaces: %s", w.why)
	}
	for _, s := range w.plan.Stages {
		if err := w.stage(ctx, s); err != nil {
			w.out.Failed = fmt.Sprintf("line %d: %s: %v", s.Line, s.Text, err)
			w.logLine("FAILED %s", w.out.Failed)
			break
		}
	}
	if ctx.Err() == nil {
		w.settle(ctx)
		w.keepPromises(ctx)
	}
}

// stage does one stage. A step that cannot be done here is no failure.
func (w *world) stage(ctx context.Context, s script.Stage) error {
	out := report.Stage{From: w.now(), Text: s.Text, Line: s.Line}
	var err error
	if s.Block {
		w.logLine("%s", s.Text)
		err = w.block(ctx, s)
	} else {
		err = w.perform(ctx, s.Actions[0])
	}
	out.To = w.now()
	var skip skipped
	if errors.As(err, &skip) {
		out.Skipped, err = skip.why, nil
	}
	if err != nil {
		out.Err = err.Error()
	}
	w.mu.Lock()
	w.out.Stages = append(w.out.Stages, out)
	w.mu.Unlock()
	return err
}

// block does each action at its time, beside those that still go on.
func (w *world) block(ctx context.Context, s script.Stage) error {
	began := time.Now()
	slots := make(chan struct{}, inFlight)
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, a := range s.Actions {
		if err := until(ctx, began.Add(a.When)); err != nil {
			break
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			var skip skipped
			if err := w.perform(ctx, a); err != nil && !errors.As(err, &skip) {
				mu.Lock()
				errs = append(errs, fmt.Errorf("%s: %w", Describe(a), err))
				mu.Unlock()
			}
		})
	}
	err := until(ctx, began.Add(s.Lasts))
	all.Wait()
	return oneLine(append(errs, err))
}

// until waits for a time.
func until(ctx context.Context, t time.Time) error {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// perform does an action, undoes it after its time, and notes how it went. A try that fails is no error.
func (w *world) perform(ctx context.Context, a script.Action) error {
	e := report.Event{From: w.now(), Peers: a.Peers, Kind: a.Verb, Text: Describe(a)}
	w.logLine("%s", e.Text)
	note, err := w.act(ctx, a)
	e.To = w.now()
	var skip skipped
	switch {
	case errors.As(err, &skip):
		w.skip(a, skip.why)
		return err
	case err != nil:
		e.Err = err.Error()
	case note != "":
		e.Text += ": " + note
		w.logLine("  %s", e.Text)
	}
	w.event(e, a.Try)
	if err != nil && a.Try {
		w.logLine("  %s: %v (may fail)", Describe(a), err)
		err = nil
	}
	if err != nil || a.Hold == 0 || a.Verb == "wait" {
		return err
	}
	if err := until(ctx, time.Now().Add(a.Hold)); err != nil {
		return err
	}
	return w.undo(ctx, a)
}

// Describe is an action with its peers by name.
func Describe(a script.Action) string {
	s := a.Step
	s.Every, s.At = script.Span{}, script.Span{}
	if a.Hold > 0 {
		s.For = script.Span{Least: a.Hold, Most: a.Hold}
	}
	if len(a.Peers) > 0 {
		s.On = script.SetOf(a.Peers)
	}
	for i, side := range a.Sides {
		s.Groups = append(s.Groups[:i:i], append([]script.Set{script.SetOf(side)}, s.Groups[i+1:]...)...)
	}
	return s.String()
}

func (w *world) event(e report.Event, try bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if try {
		w.out.Tally.Tried++
		if e.Err != "" {
			w.out.Tally.TryFailed++
		}
	}
	if len(w.out.Events) < eventsMax {
		w.out.Events = append(w.out.Events, e)
	}
}

// skip notes a step that could not be done, once for each kind of step and reason.
func (w *world) skip(a script.Action, why string) {
	text := fmt.Sprintf("%s: %s", a.Verb, why)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.out.Skipped {
		if s == text {
			return
		}
	}
	w.out.Skipped = append(w.out.Skipped, text)
	w.logLine("  skipped: %s", why)
}

// live are the peers that are up and in the founder's pool, or all that are up before there is one.
func (w *world) live() (out []*peer) {
	for _, p := range w.peers {
		p.mu.Lock()
		if p.cmd != nil && !p.paused && !p.left && (p.member || w.founder < 0) {
			out = append(out, p)
		}
		p.mu.Unlock()
	}
	return out
}

// finish completes the report.
func (w *world) finish() *report.Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &w.out
	r.Took = w.now()
	w.endSpans()
	r.Peers = nil
	for i, p := range w.peers {
		p.mu.Lock()
		lives := append([]report.Life(nil), p.lives...)
		for j := range lives {
			if lives[j].To == 0 {
				lives[j].To = r.Took
			}
		}
		ip, _ := w.ground.addr(i)
		sent, _ := w.ground.sent(i)
		r.Peers = append(r.Peers, report.Peer{Name: p.name, Addr: ip, Lives: lives, RSS: p.rss, CPU: p.cpu, Sent: sent})
		r.Tally.Sent += sent
		p.mu.Unlock()
	}
	return r
}

func (w *world) endSpans() {
	for i := range w.out.Spans {
		if w.out.Spans[i].To == 0 {
			w.out.Spans[i].To = w.now()
		}
	}
}
