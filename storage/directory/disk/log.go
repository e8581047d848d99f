// Package disk owns the files that a directory survives in: a snapshot of what it held, and logs of what was added
// since. What was appended durably is there after any crash; what was not may be; nothing else ever is.
//
// Files are numbered by generation. A log is only ever written by the process that made it, front to back: whoever
// opens the folder, or meets a write error, goes on in a new file of the next generation, so nothing is truncated or
// overwritten and a torn end stays where the crash left it. Opening reads the newest snapshot and then all logs of its
// generation and later ones, in order.
//
// The package does not know what the entries mean. It does not guard against a second process.
package disk

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/shoal-os/shoal/storage/folder"
)

const (
	logSuffix      = ".log"
	snapshotSuffix = ".snap"
	tempSuffix     = ".tmp"
	damagedSuffix  = ".damaged"

	// slack is how many bytes of log are always allowed before they are worth a snapshot.
	slack = 1 << 20
	// logsMax is how many logs may gather before they are worth a snapshot; every start may leave one.
	logsMax = 8

	writeBuffer = 256 << 10
)

// Entry is one thing to remember.
type Entry struct {
	Kind    Kind
	Payload []byte
}

// Opened says what opening a folder found.
type Opened struct {
	Entries int   // entries read
	Bytes   int64 // bytes of them
	// Torn counts the logs that do not end cleanly: what a crash leaves.
	Torn int
	// Damaged names snapshots that could be read only in part. They are kept under another name; what they held
	// beyond the damage must come from other peers.
	Damaged []string
}

// Log is an open folder. One goroutine at a time may call its methods, except for WriteSnapshot and Close.
type Log struct {
	fs   folder.FS
	pool [32]byte

	gen      uint64      // the generation of the next file
	file     folder.File // the log that is written to; nil until something is
	fresh    bool        // its name is not durable yet
	pending  bool        // it has bytes that are not
	bytes    int64       // of all logs since the newest snapshot
	logs     int         // of them
	buf      []byte
	snapshot sync.Mutex // held while one is written
}

// Open reads a folder: load is called for each entry, oldest first, with a payload that it must not keep. An error of
// load ends the opening. Files of another pool are ErrOther.
func Open(fs folder.FS, pool [32]byte, load func(Entry) error) (*Log, Opened, error) {
	l := &Log{fs: fs, pool: pool, gen: 1}
	opened, err := l.open(load)
	if err != nil {
		return nil, opened, fmt.Errorf("directory files: %w", err)
	}
	return l, opened, nil
}

