package tasks

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/talk"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

// watchAgain is how long Watch waits before it looks for another steward, doubling up to watchRest.
const (
	watchAgain = 50 * time.Millisecond
	watchRest  = 2 * time.Second
)

// Watch tells how a job goes on: at once what is closed already, then what comes, until the job is over and all was told. It goes on
// with another steward when one goes away, and waits while none can be reached. Each task is told once; a new Watch tells all anew.
func (t *Tasks) Watch(ctx context.Context, id job.ID) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		w := &watching{t: t, id: id, yield: yield}
		wait := watchAgain
		for {
			heard := w.heard
			done, err := w.once(ctx)
			switch {
			case w.stopped || done:
				return
			case ctx.Err() != nil:
				yield(Event{}, ctx.Err())
				return
			case t.ctx.Err() != nil:
				yield(Event{}, ErrClosed)
				return
			case errors.Is(err, ErrNoJob), err != nil && !errors.Is(err, ErrUnreachable):
				yield(Event{}, fmt.Errorf("tasks: watch: %w", err))
				return
			}
			if w.heard > heard {
				wait = watchAgain
			}
			if err := pause(ctx, wait); err != nil {
				yield(Event{}, err)
				return
			}
			wait = min(2*wait, watchRest)
		}
	}
}

// watching is one Watch.
type watching struct {
	t       *Tasks
	id      job.ID
	yield   func(Event, error) bool
	told    bits
	heard   int // news of any steward
	stopped bool
}

// once watches at one steward after the other, each for as long as it goes well.
func (w *watching) once(ctx context.Context) (done bool, err error) {
	k := w.t.seek(w.id)
	for p := k.pick(); p != ""; p = k.pick() {
		err := w.t.askEach(ctx, p, &pb.Ask{Kind: talk.AskWatch, Job: w.id[:]}, w.take)
		switch {
		case err == nil:
			return true, nil
		case w.stopped || ctx.Err() != nil:
			return false, err
		}
		if k.note(err) {
			break
		}
	}
	return false, k.err()
}

// take hands on what is new of some news.
func (w *watching) take(a *pb.Answer) (last bool, err error) {
	n, err := talk.NewsFrom(a.GetNews())
	if err != nil {
		return false, err
	}
	w.heard++
	ev := Event{Progress: n.Progress, Leader: n.Leader}
	for _, s := range n.Closed {
		for i := range s.Count {
			if task := int(s.First + i); w.told.add(task) {
				ev.Closed = append(ev.Closed, Closed{Task: task, State: s.State})
			}
		}
	}
	if !w.yield(ev, nil) {
		w.stopped = true
		return false, errStop
	}
	return a.GetLast(), nil
}
