package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	// farewellMost bounds what is said before this machine sleeps. It waits for that: with logind for five seconds at most,
	// which all programs have together (InhibitDelayMaxSec).
	farewellMost = 2 * time.Second
	// A lid that cannot be watched is looked for again after waits that double between these.
	lidAgainFirst = time.Second
	lidAgainMost  = 5 * time.Minute
)

var (
	errNoLid     = errors.New("this program cannot ask this system for it")
	errLidNotYet = errors.New("the system has not answered yet")
)

// lid is a system that tells when the machine goes to sleep, and that waits with it for whoever holds a lock. One goroutine uses it.
type lid interface {
	// next waits until the machine is about to sleep, which is true, or woke or stays awake after all, which is false.
	// After an error the system tells nothing any more.
	next(context.Context) (asleep bool, err error)
	// hold takes a lock: until it is closed, or the system's patience is over, the machine does not sleep.
	hold(context.Context) (lock io.Closer, err error)
	close()
}

// lidWatch tells the pool when this machine is about to sleep, where the system says so beforehand. Without that the others find out
// by silence.
type lidWatch struct {
	open func(context.Context) (lid, error)
	tell func(ctx context.Context, asleep bool) // waits until the pool was told, but not longer than ctx
	log  *slog.Logger
	stop context.CancelFunc
	over chan struct{} // closed when the watch has ended

	mu      sync.Mutex
	trouble error
}

// watchLid begins to watch. Nothing waits for the system's answer.
func watchLid(open func(context.Context) (lid, error), tell func(context.Context, bool), log *slog.Logger) *lidWatch {
	ctx, cancel := context.WithCancel(context.Background())
	w := &lidWatch{open: open, tell: tell, log: log, stop: cancel, over: make(chan struct{}), trouble: errLidNotYet}
	go w.run(ctx)
	return w
}

// close ends the watch and lets the machine sleep.
func (w *lidWatch) close() error {
	w.stop()
	<-w.over
	return nil
}

// problem says why the lid is not watched; nil: it is.
func (w *lidWatch) problem() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.trouble
}

// note notes whether the lid is watched. The log is told once that it is not: most servers and containers have nobody to ask.
func (w *lidWatch) note(trouble error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if trouble != nil && (w.trouble == nil || w.trouble == errLidNotYet) {
		w.log.Info("the pool is not told before this machine sleeps, and finds out by silence", "err", trouble)
	}
	w.trouble = trouble
}

func (w *lidWatch) run(ctx context.Context) {
	defer close(w.over)
	defer w.stop()
	again := lidAgainFirst
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		err := w.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		if w.problem() == nil {
			again = lidAgainFirst // it was watched until now
		}
		w.note(err)
		if errors.Is(err, errNoLid) {
			return
		}
		timer.Reset(again)
		again = min(2*again, lidAgainMost)
	}
}

// watch watches a lid for as long as the system tells of it. The error is why that ended.
func (w *lidWatch) watch(ctx context.Context) error {
	l, err := w.open(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	lock, err := l.hold(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // there is nothing in it to lose
	w.note(nil)
	for asleep := false; ; {
		now, err := l.next(ctx)
		if err != nil {
			if asleep {
				w.tell(ctx, false) // nobody will say when it wakes
			}
			return err
		}
		asleep = now
		w.tell(ctx, asleep)
		_ = lock.Close()
		if asleep {
			continue
		}
		again, err := l.hold(ctx)
		if err != nil {
			return err
		}
		lock = again
	}
}

// tellSleep tells the pool that this machine is about to sleep, or is awake: the stewards first, so that what it runs is theirs to grant,
// then all members. It returns when they were told, or after farewellMost.
func (n *Node) tellSleep(ctx context.Context, asleep bool) {
	c := n.current.Load()
	if c == nil {
		return // between two pools, or dropped out for a drill
	}
	ctx, cancel := context.WithTimeout(ctx, farewellMost)
	defer cancel()
	c.tasks.Sleep(ctx, asleep)
	c.pool.Sleep(ctx, asleep)
}
