package directory

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"time"

	"github.com/shoal-os/shoal/storage/directory/disk"
	"github.com/shoal-os/shoal/storage/directory/names"
)

const (
	jobsMax = 256 // writers that wait for the committer without blocking
	// writeMax is how many changes or records one job carries. What is larger is split.
	writeMax = 256
	// batchMax is how many bytes of entries are written before they are synced.
	batchMax = 1 << 20
)

// job is one thing for the committer to do. It decides on records under the lock and alone; then they are written to
// disk, then they become visible, then done is told. It may have to decide a second time.
type job struct {
	decide  func(*batch) error
	durable bool
	news    bool // others are to be told
	compact bool // a snapshot is to be written, whether it is worth it or not
	done    chan error
}

// batch collects the entries of jobs that share one write to the disk.
type batch struct {
	entries []disk.Entry
	bytes   int
	records []*Record       // to be applied
	drops   []*Record       // to be dropped if they are still held
	keys    map[string]bool // that records and drops change, or that a job looked at to decide: true if changed
	news    []*Record
	synced  time.Time
	durable bool
	compact bool
	jobs    []*job
}

func (b *batch) put(r *Record) {
	b.records = append(b.records, r)
	b.keys[r.Key] = true
	b.add(disk.Entry{Kind: entryRecord, Payload: r.Append(nil)})
}

func (b *batch) drop(r *Record) {
	b.drops = append(b.drops, r)
	b.keys[r.Key] = true
	b.add(disk.Entry{Kind: entryDrop, Payload: []byte(r.Key)})
}

// look notes that what a key holds decided something, even if it is that nothing is to be done.
func (b *batch) look(key string) {
	if !b.keys[key] {
		b.keys[key] = false
	}
}

func (b *batch) add(e disk.Entry) {
	b.entries = append(b.entries, e)
	b.bytes += len(e.Payload)
}

