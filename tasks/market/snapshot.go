package market

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/canon"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/tasks/job"
)

const (
	snapshotVersion = 1
	// restoreMax bounds a snapshot that is read: the pages of a job that are open at once, and all else.
	restoreMax = 1 << 30
)

// Snapshot encodes the state. Replicas that applied the same entries and stored the same pages give the same bytes. Its
// size is that of the pages that are open or not Stored, 32 bytes for each sealed one, and the runs of closed tasks.
func (l *Ledger) Snapshot() ([]byte, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	buf := []byte{snapshotVersion}
	buf = binary.AppendUvarint(buf, l.index)
	if l.signed == nil {
		return buf, nil
	}
	buf = binary.AppendUvarint(buf, l.born)
	buf = canon.AppendBytes(buf, l.signed.Raw)
	buf = canon.AppendBytes(buf, l.canceled)
	buf = canon.AppendBytes(buf, l.canceler)
	ended := uint64(0)
	if !l.ended.IsZero() {
		ended = uint64(max(0, l.ended.UnixMilli()))
	}
	buf = binary.AppendUvarint(buf, ended)
	buf = l.closed.append(buf)
	buf = binary.AppendUvarint(buf, uint64(len(l.failed)))
	for _, t := range slices.Sorted(maps.Keys(l.failed)) {
		buf = binary.AppendUvarint(buf, uint64(t))
	}
	buf = l.appendTrouble(buf)
	for _, n := range l.ran {
		buf = binary.AppendUvarint(buf, uint64(n))
	}
	return l.appendPages(buf), nil
}

// append writes the runs of a set: gap and length of each, ended by two zeros.
func (s *taskSet) append(buf []byte) []byte {
	s.runs(func(gap, length uint32) {
		buf = binary.AppendUvarint(buf, uint64(gap))
		buf = binary.AppendUvarint(buf, uint64(length))
	})
	return append(buf, 0, 0)
}

func (d *decoder) taskSet(size int) taskSet {
	s := newTaskSet(size)
	for t := uint64(0); d.Err == nil; {
		gap, length := d.Uvarint(), d.Uvarint()
		if gap == 0 && length == 0 {
			break
		}
		if length == 0 || gap > uint64(size) || length > uint64(size) || t+gap+length > uint64(size) || gap == 0 && t > 0 {
			d.Fail(canon.ErrLimit)
			break
		}
		for t += gap; length > 0; length-- {
			s.add(uint32(t))
			t++
		}
	}
	return s
}

func (l *Ledger) appendTrouble(buf []byte) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(l.trouble)))
	for _, t := range slices.Sorted(maps.Keys(l.trouble)) {
		buf = binary.AppendUvarint(buf, uint64(t))
		buf = binary.AppendUvarint(buf, uint64(len(l.trouble[t])))
		for _, f := range l.trouble[t] {
			buf = canon.AppendBytes(buf, f.by)
			buf = binary.AppendUvarint(buf, f.token.Term)
			buf = binary.AppendUvarint(buf, f.token.Seq)
			buf = canon.AppendBytes(buf, f.result)
		}
	}
	return buf
}

// appendPages writes of each page its sealed parts, with the bytes of those not Stored, and then its loose results.
func (l *Ledger) appendPages(buf []byte) []byte {
	for n, parts := range l.pages {
		buf = binary.AppendUvarint(buf, uint64(len(parts)))
		for _, sum := range parts {
			if p, fresh := l.fresh[sum]; fresh {
				buf = canon.AppendBytes(append(buf, 1), p.Data)
			} else {
				buf = append(append(buf, 0), sum.Sum[:]...)
			}
		}
		p := l.loose[uint32(n)]
		if p == nil {
			p = &loosePage{}
		}
		buf = binary.AppendUvarint(buf, uint64(p.sealed))
		buf = binary.AppendUvarint(buf, uint64(len(p.entries)))
		for _, t := range slices.Sorted(maps.Keys(p.entries)) {
			buf = binary.AppendUvarint(buf, uint64(t))
			buf = canon.AppendBytes(buf, p.entries[t])
		}
	}
	return buf
}

