package node

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
)

const (
	// feedMax is how many events are remembered for who asks later.
	feedMax = 256
	// askedMax bounds the questions that wait for a person at one time.
	askedMax = 32
)

// feed remembers what happened lately, and wakes those who follow it. A follower that is too slow misses the oldest.
type feed struct {
	mu        sync.Mutex
	events    []client.PoolEvent
	last      uint64
	news      chan struct{} // closed and replaced at each event
	approvers int
	now       func() time.Time
}

func (f *feed) init(now func() time.Time) { f.now, f.news = now, make(chan struct{}) }

// add appends an event.
func (f *feed) add(e client.PoolEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	e.Seq, e.Time = f.last, f.now()
	f.events = append(f.events, e)
	if len(f.events) > feedMax {
		f.events = append(f.events[:0:0], f.events[len(f.events)-feedMax:]...)
	}
	close(f.news)
	f.news = make(chan struct{})
}

// since returns the events after a sequence number, and what is closed when there are more.
func (f *feed) since(after uint64) ([]client.PoolEvent, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fresh := f.events
	for len(fresh) > 0 && fresh[0].Seq <= after {
		fresh = fresh[1:]
	}
	return fresh[:len(fresh):len(fresh)], f.news
}

// approve notes one more, or one less, who answers whether peers may join.
func (f *feed) approve(by int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.approvers += by
	close(f.news) // those who wait for an answer look whether anybody is there to give it
	f.news = make(chan struct{})
}

// attended reports whether somebody answers, and returns what is closed when that may have changed.
func (f *feed) attended() (bool, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.approvers > 0, f.news
}

// latest is the sequence number of the newest event.
func (f *feed) latest() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// PoolEvents calls each once to say that it watches, and then for every event after a sequence number until ctx ends.
func (n *Node) PoolEvents(ctx context.Context, after uint64, approve bool, each func(client.PoolEvent) error) error {
	if approve {
		n.happened.approve(1)
		defer n.happened.approve(-1)
	}
	if err := each(client.PoolEvent{Kind: "watching", Seq: n.happened.latest(), Time: n.cfg.Now()}); err != nil {
		return err
	}
	for {
		events, more := n.happened.since(after)
		for _, e := range events {
			if err := each(e); err != nil {
				return err
			}
			after = e.Seq
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		case <-n.stop:
			return nil
		}
	}
}

// questions are those that wait for a person, by token.
type questions struct {
	mu   sync.Mutex
	open map[string]chan bool
}

// ask opens a question. The answer comes once, on a channel of capacity 1; done forgets the question.
func (q *questions) ask() (token string, answer <-chan bool, done func(), err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.open) >= askedMax {
		return "", nil, nil, client.Errorf(client.KindBusy, "try again in a moment", "too many questions wait for an answer")
	}
	if q.open == nil {
		q.open = make(map[string]chan bool)
	}
	token, c := rand.Text(), make(chan bool, 1)
	q.open[token] = c
	return token, c, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		delete(q.open, token)
	}, nil
}

// answer answers a question once.
func (q *questions) answer(token string, yes bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	c, ok := q.open[token]
	if !ok {
		return client.Errorf(client.KindNotFound, "", "that question was answered already, or nobody waits for its answer any more")
	}
	delete(q.open, token)
	c <- yes
	return nil
}

// Answer answers a question of Join or PoolEvents.
func (n *Node) Answer(_ context.Context, req client.PoolAnswer) error {
	return n.asked.answer(req.Token, req.Accept)
}
