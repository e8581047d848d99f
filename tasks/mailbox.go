package tasks

import (
	"context"
	"sync"
)

// mailbox carries events to the one goroutine that owns a machine. put never waits: it is for what the machine itself caused, of
// which there is no more than that. putWait is for what others cause: it waits while the box is full.
type mailbox[T any] struct {
	limit int
	wake  chan struct{} // of capacity 1: there is something

	mu     sync.Mutex
	items  []T
	spare  []T
	room   chan struct{} // closed when the box is emptied; nil: nobody waits
	closed bool
}

func newMailbox[T any](limit int) *mailbox[T] {
	return &mailbox[T]{limit: limit, wake: make(chan struct{}, 1)}
}

func (m *mailbox[T]) put(items ...T) {
	m.mu.Lock()
	if !m.closed {
		m.items = append(m.items, items...)
	}
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// putWait reports whether the item was put in before ctx ended.
func (m *mailbox[T]) putWait(ctx context.Context, item T) bool {
	for {
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			return false
		}
		if len(m.items) < m.limit {
			m.mu.Unlock()
			m.put(item)
			return true
		}
		if m.room == nil {
			m.room = make(chan struct{})
		}
		room := m.room
		m.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return false
		}
	}
}

// take returns all that is there. What it returned before is reused.
func (m *mailbox[T]) take() []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.items
	clear(m.spare)
	m.items, m.spare = m.spare[:0], out
	if m.room != nil {
		close(m.room)
		m.room = nil
	}
	return out
}

// close drops what is there and what comes.
func (m *mailbox[T]) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed, m.items = true, nil
	if m.room != nil {
		close(m.room)
		m.room = nil
	}
}
