package testnet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/testnet/report"
	"github.com/shoal-os/shoal/testnet/script"
)

const (
	opWait     = 2 * time.Minute // for a step that says no time
	starting   = 8               // peers that are started at once
	ticketUses = 1000            // of one ticket
	ticketTTL  = 24 * time.Hour
	readAtOnce = 8 // files that one peer reads at once
	expectPoll = 200 * time.Millisecond
	expectWait = time.Minute // for an expectation that says no time
)

// act does an action. note is what is worth telling of how it went.
func (w *world) act(ctx context.Context, a script.Action) (note string, err error) {
	switch a.Verb {
	case "start":
		return "", w.each(a.Peers, starting, func(p *peer) error { return p.start(ctx) })
	case "stop":
		w.count(func(t *report.Tally) { t.Stops += len(a.Peers) })
		return "", w.each(a.Peers, starting, func(p *peer) error { return p.end("stopped") })
	case "kill":
		w.count(func(t *report.Tally) { t.Kills += len(a.Peers) })
		return "", w.each(a.Peers, len(a.Peers), func(p *peer) error { return p.end("killed") })
	case "pause":
		w.count(func(t *report.Tally) { t.Pauses += len(a.Peers) })
		return "", w.each(a.Peers, len(a.Peers), func(p *peer) error { return p.pause(true) })
	case "resume":
		return "", w.each(a.Peers, len(a.Peers), func(p *peer) error { return p.pause(false) })
	case "partition":
		return "", w.partition(a)
	case "heal":
		return "", w.heal()
	case "link":
		return "", w.link(a)
	case "disk":
		return "", w.setDisks(a, true)
	case "clock":
		return "", w.shift(ctx, a)
	case "wait":
		return "", until(ctx, time.Now().Add(a.Hold))
	case "expect":
		return w.expect(ctx, a)
	}
	wait := a.Within
	if wait == 0 {
		wait = opWait
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	switch a.Verb {
	case "join":
		return "", w.join(ctx, a.Peers)
	case "upgrade":
		return w.upgrade(ctx, a)
	case "leave":
		return "", w.each(a.Peers, 1, func(p *peer) error { return p.leave(ctx) })
	case "evil":
		return w.evil(ctx, a)
	case "share":
		return w.share(ctx, a)
	case "get":
		return w.get(ctx, a)
	case "put":
		return w.put(ctx, a)
	case "read":
		return w.read(ctx, a)
	case "run", "map":
		return w.submit(ctx, a)
	case "await":
		return w.await(ctx, a)
	}
	return "", skipped{"this version of the testnet does not know how to " + a.Verb}
}

// undo ends a fault.
func (w *world) undo(ctx context.Context, a script.Action) error {
	switch a.Verb {
	case "stop", "kill":
		return w.each(a.Peers, starting, func(p *peer) error { return p.start(ctx) })
	case "pause":
		return w.each(a.Peers, len(a.Peers), func(p *peer) error { return p.pause(false) })
	case "partition", "link":
		return w.heal()
	case "disk":
		return w.setDisks(a, false)
	case "evil":
		return w.each(a.Peers, 1, w.endEnemy)
	}
	return nil
}

// each does something to peers, so many at once.
func (w *world) each(peers []int, atOnce int, do func(*peer) error) error {
	slots := make(chan struct{}, max(atOnce, 1))
	errs := make([]error, len(peers))
	var all sync.WaitGroup
	for n, i := range peers {
		slots <- struct{}{}
		all.Go(func() {
			errs[n] = do(w.peers[i])
			<-slots
		})
	}
	all.Wait()
	return oneLine(errs)
}

func (w *world) count(add func(*report.Tally)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	add(&w.out.Tally)
}

// partition cuts the network.
func (w *world) partition(a script.Action) error {
	if err := w.ground.partition(a.Sides); err != nil {
		return err
	}
	w.count(func(t *report.Tally) { t.Cuts++ })
	w.span("partition", Describe(a))
	return nil
}

// link changes how packets travel between two sets of peers.
func (w *world) link(a script.Action) error {
	if err := w.ground.link(a.Sides[0], a.Sides[1], a.Link); err != nil {
		return err
	}
	w.span("link", Describe(a))
	return nil
}

func (w *world) span(kind, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out.Spans = append(w.out.Spans, report.Span{From: w.now(), Kind: kind, Text: text})
}

// heal makes the network what the scenario's head says.
func (w *world) heal() error {
	err := w.ground.heal()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endSpans()
	return err
}

// join makes peers members of the founder's pool. The first that ever joins is the founder.
func (w *world) join(ctx context.Context, peers []int) error {
	if w.founder < 0 {
		w.founder = peers[0]
		w.peers[w.founder].member = true
	}
	host, err := w.peers[w.founder].api()
	if err != nil {
		return fmt.Errorf("the founder invites: %w", err)
	}
	ticket, err := host.Invite(ctx, client.InviteRequest{TTL: ticketTTL.Seconds(), Uses: ticketUses})
	if err != nil {
		return fmt.Errorf("invite: %w", err)
	}
	return w.each(peers, starting, func(p *peer) error { return p.join(ctx, ticket.Ticket) })
}

func (p *peer) join(ctx context.Context, ticket string) error {
	if p.member {
		return nil
	}
	c, err := p.api()
	if err != nil {
		return err
	}
	// The inviter may be out of reach for a moment, or too busy: a person would try again.
	err = eventually(ctx, opWait, func(ctx context.Context) error {
		_, err := c.Join(ctx, client.JoinRequest{Ticket: ticket, Yes: true}, func(client.JoinQuestion) (bool, error) { return true, nil })
		return err
	})
	if err != nil {
		return fmt.Errorf("%s joins: %w", p.name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.member = true
	return nil
}

// upgrade stops peers one after the other and starts them with the present program.
func (w *world) upgrade(ctx context.Context, a script.Action) (string, error) {
	note := ""
	if w.cfg.Previous == "" {
		note = "the same program again: no older one was given with --previous"
	}
	return note, w.each(a.Peers, 1, func(p *peer) error {
		if err := p.end("stopped"); err != nil {
			return err
		}
		p.mu.Lock()
		p.binary = w.cfg.Binary
		p.mu.Unlock()
		return p.start(ctx)
	})
}

func (p *peer) leave(ctx context.Context) error {
	c, err := p.api()
	if err != nil {
		return err
	}
	if _, err := c.Leave(ctx, client.LeaveRequest{Force: true}); err != nil {
		return fmt.Errorf("%s leaves: %w", p.name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = true
	return nil
}

// make writes a step's files.
func (w *world) make(a script.Action) (*data, string, error) {
	d := &data{name: a.Name, from: a.Peers[0]}
	dir := filepath.Join(w.cfg.Dir, "data", a.Name)
	var err error
	if d.blobs, err = writeData(dir, a.Files, a.Size, a.Seed); err != nil {
		return nil, "", fmt.Errorf("make %s: %w", a.Name, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.data[a.Name] = d
	return d, dir, nil
}

func (w *world) share(ctx context.Context, a script.Action) (string, error) {
	c, err := w.peers[a.Peers[0]].api()
	if err != nil {
		return "", err
	}
	d, dir, err := w.make(a)
	if err != nil {
		return "", err
	}
	s, err := c.Share(ctx, client.ShareRequest{Path: dir}, nil)
	if err != nil {
		return "", fmt.Errorf("share: %w", err)
	}
	w.mu.Lock()
	d.link = s.Link
	w.out.Tally.Shares++
	w.mu.Unlock()
	return bytesText(d.bytes()), nil
}

// get fetches a share and compares it.
func (w *world) get(ctx context.Context, a script.Action) (string, error) {
	w.mu.Lock()
	d := w.data[a.Name]
	w.mu.Unlock()
	if d == nil || d.link == "" {
		return "", fmt.Errorf("%s was never shared", a.Name)
	}
	began := time.Now()
	err := w.each(a.Peers, len(a.Peers), func(p *peer) error {
		c, err := p.api()
		if err != nil {
			return err
		}
		dest := filepath.Join(w.cfg.Dir, p.name, "got", d.name)
		if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
			return err
		}
		if _, err := c.Get(ctx, client.GetRequest{Link: d.link, Dest: dest}, nil); err != nil {
			return fmt.Errorf("%s gets %s: %w", p.name, d.name, err)
		}
		for _, b := range d.blobs {
			if err := b.check(filepath.Join(dest, b.name)); err != nil {
				return w.torn("%s got %s/%s, and %v", p.name, d.name, b.name, err)
			}
		}
		w.count(func(t *report.Tally) { t.Gets++; t.ReadBytes += d.bytes() })
		return nil
	})
	return rateText(d.bytes()*int64(len(a.Peers)), time.Since(began)), err
}

// put stores files in the pool. Once it is acknowledged they are promised.
func (w *world) put(ctx context.Context, a script.Action) (string, error) {
	w.count(func(t *report.Tally) { t.Puts++ })
	c, err := w.peers[a.Peers[0]].api()
	if err != nil {
		return "", err
	}
	d, dir, err := w.make(a)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir) // the pool has it, or nobody needs it
	began := time.Now()
	done, err := c.FilePut(ctx, client.FilePutRequest{Source: dir, Path: "/" + a.Name, Copies: a.Copies}, nil)
	if err != nil {
		return "", fmt.Errorf("put: %w", err)
	}
	w.mu.Lock()
	d.acked = true
	t := &w.out.Tally
	t.Acked, t.Files, t.Bytes = t.Acked+1, t.Files+len(d.blobs), t.Bytes+d.bytes()
	w.mu.Unlock()
	return fmt.Sprintf("%s, %d copies", rateText(d.bytes(), time.Since(began)), done.Copies), nil
}

// read reads a put's files on each peer and compares them.
func (w *world) read(ctx context.Context, a script.Action) (string, error) {
	w.mu.Lock()
	d := w.data[a.Name]
	acked := d != nil && d.acked
	w.mu.Unlock()
	if !acked {
		return "nothing to read: it was not acknowledged", nil
	}
	began := time.Now()
	err := w.each(a.Peers, len(a.Peers), func(p *peer) error { return w.readOn(ctx, p, d) })
	return rateText(d.bytes()*int64(len(a.Peers)), time.Since(began)), err
}

// readOn reads all files of d on one peer.
func (w *world) readOn(ctx context.Context, p *peer, d *data) error {
	c, err := p.api()
	if err != nil {
		return err
	}
	slots := make(chan struct{}, readAtOnce)
	errs := make([]error, len(d.blobs))
	var all sync.WaitGroup
	for i, b := range d.blobs {
		slots <- struct{}{}
		all.Go(func() {
			errs[i] = w.readOne(ctx, p, c, d.path(b), b)
			<-slots
		})
	}
	all.Wait()
	return oneLine(errs)
}

func (w *world) readOne(ctx context.Context, p *peer, c *client.Client, path string, b blob) error {
	s, err := p.cat(ctx, c, path)
	if err != nil {
		return fmt.Errorf("%s reads %s: %w", p.name, path, err)
	}
	if err := s.compare(b); err != nil {
		return w.torn("%s read %s, and %v", p.name, path, err)
	}
	w.count(func(t *report.Tally) { t.Reads++; t.ReadBytes += b.size })
	return nil
}

// cat reads a file of the pool. A name that the peer has not heard of yet is waited for: names are the same everywhere in
// the end, not at once.
func (p *peer) cat(ctx context.Context, c *client.Client, path string) (*summer, error) {
	tick := time.NewTicker(expectPoll)
	defer tick.Stop()
	for {
		s := newSummer()
		err := c.Cat(ctx, client.CatRequest{Link: path}, s, nil)
		if client.KindOf(err) != client.KindNotFound {
			return s, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// torn notes bytes that are not what was stored: that breaks a promise whenever it is seen, not only at the end.
func (w *world) torn(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, err.Error())
	return err
}

// bytesText is a number of bytes for a person.
func bytesText(n int64) string { return report.Bytes(n) }

func rateText(n int64, d time.Duration) string {
	if d < time.Millisecond {
		return bytesText(n)
	}
	return fmt.Sprintf("%s, %s/s", bytesText(n), bytesText(int64(float64(n)/d.Seconds())))
}
