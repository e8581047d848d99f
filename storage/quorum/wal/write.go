package wal

import (
	"errors"
	"time"
)

// write is the one goroutine that writes.
func (l *Log) write() {
	defer close(l.done)
	for {
		select {
		case <-l.wake:
			l.drain()
		case <-l.quit:
			l.drain()
			l.finish()
			return
		}
	}
}

// drain writes all that waits.
func (l *Log) drain() {
	for {
		batch := l.take()
		if len(batch) == 0 {
			return
		}
		if !l.persist(batch) {
			return
		}
		for _, e := range batch {
			if e.done != nil {
				e.done()
			}
		}
		l.clean()
	}
}

// take returns what waits, up to a batch.
func (l *Log) take() (batch []entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	size, n := 0, 0
	for n < len(l.queue) && size < batchBytes {
		for _, r := range l.queue[n].records {
			size += frameHead + bodyHead + len(r.Data)
		}
		n++
	}
	batch = l.queue[:n:n]
	if l.queue = l.queue[n:]; len(l.queue) == 0 {
		l.queue = nil
	}
	l.waiting -= size
	l.room.Broadcast()
	return batch
}

// persist writes a batch, and goes on trying until it succeeds or the log is closed. Each try begins a new segment: what a
// failed write or sync left in the old one is unknown, and nothing in it after the last sync was acknowledged. Reading it
// again does no harm, for the batch follows once more.
func (l *Log) persist(batch []entry) bool {
	for {
		err := l.try(batch)
		l.mu.Lock()
		l.problem = err
		l.mu.Unlock()
		if err == nil {
			return true
		}
		l.abandon()
		timer := time.NewTimer(retryAfter)
		select {
		case <-timer.C:
		case <-l.quit:
			timer.Stop()
			return false
		}
	}
}

func (l *Log) try(batch []entry) error {
	if l.file != nil && int64(l.size) > l.limits.segment {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	if l.file == nil {
		if err := l.begin(); err != nil {
			return err
		}
	}
	sync := l.looseLen > batchBytes
	l.buf = l.buf[:0]
	if l.size == 0 {
		l.buf = appendHeader(l.buf, l.gen-1, l.segments[:len(l.segments)-1])
		l.encode(l.loose) // of the segment that failed
	}
	l.encode(batch)
	for _, e := range batch {
		sync = sync || e.sync
	}
	l.pending = true
	if _, err := l.file.Write(l.buf); err != nil {
		return err
	}
	l.size += len(l.buf)
	l.total += int64(len(l.buf))
	l.segments[len(l.segments)-1].size = int64(l.size)
	for _, e := range batch {
		for _, r := range e.records {
			l.note(l.gen-1, r)
		}
	}
	written := len(l.buf)
	if cap(l.buf) > 2*batchBytes {
		l.buf = nil
	}
	if sync {
		return l.sync()
	}
	l.loose = append(l.loose, batch...)
	l.looseLen += written
	return nil
}

func (l *Log) encode(entries []entry) {
	for _, e := range entries {
		for _, r := range e.records {
			l.buf = appendFrame(l.buf, l.synced, r)
		}
	}
}

// begin makes the next segment; its header goes out with the first records.
func (l *Log) begin() error {
	f, err := l.fs.Create(segmentName(l.gen))
	if err != nil {
		return err
	}
	l.segments = append(l.segments, segment{gen: l.gen})
	l.gen++
	l.file, l.fresh, l.size, l.synced = f, true, 0, 0
	return nil
}

// sync makes the segment durable: its bytes first, then its name.
func (l *Log) sync() error {
	if l.file == nil || !l.pending {
		return nil
	}
	l.mu.Lock()
	l.syncs++
	l.mu.Unlock()
	if err := l.file.Sync(); err != nil {
		return err
	}
	if l.fresh {
		if err := l.fs.Sync(""); err != nil {
			return err
		}
	}
	l.pending, l.fresh, l.synced = false, false, l.size
	l.loose, l.looseLen = nil, 0
	return nil
}

// rotate ends a segment that is full. It must be durable before the next one begins: only the last segment may be torn.
func (l *Log) rotate() error {
	if err := l.sync(); err != nil {
		return err
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// abandon gives up a segment after an error. Only what was synced counts of it, which the next one's header says.
func (l *Log) abandon() {
	if l.file == nil {
		return
	}
	_ = l.file.Close() // it failed already
	l.file = nil
	last := &l.segments[len(l.segments)-1]
	l.total -= last.size - int64(l.synced)
	last.size = int64(l.synced)
	// The next one takes the place of one without anything durable, number and all: or a disk that fails for long would fill up
	// with them, and the list of them outgrow a header.
	if l.synced == 0 {
		_ = l.fs.Remove(segmentName(last.gen)) // or begin empties it
		l.segments, l.gen = l.segments[:len(l.segments)-1], last.gen
	}
}

// clean deletes the oldest segments when the log has grown too long for what is needed of it.
func (l *Log) clean() {
	for len(l.segments) > 1 && l.total > l.limits.slack+2*l.live {
		oldest := l.segments[0].gen
		needed := false
		for id, g := range l.groups {
			if g.base > oldest {
				continue
			}
			needed = true
			if l.asked < oldest {
				l.ask(id)
			}
		}
		l.asked = max(l.asked, oldest)
		if needed {
			return
		}
		// What made it needless must be durable before it goes.
		if l.sync() != nil {
			l.abandon() // nothing more may be built on this segment; the next batch comes with what it lost
			return
		}
		if l.fs.Remove(segmentName(oldest)) != nil {
			return // the next batch tries again
		}
		l.total -= l.segments[0].size
		l.segments = l.segments[1:]
	}
}

// finish makes durable what was written and closes the file.
func (l *Log) finish() {
	var err error
	if l.file == nil && len(l.loose) > 0 { // their segment was given up after the last batch
		err = l.try(nil)
	}
	err = errors.Join(err, l.sync())
	if l.file != nil {
		err = errors.Join(err, l.file.Close())
		l.file = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.problem == nil {
		l.problem = err
	}
}
