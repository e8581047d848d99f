package testnet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/shoal-os/shoal/testnet/report"
	"github.com/shoal-os/shoal/testnet/script"
)

// ClockEnv is the variable by which the testnet tells a peer that its clock may jump: the path of a file that says by how much
// it is wrong now. It is set where a scenario has the step `clock`, and nowhere else.
const ClockEnv = "SHOAL_TESTNET_CLOCK"

const (
	clockEvery = 100 * time.Millisecond // how often a peer looks at that file
	clockWait  = time.Minute            // until it has: machines that run many peers are slow
	// clockTaken ends the name of the file in which a peer says what it has read.
	clockTaken = ".taken"
)

// Clock is the clock of a testnet's peer: the machine's, moved by what a file says. What it tells has no monotonic reading, so
// that whoever takes the difference of two times gets what a jump in between makes of it. Its methods may be called from any goroutine.
type Clock struct {
	path string
	text string // as read last
	by   atomic.Int64
}

// OpenClock returns the clock of the file, which it looks at until ctx ends. A file that is not there yet is a clock that is
// right; one that cannot be read, or be answered, is an error now and passed over later.
func OpenClock(ctx context.Context, path string) (*Clock, error) {
	c := &Clock{path: path}
	if err := c.look(); err != nil {
		return nil, fmt.Errorf("testnet: clock: %w", err)
	}
	go c.follow(ctx)
	return c, nil
}

// Now is the time of day by this clock.
func (c *Clock) Now() time.Time { return time.Now().Round(0).Add(time.Duration(c.by.Load())) }

func (c *Clock) follow(ctx context.Context) {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_ = c.look() // the runner waits for the answer, and says so when there is none
		case <-ctx.Done():
			return
		}
	}
}

// look takes up what the file says, and then says so.
func (c *Clock) look() error {
	data, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = []byte("0s"), nil
	}
	if err != nil {
		return err
	}
	text := string(data)
	if text == c.text {
		return nil
	}
	by, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	c.by.Store(int64(by))
	if err := replace(c.path+clockTaken, text); err != nil {
		return err
	}
	c.text = text
	return nil
}

// replace writes a file of which nobody ever sees a half.
func replace(path, text string) error {
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// shift lets the clocks of peers jump.
func (w *world) shift(ctx context.Context, a script.Action) error {
	err := w.each(a.Peers, len(a.Peers), func(p *peer) error { return p.shift(ctx, a.Shift) })
	if err == nil {
		w.count(func(t *report.Tally) { t.Jumps += len(a.Peers) })
	}
	return err
}

// shift moves a peer's clock and waits until the peer goes by it. One that is down or asleep finds it wrong when it comes back, as
// a machine's owner would.
func (p *peer) shift(ctx context.Context, by time.Duration) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	p.mu.Lock()
	exited, awake := p.exited, p.cmd != nil && !p.paused
	p.mu.Unlock()
	taken := p.clock + clockTaken
	if _, err := os.Stat(taken); awake && errors.Is(err, fs.ErrNotExist) {
		return skipped{p.name + " runs an older program, which goes by the machine's clock"}
	}
	p.wrong += by
	text := p.wrong.String()
	if err := replace(p.clock, text); err != nil || !awake {
		return err
	}
	late := time.NewTimer(clockWait)
	defer late.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if said, err := os.ReadFile(taken); err == nil && string(said) == text {
			return nil
		}
		select {
		case <-tick.C:
		case <-exited:
			return nil // it ended by itself, which a promise is about
		case <-late.C:
			return fmt.Errorf("%s has not looked at its clock for %v", p.name, clockWait)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
