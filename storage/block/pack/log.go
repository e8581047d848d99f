package pack

import (
	"errors"
	"fmt"
)

// Append adds a frame. It is durable once Sync has returned, and may be read only then (at once in a loose log). After
// an error some of it may be on disk.
func (l *Log) Append(h Head, data []byte) (Loc, error) {
	if !h.valid() || int(h.Length) != len(data) {
		panic("pack: a frame that cannot be read again")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.full(len(data)) {
		l.mu.Unlock()
		err := l.Seal()
		l.mu.Lock()
		if err != nil {
			return Loc{}, err
		}
	}
	loc, err := l.append(h, data)
	if err != nil {
		l.abandon()
		return Loc{}, fmt.Errorf("pack: %w", err)
	}
	return loc, nil
}

// full reports that the pack has no room for so much data.
func (l *Log) full(n int) bool {
	a := l.active
	return a != nil && len(a.entries) > 0 && (a.size+headSize+int64(n) > l.cfg.Size || len(a.entries) >= framesMax)
}

func (l *Log) append(h Head, data []byte) (Loc, error) {
	if l.active == nil {
		f, err := l.cfg.FS.Create(l.name(l.next, packSuffix))
		if err != nil {
			return Loc{}, err
		}
		l.active = &active{num: l.next, file: f, fresh: true}
		l.next++
		l.bytes.Add(fileCost)
	}
	a := l.active
	loc := Loc{a.num, uint32(a.size)}
	a.buf = append(appendHead(a.buf, h), data...)
	a.size += headSize + int64(len(data))
	a.entries = append(a.entries, entry{h, loc.Off})
	l.done += uint64(headSize + len(data))
	l.bytes.Add(Cost(len(data)))
	if len(a.buf) < writeBuffer && !l.cfg.Loose {
		return loc, nil
	}
	return loc, a.flush()
}

func (a *active) flush() error {
	if len(a.buf) == 0 {
		return nil
	}
	_, err := a.file.Write(a.buf)
	if a.buf = a.buf[:0]; cap(a.buf) > 8*writeBuffer {
		a.buf = nil
	}
	return err
}

// Fails counts the writes that failed. Whoever appends takes it first and hands it to Sync.
func (l *Log) Fails() uint64 { return l.fails.Load() }

// Sync returns once all that was appended before is durable. It returns ErrLost if a write failed since Fails returned
// that number: frames appended in between may be lost.
func (l *Log) Sync(fails uint64) error {
	l.mu.Lock()
	want := l.done
	l.mu.Unlock()
	l.syncing.Lock()
	err := l.sync(want)
	l.syncing.Unlock()
	if err == nil && l.Fails() != fails {
		err = ErrLost
	}
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}

// sync makes durable what was appended up to want bytes, unless another's sync did. The caller holds syncing.
func (l *Log) sync(want uint64) error {
	l.mu.Lock()
	a := l.active
	if l.synced >= want || a == nil || l.cfg.Loose {
		l.mu.Unlock()
		return nil
	}
	err := a.flush()
	upTo, fresh := l.done, a.fresh
	l.mu.Unlock()
	if err == nil {
		err = a.file.Sync()
	}
	if err == nil && fresh {
		err = l.cfg.FS.Sync(l.cfg.Dir)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.active != a: // given up meanwhile
		return errors.Join(err, ErrLost)
	case err != nil:
		l.abandon()
		return err
	}
	l.synced, a.fresh = upTo, false
	return nil
}

// abandon gives up the pack after an error: what a failed write or sync left in it is unknown, and a second sync that
// succeeds would prove nothing about the first. The caller holds mu.
func (l *Log) abandon() {
	l.fails.Add(1)
	if a := l.active; a != nil {
		_ = a.file.Close() // it failed already
		l.packs[a.num] = sealed{a.size, len(a.entries)}
		l.active = nil
	}
}

// Seal makes the pack that is written to durable and ends it.
func (l *Log) Seal() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	a, want := l.active, l.done
	l.mu.Unlock()
	if a == nil {
		return nil
	}
	if err := l.sync(want); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.active != a {
		return nil
	}
	if l.done != want { // more came meanwhile
		err := a.flush()
		if err == nil && !l.cfg.Loose {
			err = a.file.Sync()
		}
		if err != nil {
			l.abandon()
			return fmt.Errorf("pack: %w", err)
		}
		l.synced = l.done
	}
	err := a.file.Close()
	l.active, l.packs[a.num] = nil, sealed{a.size, len(a.entries)}
	// Without an index the pack is read at the next start, no more.
	_ = l.writeIndex(a.num, a.size, a.entries)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}

// Close makes all durable and ends the log.
func (l *Log) Close() error {
	err := l.Seal()
	l.handles.close()
	return err
}
