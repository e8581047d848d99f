package api

import (
	"context"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/sse"
	"github.com/shoal-os/shoal/node/api/client"
)

// eventInterval is the least time between two progress events of one phase: as
// often as an eye can follow, and no more work for the transfer.
const eventInterval = 100 * time.Millisecond

const eventsText = "Answers with server-sent events: any number of `progress`, then one `done` or one `error`. " +
	"Closing the connection cancels the work."

var (
	errorType      = reflect.TypeFor[client.Error]()
	errorModelType = reflect.TypeFor[huma.ErrorModel]()
)

func processID() int { return os.Getpid() }

// events documents the events of an operation whose last one carries done.
func events(done any) map[string]any {
	return map[string]any{
		client.EventProgress: client.Progress{},
		client.EventDone:     done,
		client.EventError:    client.Error{},
	}
}

// latest is a mailbox of one: a slow reader sees the newest progress and the
// transfer never waits for a reader.
type latest struct {
	mu    sync.Mutex
	value client.Progress
	fresh bool          // not taken yet
	full  chan struct{} // capacity 1
}

func newLatest() *latest { return &latest{full: make(chan struct{}, 1)} }

func (l *latest) put(p client.Progress) {
	l.mu.Lock()
	l.value, l.fresh = p, true
	l.mu.Unlock()
	select {
	case l.full <- struct{}{}:
	default:
	}
}

func (l *latest) phase() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value.Phase
}

// take returns the newest progress and whether it was not taken before.
func (l *latest) take() (client.Progress, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fresh := l.fresh
	l.fresh = false
	return l.value, fresh
}

// follow runs work and sends its events. The work is cancelled when the
// caller goes away, and has ended when follow returns.
func follow[T any](ctx context.Context, send sse.Sender, work func(context.Context, func(client.Progress)) (T, error)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	box := newLatest()
	type outcome struct {
		value T
		err   error
	}
	ended := make(chan outcome, 1)
	go func() {
		value, err := work(ctx, box.put)
		ended <- outcome{value, err}
	}()
	pace := pacer{}
	var due <-chan time.Time // while progress waits for its turn
	for {
		select {
		case <-box.full:
			if due == nil {
				due = time.After(pace.rest(box.phase()))
			}
		case <-due:
			due = nil
			p, _ := box.take()
			pace.sent(p.Phase)
			if send.Data(p) != nil {
				cancel()
			}
		case out := <-ended:
			finish(send, box, out.value, out.err)
			return
		}
	}
}

// finish sends the newest progress, so that a bar ends where the work did, and
// then how it ended. Nobody may be there to read it, which is no error.
func finish(send sse.Sender, box *latest, value any, err error) {
	if p, fresh := box.take(); fresh {
		_ = send.Data(p)
	}
	if err != nil {
		_ = send.Data(*asError(err))
		return
	}
	_ = send.Data(value)
}

// pacer spaces progress events; a new phase is news and is not held back.
type pacer struct {
	last  time.Time
	phase string
}

// rest is how long progress of this phase has to wait.
func (p *pacer) rest(phase string) time.Duration {
	if phase != p.phase {
		return 0
	}
	return eventInterval - time.Since(p.last)
}

func (p *pacer) sent(phase string) { p.last, p.phase = time.Now(), phase }
