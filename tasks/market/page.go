package market

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/canon"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/tasks/job"
)

// Results do not stay in the ledger: a million of them would make every snapshot a gigabyte. When all tasks of a page are
// closed, its results become one block, the same on every replica, and the ledger keeps its name. When those of many
// pages gather because some task of each is late, the heaviest page is sealed as it is, and the rest of it later. A small job
// has nothing sealed: its few results are less than what a block of them costs.

const (
	// PageMax bounds a page's block, in bytes; it fits into one leaf.
	PageMax = PageTasks * (entryMax + 16)
	// entryMax bounds what is kept of one closed task.
	entryMax = max(job.ResultMax, failuresKept*(failureMax+3)) + 160
	// looseMax is how many bytes of results are kept before pages are sealed that are not complete.
	looseMax = 16 << 20
	// lightMax is how many bytes of results a job of one page keeps for good.
	lightMax = 32 << 10
)

// Page is a block of results: those of a page's tasks, or of a part of them.
type Page struct {
	Number int // tasks from Number*PageTasks
	CID    chunk.CID
	Data   []byte
}

// loosePage is the results of a page that are not sealed.
type loosePage struct {
	entries map[uint32][]byte // encoded
	weight  int
	sealed  int // tasks that were sealed before
}

// Record is what the ledger keeps of a closed task.
type Record struct {
	State   State
	Token   job.Token // of the attempt that closed it
	By      peer.ID   // whose attempt that was
	Ran     time.Duration
	At      time.Time // by the wall clock of who proposed it
	Results [][]byte  // job.Result, encoded: one of a Succeeded task, the last few of a Failed one
}

// entry is a Record inside.
type entry struct {
	state   State
	token   job.Token
	by      peer.ID
	ran     time.Duration
	at      time.Time
	results [][]byte
}

func (e *entry) append(buf []byte) []byte {
	buf = append(buf, byte(e.state))
	buf = binary.AppendUvarint(buf, e.token.Term)
	buf = binary.AppendUvarint(buf, e.token.Seq)
	buf = canon.AppendBytes(buf, e.by)
	buf = binary.AppendUvarint(buf, uint64(e.ran/time.Microsecond))
	buf = binary.AppendUvarint(buf, uint64(max(0, e.at.UnixMilli())))
	buf = binary.AppendUvarint(buf, uint64(len(e.results)))
	for _, r := range e.results {
		buf = canon.AppendBytes(buf, r)
	}
	return buf
}

func (d *decoder) entry() entry {
	e := entry{
		state: State(d.Byte()), token: job.Token{Term: d.Uvarint(), Seq: d.Uvarint()}, by: peer.ID(d.Bytes(peerIDMax)),
		ran: d.duration(), at: d.time(),
	}
	if e.state < Succeeded || e.state > Skipped {
		d.Fail(fmt.Errorf("a closed task in state %d", e.state))
	}
	for range d.Count(failuresKept) {
		e.results = append(e.results, d.Bytes(job.ResultMax))
	}
	return e
}

// keep files a closed task's entry, and seals its page if it is the last of it.
func (l *Ledger) keep(t uint32, e entry) {
	n := t / PageTasks
	p := l.loose[n]
	if p == nil {
		p = &loosePage{entries: map[uint32][]byte{}}
		l.loose[n] = p
	}
	raw := e.append(nil)
	p.entries[t] = raw
	p.weight += len(raw)
	l.weight += len(raw)
	first := n * PageTasks
	complete := p.sealed+len(p.entries) == int(min(first+PageTasks, l.all)-first)
	if small := l.all <= PageTasks && p.weight <= lightMax; complete && !small {
		l.seal(n)
		delete(l.loose, n)
	}
	for l.weight > looseMax {
		l.seal(l.heaviest())
	}
}

// heaviest is the page with most bytes that are not sealed, the lowest of several.
func (l *Ledger) heaviest() uint32 {
	best := uint32(math.MaxUint32)
	for n, p := range l.loose {
		if best == math.MaxUint32 || p.weight > l.loose[best].weight || p.weight == l.loose[best].weight && n < best {
			best = n
		}
	}
	return best
}

