// Package wal owns the one log on disk that all quorum groups of a peer share, so that many groups that write at once wait for
// one fsync together. What was appended durably is there after any crash, in order; what was not may be; nothing else ever is.
//
// A record is either the whole state of its group or goes on from the records before it. The log is cut into segments. A segment
// that no group needs any more is deleted; a group whose only fault is that it has not written for long is asked for its whole
// state, so that the segment can go. A segment is only written by the process that made it, front to back.
//
// The package does not know what the records mean. It does not guard against a second process.
package wal

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoal-os/shoal/storage/folder"
)

const (
	segmentSuffix = ".wal"
	tempSuffix    = ".tmp"

	// segmentMax is how long a segment may be when another batch is begun in it, in bytes.
	segmentMax = 4 << 20
	// slack is how many bytes of log are allowed beside twice what the groups need.
	slack = 8 << 20
	// batchBytes is how much is written before it is synced, and queueBytes how much may wait; Append blocks beyond.
	batchBytes = 4 << 20
	queueBytes = 64 << 20
	// retryAfter is how long a disk that failed is left alone.
	retryAfter = time.Second
	// readMax is the longest segment that is read: one that was just short of full and took a large batch.
	readMax = segmentMax + 2*queueBytes + RecordMax
)

// Kind says what a record is to its group.
type Kind byte

// The kinds of records.
const (
	Whole Kind = 1 // all of the group's state: earlier records are needless
	More  Kind = 2 // goes on from the records before
	Gone  Kind = 3 // the group is gone, with all its records
)

// Record is one thing to remember of a group.
type Record struct {
	Group [32]byte
	Kind  Kind
	Data  []byte
}

// ErrClosed is what appending to a closed log returns.
var ErrClosed = errors.New("the quorum log is closed")

// Opened says what opening found.
type Opened struct {
	Records, Segments int
	Bytes             int64
	Torn              int64 // bytes at the end that a crash left half written
}

// Log is an open folder. All methods are safe for concurrent use.
type Log struct {
	fs  folder.FS
	ask func(group [32]byte) // for a whole record
	limits
	wake chan struct{}
	quit chan struct{}
	done chan struct{}
	once sync.Once

	mu      sync.Mutex
	room    sync.Cond // queue became shorter
	queue   []entry
	waiting int // bytes in queue
	closed  bool
	problem error
	syncs   uint64

	// What follows belongs to the writer.
	gen      uint64 // of the next segment
	file     folder.File
	fresh    bool // its name is not durable yet
	pending  bool // it has bytes that are not
	size     int  // of it
	synced   int
	loose    []entry // written after the last sync
	looseLen int     // bytes of them
	buf      []byte
	segments []segment // oldest first; the last one is the file, if there is one
	groups   map[[32]byte]*group
	live     int64 // bytes of records that are needed
	total    int64 // of all segments
	asked    uint64
}

type segment struct {
	gen  uint64
	size int64
}

// group is what the log knows of a group.
type group struct {
	base uint64 // the oldest segment that it needs
	size int64  // of the records that it needs
}

// entry is one call of Append.
type entry struct {
	records []Record
	sync    bool
	done    func()
}

// Open reads the folder: load is called for each record, oldest first, whose data it must not keep. ask is called, on the log's
// goroutine, for a group whose whole state should be appended; it must not block.
func Open(fs folder.FS, load func(Record) error, ask func(group [32]byte)) (*Log, Opened, error) {
	return open(fs, load, ask, limits{segmentMax, slack})
}

// limits are segmentMax and slack, which tests lower.
type limits struct{ segment, slack int64 }