// Restore replaces the state by that of a snapshot. On an error the ledger is left as it was.
func (l *Ledger) Restore(data []byte) error {
	fresh := NewLedgerWith(l.guards, l.id, l.applied)
	if err := fresh.restore(data); err != nil {
		return fmt.Errorf("market: restore: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index, l.born, l.signed, l.splits, l.all, l.closed = fresh.index, fresh.born, fresh.signed, fresh.splits, fresh.all, fresh.closed
	l.failed, l.trouble, l.canceled, l.canceler, l.ended, l.ran = fresh.failed, fresh.trouble, fresh.canceled, fresh.canceler, fresh.ended, fresh.ran
	l.loose, l.weight, l.pages, l.fresh, l.away = fresh.loose, fresh.weight, fresh.pages, fresh.fresh, fresh.away
	return nil
}

func (l *Ledger) restore(data []byte) error {
	if len(data) > restoreMax {
		return canon.ErrLimit
	}
	d := decoder{canon.Decoder{Rest: slices.Clone(data)}} // what is kept of it must be ours
	if v := d.Byte(); d.Err == nil && v != snapshotVersion {
		return fmt.Errorf("version %d", v)
	}
	l.index = d.Uvarint()
	if d.Err != nil || len(d.Rest) == 0 {
		return d.End()
	}
	l.born = d.Uvarint()
	raw := d.Bytes(job.SignedMax)
	if d.Err != nil {
		return d.Err
	}
	signed, err := job.Trust(raw)
	if err != nil {
		return err
	}
	if signed.ID != l.id {
		return fmt.Errorf("it is of the job %s", signed.ID.Short())
	}
	l.begin(signed)
	l.canceled, l.canceler = string(d.Bytes(NoteMax)), peer.ID(d.Bytes(peerIDMax))
	l.ended = d.time()
	l.closed = d.taskSet(int(l.all))
	l.restoreFailed(&d)
	l.restoreTrouble(&d)
	for i := range l.ran {
		l.ran[i] = d.Uint32()
	}
	for n := range uint32(len(l.pages)) {
		if d.Err == nil {
			l.restorePage(&d, n)
		}
	}
	return d.End()
}

func (l *Ledger) restoreFailed(d *decoder) {
	for range d.Count(int(l.all)) {
		t := d.Uint32()
		if d.Err == nil && (t >= l.all || !l.closed.has(t)) {
			d.Fail(canon.ErrLimit)
		}
		l.failed[t] = true
	}
}

func (l *Ledger) restoreTrouble(d *decoder) {
	for range d.Count(int(l.all)) {
		t := d.Uint32()
		if d.Err == nil && (t >= l.all || l.closed.has(t)) {
			d.Fail(canon.ErrLimit)
		}
		for range d.Count(job.FailuresMax) {
			l.trouble[t] = append(l.trouble[t], failure{
				peer.ID(d.Bytes(peerIDMax)), job.Token{Term: d.Uvarint(), Seq: d.Uvarint()}, d.Bytes(failureMax),
			})
		}
		if d.Err != nil {
			return
		}
	}
}

func (l *Ledger) restorePage(d *decoder, n uint32) {
	for range d.Count(PageTasks) {
		switch kind := d.Byte(); kind {
		case 0:
			sum := d.cid()
			l.pages[n] = append(l.pages[n], sum)
			l.away[sum] = n
		case 1:
			data := d.Bytes(PageMax)
			sum := chunk.SumRaw(data)
			l.pages[n] = append(l.pages[n], sum)
			l.fresh[sum] = Page{int(n), sum, data}
		default:
			d.Fail(fmt.Errorf("kind %d of page", kind))
			return
		}
	}
	p := &loosePage{entries: map[uint32][]byte{}, sealed: int(d.Uint32())}
	for range d.Count(PageTasks) {
		t, raw := d.Uint32(), d.Bytes(entryMax)
		if d.Err != nil || t/PageTasks != n || t >= l.all || !l.closed.has(t) {
			d.Fail(canon.ErrLimit)
			return
		}
		p.entries[t] = raw
		p.weight += len(raw)
	}
	if p.sealed > PageTasks {
		d.Fail(canon.ErrLimit)
	}
	if p.sealed+len(p.entries) > 0 {
		l.loose[n] = p
		l.weight += p.weight
	}
}