// Write makes all of the changes, in order, and returns once they will survive a loss of power. It is not a
// transaction: on an error, and on other peers at any moment, some may be made and others not. When ctx ends first the
// changes may still happen.
func (d *Directory) Write(ctx context.Context, changes ...Change) error {
	for len(changes) > 0 {
		part := changes[:min(len(changes), writeMax)]
		changes = changes[len(part):]
		err := d.submit(ctx, &job{durable: true, news: true, decide: func(b *batch) error {
			return d.stamp(b, lastOfEach(part))
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

// lastOfEach keeps the last change of each key: what came before it would never be seen.
func lastOfEach(changes []Change) []Change {
	at := make(map[string]int, len(changes))
	out := make([]Change, 0, len(changes))
	for _, c := range changes {
		if i, ok := at[c.Key]; ok {
			out[i] = c
			continue
		}
		at[c.Key] = len(out)
		out = append(out, c)
	}
	return out
}

// stamp makes the records of changes.
func (d *Directory) stamp(b *batch, changes []Change) error {
	for _, c := range changes {
		b.look(c.Key)
		r, err := d.replica.Stamp(c, d.clock.now())
		if err != nil {
			return fmt.Errorf("directory: %s %q: %w", verb(c), c.Key, err)
		}
		if r != nil {
			b.put(r)
		}
	}
	return nil
}

func verb(c Change) string {
	if c.Delete {
		return "delete"
	}
	return "put"
}

// merge takes in records of others whose signatures and authors were checked, if they win still.
func (d *Directory) merge(records []*Record) (int, error) {
	won := 0
	for len(records) > 0 {
		part := records[:min(len(records), writeMax)]
		records = records[len(part):]
		n := 0
		// Nobody was told that these are here, and the others have them: there is no need to wait for the disk.
		err := d.submit(d.ctx, &job{decide: func(b *batch) error {
			now := d.clock.now()
			n = 0
			for _, r := range part {
				if d.replica.Judge(r, now) == names.Wins {
					b.put(r)
					n++
				}
			}
			return nil
		}})
		if err != nil {
			return won, err
		}
		won += n
	}
	return won, nil
}

// drop removes records, if they are held still.
func (d *Directory) drop(records []*Record) error {
	return d.submit(d.ctx, &job{decide: func(b *batch) error {
		for _, r := range records {
			if d.replica.Set.Get(r.Key) == r {
				b.drop(r)
			}
		}
		return nil
	}})
}

// submit hands a job to the committer and waits for its end.
func (d *Directory) submit(ctx context.Context, j *job) error {
	j.done = make(chan error, 1)
	select {
	case d.jobs <- j:
	case <-d.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-j.done:
		return err
	case <-d.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// commit is the one goroutine that changes what is held. It gathers the jobs that wait, so that writers at the same
// time share one sync of the disk.
func (d *Directory) commit() {
	for {
		select {
		case j := <-d.jobs:
			b := d.gather(j)
			d.flush(b)
			d.compact(b.compact)
		case <-d.ctx.Done():
			return
		}
	}
}

// gather decides on the first job and those that wait already, until one of them depends on an earlier one.
func (d *Directory) gather(first *job) *batch {
	b := newBatch()
	for j := first; j != nil; {
		d.decide(b, j)
		j = nil
		if b.bytes < batchMax {
			select {
			case j = <-d.jobs:
			default:
			}
		}
	}
	return b
}

func newBatch() *batch { return &batch{keys: map[string]bool{}} }

// decide runs one job. If it looked at a key that the batch changes, the batch goes first and the job decides anew,
// for it has to see what it builds on.
func (d *Directory) decide(b *batch, j *job) {
	own := newBatch()
	err := d.runDecide(own, j)
	for key := range own.keys {
		if b.keys[key] {
			d.flush(b)
			*b = *newBatch()
			own = newBatch()
			err = d.runDecide(own, j)
			break
		}
	}
	if err != nil {
		j.done <- err
		return
	}
	b.join(own, j)
}

func (d *Directory) runDecide(b *batch, j *job) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return j.decide(b)
}

// join adds what a job decided.
func (b *batch) join(own *batch, j *job) {
	b.entries = append(b.entries, own.entries...)
	b.bytes += own.bytes
	b.records = append(b.records, own.records...)
	b.drops = append(b.drops, own.drops...)
	for key, changed := range own.keys {
		b.keys[key] = b.keys[key] || changed
	}
	if j.news {
		b.news = append(b.news, own.records...)
	}
	if !own.synced.IsZero() {
		b.synced = own.synced
	}
	b.durable = b.durable || j.durable
	b.compact = b.compact || j.compact
	b.jobs = append(b.jobs, j)
}

// flush writes a batch, then shows it, then tells those who wait.
func (d *Directory) flush(b *batch) {
	err := d.log.Append(b.entries, b.durable)
	if err == nil {
		d.show(b)
	} else {
		err = fmt.Errorf("directory: %w", err)
	}
	for _, j := range b.jobs {
		j.done <- err
	}
}

func (d *Directory) show(b *batch) {
	d.mu.Lock()
	for _, r := range b.records {
		d.replica.Apply(r)
	}
	for _, r := range b.drops {
		d.replica.Set.Drop(r.Key)
	}
	if !b.synced.IsZero() {
		d.replica.Synced = b.synced
	}
	d.mu.Unlock()
	for key, changed := range b.keys {
		if changed {
			d.watchers.changed(key)
		}
	}
	if !d.outbox.add(b.news) {
		d.contacts.hurry()
	}
}

// frameCost is what an entry takes on disk beside its payload, in bytes.
const frameCost = 9

// compact writes a snapshot when the log has grown too long for what it holds, or now. It runs beside later writes.
func (d *Directory) compact(now bool) {
	set := d.replica.Set
	if !now && !d.log.Wasteful(set.Bytes()+frameCost*int64(set.Len())) {
		return
	}
	gen, err := d.log.Rotate()
	if err != nil {
		return // the log goes on in another file, and the next write tries again
	}
	held := make([]*Record, 0, set.Len())
	for r := range set.All() {
		held = append(held, r)
	}
	synced := d.replica.Synced
	d.wg.Go(func() {
		// A failure leaves the older files in place; the next snapshot makes them needless.
		_ = d.log.WriteSnapshot(gen, snapshot(held, synced))
	})
}

func snapshot(held []*Record, synced time.Time) iter.Seq[disk.Entry] {
	return func(yield func(disk.Entry) bool) {
		if !synced.IsZero() && !yield(syncedEntry(synced)) {
			return
		}
		var buf []byte
		for _, r := range held {
			buf = r.Append(buf[:0])
			if !yield(disk.Entry{Kind: entryRecord, Payload: buf}) {
				return
			}
		}
	}
}

func syncedEntry(t time.Time) disk.Entry {
	return disk.Entry{Kind: entrySynced, Payload: binary.BigEndian.AppendUint64(nil, uint64(t.UnixMilli()))}
}
