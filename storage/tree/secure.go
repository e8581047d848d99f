package tree

import (
	"context"
	"slices"
	"sync"

	"github.com/shoal-os/shoal/storage/block/piece"
)

const (
	// secureWorkers is how many have copies made in each lane behind the back of those who wrote the files.
	secureWorkers = 2
	// smallTake is how many small pieces a worker takes at a time, which then travel together: a run of the hold
	// protocol. Large ones travel one by one anyhow.
	smallTake, largeTake = 1024, 4
	// smallQueue and largeQueue bound the pieces that wait, 56 bytes each.
	smallQueue, largeQueue = 64 << 10, 1 << 10
)

// ackDefault is how many durable copies a put waits for.
const ackDefault = 2

// toSecure is a piece that has a name already, and too few copies.
type toSecure struct {
	piece.Piece
	copies int // wanted
}

// lane is a queue of pieces that wait for their copies. Small and large ones have lanes of their own, so that a letter does
// not wait for a film.
type lane struct {
	most, take int // pieces that may wait, and that are taken at a time

	mu      sync.Mutex
	waiting []toSecure
	wake    chan struct{} // of capacity 1
}

func newLane(most, take int) *lane {
	return &lane{most: most, take: take, wake: make(chan struct{}, 1)}
}

// add puts a piece at the end, unless the lane is full.
func (l *lane) add(p toSecure) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) >= l.most {
		return false
	}
	l.waiting = append(l.waiting, p)
	l.signal()
	return true
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// next waits for pieces and takes the first ones that are wanted in the same number of copies. It returns none when ctx
// ends.
func (l *lane) next(ctx context.Context) (pieces []piece.Piece, copies int) {
	for len(pieces) == 0 {
		select {
		case <-l.wake:
		case <-ctx.Done():
			return nil, 0
		}
		pieces, copies = l.pop()
	}
	return pieces, copies
}

func (l *lane) pop() (pieces []piece.Piece, copies int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for ; n < min(len(l.waiting), l.take) && l.waiting[n].copies == l.waiting[0].copies; n++ {
		pieces = append(pieces, l.waiting[n].Piece)
		copies = l.waiting[n].copies
	}
	l.waiting = slices.Delete(l.waiting, 0, n)
	if len(l.waiting) > 0 {
		l.signal() // for another worker
	}
	return pieces, copies
}

// secureLater has copies made in the background, and never waits. The pieces are durable here and wanted already, so what
// a crash leaves undone, or finds no room in the queue, is mended by those who watch what is wanted.
func (t *Tree) secureLater(pieces []piece.Piece, copies int) {
	left := 0
	for _, p := range pieces {
		l := t.small
		if !p.Small() {
			l = t.large
		}
		t.securing.Add(1)
		if !l.add(toSecure{p, copies}) {
			t.securing.Add(-1)
			left++
		}
	}
	if left > 0 {
		t.cfg.Log.Debug("too many pieces wait for their copies; these are left to the planners", "pieces", left)
	}
}

// secureLane has copies made of what is in a lane.
func (t *Tree) secureLane(l *lane) {
	for {
		pieces, copies := l.next(t.ctx)
		if len(pieces) == 0 {
			return
		}
		if _, err := t.cfg.Bytes.Secure(t.ctx, pieces, copies, min(ackDefault, copies), nil); err != nil && t.ctx.Err() == nil {
			t.cfg.Log.Warn("copies could not be made yet", "pieces", len(pieces), "err", err)
		}
		t.securing.Add(-int64(len(pieces)))
	}
}