func (l *Log) open(load func(Entry) error) (Opened, error) {
	var o Opened
	files, err := l.files()
	if err != nil {
		return o, err
	}
	for _, f := range startFrom(files) {
		switch {
		case f.suffix == logSuffix:
			err = l.readLog(f, load, &o)
		case len(files) > 1 && !l.intact(f):
			// There may be older files still, whose entries must come first.
			return l.salvage(files, load)
		default:
			err = l.readSnapshot(f, load, &o)
		}
		if err != nil {
			return o, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return o, nil
}

// salvage reads all that is readable, oldest first.
func (l *Log) salvage(files []file, load func(Entry) error) (Opened, error) {
	var o Opened
	for _, f := range files {
		read := l.readLog
		if f.suffix == snapshotSuffix {
			read = l.readSnapshot
		}
		if err := read(f, load, &o); err != nil {
			return o, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return o, nil
}

// file is a name in the folder that is ours.
type file struct {
	name   string
	gen    uint64
	suffix string
}

// files lists our files, oldest first and a snapshot before the log of its generation. It removes what a crash left
// unfinished.
func (l *Log) files() ([]file, error) {
	infos, err := l.fs.List("")
	if err != nil {
		return nil, err
	}
	var out []file
	for _, info := range infos {
		if strings.HasSuffix(info.Name, tempSuffix) {
			if err := l.fs.Remove(info.Name); err != nil {
				return nil, err
			}
			continue
		}
		if f, ok := parseName(info.Name); ok {
			out = append(out, f)
			l.gen = max(l.gen, f.gen+1)
		}
	}
	slices.SortFunc(out, func(a, b file) int {
		if a.gen != b.gen {
			return int(min(max(int64(a.gen)-int64(b.gen), -1), 1))
		}
		return strings.Compare(b.suffix, a.suffix)
	})
	return out, nil
}

func parseName(name string) (file, bool) {
	for _, suffix := range []string{logSuffix, snapshotSuffix} {
		stem, ok := strings.CutSuffix(name, suffix)
		gen, err := strconv.ParseUint(stem, 16, 63)
		if ok && err == nil && fileName(gen, suffix) == name {
			return file{name, gen, suffix}, true
		}
	}
	return file{}, false
}

func fileName(gen uint64, suffix string) string { return fmt.Sprintf("%016x%s", gen, suffix) }

// startFrom cuts off what the newest snapshot makes needless.
func startFrom(files []file) []file {
	for i, f := range slices.Backward(files) {
		if f.suffix == snapshotSuffix {
			return files[i:]
		}
	}
	return files
}

// readLog loads a log up to its end, clean or not.
func (l *Log) readLog(f file, load func(Entry) error, o *Opened) error {
	size, err := l.read(f, o, load)
	if errors.Is(err, errTorn) {
		o.Torn++
		err = nil
	}
	l.bytes += size
	l.logs++
	return err
}

// readSnapshot loads a snapshot; of a damaged one what comes before the damage.
func (l *Log) readSnapshot(f file, load func(Entry) error, o *Opened) error {
	_, err := l.read(f, o, load)
	if errors.Is(err, errTorn) {
		o.Damaged = append(o.Damaged, f.name+damagedSuffix)
		l.logs = logsMax // the next chance is taken to write a whole one
		return l.fs.Rename(f.name, f.name+damagedSuffix)
	}
	if err == nil {
		l.bytes, l.logs = 0, 0
	}
	return err
}

// intact reports whether a snapshot can be read to its end.
func (l *Log) intact(f file) bool {
	_, err := l.read(f, new(Opened), func(Entry) error { return nil })
	return err == nil
}

// read calls load for the entries of one file and returns how many bytes they take. A snapshot that lacks its end is
// errTorn.
func (l *Log) read(f file, o *Opened, load func(Entry) error) (size int64, err error) {
	r, err := l.fs.Open(f.name)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	s, err := newScanner(io.NewSectionReader(r, 0, math.MaxInt64), l.pool)
	if err != nil {
		return 0, err
	}
	for count := 0; ; count++ {
		kind, payload, err := s.next()
		switch {
		case err == io.EOF && f.suffix == logSuffix:
			return s.size, nil
		case err == io.EOF:
			return s.size, errTorn
		case err != nil:
			return s.size, err
		case kind == kindEnd:
			return s.size, checkEnd(payload, count)
		}
		if err := load(Entry{kind, payload}); err != nil {
			return s.size, err
		}
		o.Entries++
		o.Bytes += int64(len(payload))
	}
}

// Append adds entries in order. With durable set it returns once they, and all that was appended before in this
// process, will survive a loss of power; otherwise they will soon after, or with the next durable append. After an
// error some of the entries, and of those appended before without durable, may be on disk and some not, whatever later
// calls say: they start anew in another file, and whoever cannot have these again from elsewhere writes a snapshot.
func (l *Log) Append(entries []Entry, durable bool) error {
	err := l.append(entries, durable)
	if err != nil {
		l.abandon()
		return fmt.Errorf("directory log: %w", err)
	}
	return nil
}

func (l *Log) append(entries []Entry, durable bool) error {
	l.buf = l.buf[:0]
	if l.file == nil && len(entries) > 0 {
		if err := l.start(); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if len(e.Payload) > EntryMax || e.Kind >= 0x80 {
			panic("disk: an entry that cannot be read again")
		}
		l.buf = appendFrame(l.buf, e.Kind, e.Payload)
	}
	if len(l.buf) > 0 {
		l.pending = true
		l.bytes += int64(len(l.buf))
		if _, err := l.file.Write(l.buf); err != nil {
			return err
		}
	}
	if cap(l.buf) > 4*writeBuffer {
		l.buf = nil
	}
	if durable {
		return l.sync()
	}
	return nil
}

// start begins a log of the next generation; its header goes out with the first entries.
func (l *Log) start() error {
	f, err := l.fs.Create(fileName(l.gen, logSuffix))
	if err != nil {
		return err
	}
	l.gen++
	l.logs++
	l.file, l.fresh = f, true
	l.buf = appendHeader(l.buf, l.pool)
	return nil
}

// sync makes the log durable: its bytes first, then its name.
func (l *Log) sync() error {
	if l.file == nil || !l.pending {
		return nil
	}
	if err := l.file.Sync(); err != nil {
		return err
	}
	if l.fresh {
		if err := l.fs.Sync(""); err != nil {
			return err
		}
	}
	l.pending, l.fresh = false, false
	return nil
}

// abandon gives up the file after an error: what a failed write or sync left in it is unknown, and a second sync that
// succeeds would prove nothing about the first.
func (l *Log) abandon() {
	if l.file != nil {
		_ = l.file.Close() // it failed already
	}
	l.file, l.pending, l.fresh = nil, false, false
}

// Wasteful reports whether a snapshot is worth writing when all entries that count take live bytes: then the files
// take less than twice that and some slack.
func (l *Log) Wasteful(live int64) bool { return l.bytes > live+slack || l.logs > logsMax }

// Rotate ends the present log, so that a snapshot of what the owner holds now makes it and all before it needless. It
// returns the snapshot's generation, for WriteSnapshot.
func (l *Log) Rotate() (gen uint64, err error) {
	err = l.sync()
	if l.file != nil {
		err = errors.Join(err, l.file.Close())
	}
	l.file, l.pending, l.fresh = nil, false, false
	l.bytes, l.logs = 0, 0
	gen = l.gen
	l.gen++
	if err != nil {
		return 0, fmt.Errorf("directory log: %w", err)
	}
	return gen, nil
}

// WriteSnapshot writes all that the owner held at Rotate, and removes the files that this makes needless. It may run
// beside the other methods. After an error the older files are all there still.
func (l *Log) WriteSnapshot(gen uint64, entries iter.Seq[Entry]) error {
	l.snapshot.Lock()
	defer l.snapshot.Unlock()
	if err := l.writeSnapshot(gen, entries); err != nil {
		return fmt.Errorf("directory snapshot: %w", err)
	}
	return nil
}

func (l *Log) writeSnapshot(gen uint64, entries iter.Seq[Entry]) error {
	name := fileName(gen, snapshotSuffix)
	f, err := l.fs.Create(name + tempSuffix)
	if err != nil {
		return err
	}
	err = writeAll(f, l.pool, entries)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, l.fs.Remove(name+tempSuffix))
	}
	if err := l.fs.Rename(name+tempSuffix, name); err != nil {
		return err
	}
	// The old files may go only once the new one's name cannot be lost any more.
	if err := l.fs.Sync(""); err != nil {
		return err
	}
	return l.removeBefore(gen)
}

// writeAll writes a snapshot's contents and syncs them.
func writeAll(f folder.File, pool [32]byte, entries iter.Seq[Entry]) error {
	buf := appendHeader(make([]byte, 0, writeBuffer+EntryMax), pool)
	count := 0
	for e := range entries {
		buf = appendFrame(buf, e.Kind, e.Payload)
		count++
		if len(buf) < writeBuffer {
			continue
		}
		if _, err := f.Write(buf); err != nil {
			return err
		}
		buf = buf[:0]
	}
	if _, err := f.Write(appendFrame(buf, kindEnd, endPayload(count))); err != nil {
		return err
	}
	return f.Sync()
}

func (l *Log) removeBefore(gen uint64) error {
	infos, err := l.fs.List("")
	if err != nil {
		return err
	}
	for _, info := range infos {
		if f, ok := parseName(info.Name); ok && f.gen < gen {
			err = errors.Join(err, l.fs.Remove(f.name))
		}
	}
	return err
}

// Close makes everything durable and ends the log. It waits for a snapshot that is being written.
func (l *Log) Close() error {
	err := l.sync()
	if l.file != nil {
		err = errors.Join(err, l.file.Close())
		l.file = nil
	}
	l.snapshot.Lock()
	defer l.snapshot.Unlock()
	if err != nil {
		return fmt.Errorf("directory log: %w", err)
	}
	return nil
}