// seal makes a block of the results that a page has.
func (l *Ledger) seal(n uint32) {
	p := l.loose[n]
	var data []byte
	for _, t := range slices.Sorted(maps.Keys(p.entries)) {
		data = binary.AppendUvarint(data, uint64(t))
		data = canon.AppendBytes(data, p.entries[t])
	}
	sum := chunk.SumRaw(data)
	l.pages[n] = append(l.pages[n], sum)
	l.fresh[sum] = Page{int(n), sum, data}
	l.weight -= p.weight
	p.sealed += len(p.entries)
	p.weight, p.entries = 0, map[uint32][]byte{}
}

// looseEntry finds a closed task that is not sealed.
func (l *Ledger) looseEntry(t uint32) (e entry, ok bool) {
	p := l.loose[t/PageTasks]
	if p == nil {
		return e, false
	}
	raw, ok := p.entries[t]
	if !ok {
		return e, false
	}
	d := decoder{canon.Decoder{Rest: raw}}
	e = d.entry()
	return e, d.End() == nil
}

// entry finds what is still in memory of a closed task.
func (l *Ledger) entry(t uint32) (entry, bool) {
	if e, ok := l.looseEntry(t); ok {
		return e, true
	}
	for _, sum := range l.pages[t/PageTasks] {
		if page, ok := l.fresh[sum]; ok {
			if e, err := entryOf(page.Data, t); err == nil {
				return e, true
			}
		}
	}
	return entry{}, false
}

// entryOf finds a task in a page's bytes.
func entryOf(data []byte, task uint32) (e entry, err error) {
	d := decoder{canon.Decoder{Rest: data}}
	for d.Err == nil && len(d.Rest) > 0 {
		t, raw := d.Uint32(), d.Bytes(entryMax)
		if d.Err == nil && t == task {
			in := decoder{canon.Decoder{Rest: raw}}
			e = in.entry()
			return e, in.End()
		}
	}
	if d.Err == nil {
		d.Err = ErrOpen
	}
	return e, d.Err
}

// Sealed returns the pages that are not yet Stored, lowest first. They are kept, in snapshots too, until Stored is
// called: store them soon.
func (l *Ledger) Sealed() (out []Page) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, p := range l.fresh {
		out = append(out, p)
	}
	slices.SortFunc(out, comparePages)
	return out
}

func comparePages(a, b Page) int {
	return cmp.Or(cmp.Compare(a.Number, b.Number), a.CID.Compare(b.CID))
}

// Stored says that this peer holds a page's block and will as long as the group lives.
func (l *Ledger) Stored(page chunk.CID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.fresh, page)
	delete(l.away, page)
}

// Missing names the sealed pages whose bytes came neither through the log nor in a snapshot. If the block store has the
// block, say Stored; else fetch it from another steward, keep it, and say so then.
func (l *Ledger) Missing() (out []Page) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for sum, n := range l.away {
		out = append(out, Page{Number: int(n), CID: sum})
	}
	slices.SortFunc(out, comparePages)
	return out
}

// Pages returns the names of all sealed pages, in the order of their tasks: what must be kept for as long as the job's
// results.
func (l *Ledger) Pages() (out []chunk.CID) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, parts := range l.pages {
		out = append(out, parts...)
	}
	return out
}

// ErrInPage says that a result is in a block that was stored: read it with RecordIn.
var ErrInPage = errors.New("market: the result is in its page's block")

// ErrOpen says that a task has no result yet, or never will.
var ErrOpen = errors.New("market: the task has no result")

// ResultAt returns what is kept of a closed task. If its page was Stored it returns ErrInPage and the names of the
// blocks, one of which has it; for an open or canceled task ErrOpen.
func (l *Ledger) ResultAt(task int) (Record, []chunk.CID, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if task < 0 || task >= int(l.all) || !l.closed.has(uint32(task)) {
		return Record{}, nil, ErrOpen
	}
	if e, ok := l.entry(uint32(task)); ok {
		return e.record(), nil, nil
	}
	return Record{}, slices.Clone(l.pages[task/PageTasks]), ErrInPage
}

func (e *entry) record() Record {
	return Record{e.state, e.token, e.by, e.ran, e.at, e.results}
}

// RecordIn reads a task's record from a page's bytes, which the caller has verified against the page's name. It returns
// ErrOpen if the task is not in it.
func RecordIn(page []byte, task int) (Record, error) {
	if len(page) > PageMax || task < 0 || task > job.TasksMax {
		return Record{}, fmt.Errorf("market: page: %w", canon.ErrLimit)
	}
	e, err := entryOf(page, uint32(task))
	if err != nil {
		return Record{}, fmt.Errorf("market: page: task %d: %w", task, err)
	}
	return e.record(), nil
}