func open(fs folder.FS, load func(Record) error, ask func(group [32]byte), lim limits) (*Log, Opened, error) {
	l := &Log{
		fs: fs, ask: ask, limits: lim, gen: 1, groups: make(map[[32]byte]*group),
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
	l.room.L = &l.mu
	opened, err := l.read(load)
	if err != nil {
		return nil, opened, fmt.Errorf("quorum log: %w", err)
	}
	go l.write()
	return l, opened, nil
}

// read loads all segments. Of those that a later one lists it is known how long they are; the others, mostly just the last one,
// may end in what a crash left half written.
func (l *Log) read(load func(Record) error) (o Opened, err error) {
	gens, err := l.list()
	if err != nil {
		return o, err
	}
	sizes, err := l.sizes(gens)
	if err != nil {
		return o, err
	}
	// Records before the last whole one may be there while what they go on from is deleted.
	orphans := make(map[[32]byte]bool)
	take := func(r Record) error {
		if orphans[r.Group] = r.Kind == More && l.groups[r.Group] == nil; orphans[r.Group] {
			return nil
		}
		delete(orphans, r.Group)
		return load(r)
	}
	for _, gen := range gens {
		size, known := sizes[gen]
		if known && size == 0 { // it was given up before anything in it was durable
			if err := l.fs.Remove(segmentName(gen)); err != nil {
				return o, err
			}
			continue
		}
		if err := l.readSegment(gen, size, known, &o, take); err != nil {
			return o, fmt.Errorf("%s: %w", segmentName(gen), err)
		}
	}
	if len(orphans) > 0 {
		return o, ErrDamaged
	}
	return o, nil
}

// sizes collects what the headers say of earlier segments.
func (l *Log) sizes(gens []uint64) (map[uint64]int64, error) {
	sizes := make(map[uint64]int64)
	for _, gen := range gens {
		data, err := folder.ReadFile(l.fs, segmentName(gen), int64(headerHead+16*segmentsMax+4))
		if err != nil {
			return nil, err
		}
		before, _ := parseHeader(data, gen)
		for _, s := range before {
			sizes[s.gen] = s.size
		}
	}
	return sizes, nil
}

func (l *Log) readSegment(gen uint64, want int64, known bool, o *Opened, load func(Record) error) error {
	data, err := folder.ReadFile(l.fs, segmentName(gen), readMax)
	if err != nil {
		return err
	}
	if known {
		if int64(len(data)) < want {
			return ErrDamaged
		}
		data = data[:want]
	}
	size, err := parseSegment(data, gen, func(r Record) error {
		o.Records++
		err := load(r)
		l.note(gen, r)
		return err
	})
	if err != nil {
		return err
	}
	if known && size < len(data) {
		return ErrDamaged
	}
	o.Torn += int64(len(data) - size)
	if !known {
		if err := l.secure(gen, data[:size]); err != nil || size == 0 {
			return err
		}
	}
	o.Segments++
	o.Bytes += int64(size)
	l.total += int64(size)
	l.segments = append(l.segments, segment{gen, int64(size)})
	return nil
}

// secure makes durable what was read from a segment. The process that wrote it may have been killed between write and sync;
// what is built on now must not vanish with the power later.
func (l *Log) secure(gen uint64, data []byte) error {
	name := segmentName(gen)
	if len(data) == 0 {
		return l.fs.Remove(name)
	}
	f, err := l.fs.Create(name + tempSuffix)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := l.fs.Rename(name+tempSuffix, name); err != nil {
		return err
	}
	return l.fs.Sync("")
}

// list returns the generations of the segments, oldest first, and removes what a crash left unfinished.
func (l *Log) list() (gens []uint64, err error) {
	infos, err := l.fs.List("")
	if err != nil {
		return nil, err
	}
	for _, info := range infos {
		if strings.HasSuffix(info.Name, segmentSuffix+tempSuffix) {
			if err := l.fs.Remove(info.Name); err != nil {
				return nil, err
			}
		}
		stem, ok := strings.CutSuffix(info.Name, segmentSuffix)
		gen, err := strconv.ParseUint(stem, 16, 63)
		if ok && err == nil && segmentName(gen) == info.Name {
			gens = append(gens, gen)
			l.gen = max(l.gen, gen+1)
		}
	}
	slices.Sort(gens)
	return gens, nil
}

func segmentName(gen uint64) string { return fmt.Sprintf("%016x%s", gen, segmentSuffix) }

// note keeps count of what each group needs.
func (l *Log) note(gen uint64, r Record) {
	size := int64(frameHead + bodyHead + len(r.Data))
	g := l.groups[r.Group]
	if r.Kind == Gone {
		if g != nil {
			l.live -= g.size
			delete(l.groups, r.Group)
		}
		return
	}
	if g == nil && r.Kind == More {
		return
	}
	if g == nil {
		g = &group{base: gen}
		l.groups[r.Group] = g
	}
	if r.Kind == Whole {
		l.live -= g.size
		g.base, g.size = gen, 0
	}
	g.size += size
	l.live += size
}

// Append adds records in order, after those of earlier calls. It returns at once, unless very much waits already. done, when set,
// is called on the log's goroutine once they are written and, with sync, will survive a loss of power, as will all before
// them; it must not block. While the disk fails, nothing is done: see Problem. The records' data must not be changed
// until then. A closed log returns ErrClosed.
func (l *Log) Append(records []Record, sync bool, done func()) error {
	size := 0
	for _, r := range records {
		if len(r.Data) > RecordMax {
			panic("wal: a record that cannot be read again")
		}
		size += frameHead + bodyHead + len(r.Data)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.waiting > queueBytes && !l.closed {
		l.room.Wait()
	}
	if l.closed {
		return ErrClosed
	}
	l.queue = append(l.queue, entry{records, sync, done})
	l.waiting += size
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return nil
}

// Problem is the disk's last error while it has not recovered from it.
func (l *Log) Problem() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.problem
}

// Syncs is how often the disk was asked to make the log durable.
func (l *Log) Syncs() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.syncs
}

// Close writes what waits, if the disk works, makes it durable and ends the log.
func (l *Log) Close() error {
	l.mu.Lock()
	l.closed = true
	l.room.Broadcast()
	l.mu.Unlock()
	l.once.Do(func() { close(l.quit) })
	<-l.done
	return l.Problem()
}
