package directory

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/directory/names"
)

const (
	// waitingMax and waitingEach bound the records whose author may not write yet: in all, and of one author.
	waitingMax  = 2048
	waitingEach = 256
	// waitingTime is for how long they are kept.
	waitingTime = time.Minute
)

// decode reads records off the wire; one that is malformed makes all suspect.
func (d *Directory) decode(raw [][]byte) ([]*Record, error) {
	records := make([]*Record, 0, len(raw))
	for _, data := range raw {
		r, err := names.Decode(d.cfg.Pool, data)
		if err != nil {
			return nil, fmt.Errorf("directory: %w", err)
		}
		records = append(records, r)
	}
	return records, nil
}

// receive takes in records from elsewhere: those that would win, whose author may write and has signed them. It
// returns how many won. A forged one is an error, for nobody passes such a record on by mistake.
func (d *Directory) receive(records []*Record) (int, error) {
	good := d.winners(records)
	n := 0
	for _, r := range good {
		if err := r.Verify(d.cfg.Pool); err != nil {
			return 0, fmt.Errorf("directory: record %q of %s: %w", r.Key, r.Author, err)
		}
		if d.mayWrite(r) != nil {
			d.waiting.add(r, d.clock.now())
			continue
		}
		good[n] = r
		n++
	}
	if n == 0 {
		return 0, nil
	}
	return d.merge(good[:n])
}

// mayWrite asks whether a record's author could write when it did.
func (d *Directory) mayWrite(r *Record) error {
	if r.Author == d.cfg.Self.ID {
		return nil
	}
	return d.cfg.Members.Wrote(r.Author, r.Time.Time())
}

// winners keeps the records that would change something, the best of each key.
func (d *Directory) winners(records []*Record) []*Record {
	best := make(map[string]int, len(records))
	out := make([]*Record, 0, len(records))
	d.mu.RLock()
	defer d.mu.RUnlock()
	now := d.clock.now()
	for _, r := range records {
		if d.replica.Judge(r, now) != names.Wins {
			continue
		}
		if i, ok := best[r.Key]; !ok {
			best[r.Key] = len(out)
			out = append(out, r)
		} else if r.Beats(out[i]) {
			out[i] = r
		}
	}
	return out
}

// Recheck must be called when it changed what a peer may write. Records of it that were waiting come in if they now
// may; records that are held and it could not have written are dropped: it was evicted, and the news of that arrived
// after them.
func (d *Directory) Recheck(author peer.ID) error {
	d.retryWaiting()
	var bad []*Record
	d.mu.RLock()
	for r := range d.replica.Set.All() {
		if r.Author == author && d.mayWrite(r) != nil {
			bad = append(bad, r)
		}
	}
	d.mu.RUnlock()
	if len(bad) == 0 {
		return nil
	}
	if err := d.drop(bad); err != nil {
		return err
	}
	d.contacts.hurry() // others may hold what those had replaced
	return nil
}

// retryWaiting offers the waiting records again whose time has come.
func (d *Directory) retryWaiting() {
	records := d.waiting.take(d.clock.now(), func(r *Record) bool { return d.mayWrite(r) == nil })
	if len(records) > 0 {
		_, _ = d.receive(records) // they were verified before; a closing directory needs them no more
	}
}

// waiting holds verified records whose author may not write as far as is known here: the news of its membership may
// come a moment later than its first record.
type waiting struct {
	mu      sync.Mutex
	records []waitingRecord
	each    map[peer.ID]int
}

type waitingRecord struct {
	*Record
	since time.Time
}

func (w *waiting) add(r *Record, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.records) >= waitingMax || w.each[r.Author] >= waitingEach {
		return
	}
	for _, old := range w.records {
		if old.ID() == r.ID() {
			return
		}
	}
	if w.each == nil {
		w.each = map[peer.ID]int{}
	}
	w.each[r.Author]++
	w.records = append(w.records, waitingRecord{r, now})
}

// take removes and returns the records that may come in, and forgets those that waited for too long.
func (w *waiting) take(now time.Time, may func(*Record) bool) (out []*Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	keep := w.records[:0]
	for _, r := range w.records {
		age := now.Sub(r.since)
		switch {
		case may(r.Record):
			out = append(out, r.Record)
		case age < waitingTime && age > -waitingTime:
			keep = append(keep, r)
			continue
		}
		if w.each[r.Author]--; w.each[r.Author] == 0 {
			delete(w.each, r.Author)
		}
	}
	clear(w.records[len(keep):])
	w.records = keep
	return out
}

func (w *waiting) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.records)
}

var errNewsSize = errors.New("directory: news beyond the limit")
