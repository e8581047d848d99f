package piece

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/folder"
)

// Marks are what a pack cannot say of a piece: that it is set aside, and why; that it is pinned. They are lines of
// text, each with a CRC-32C of itself, in files that are only appended to:
//
//	aside REASON SECONDS CID CRC
//	back CID CRC
//	pin CID NAME CRC
//	unpin CID NAME CRC
//
// A process begins a file of its own with all that holds, and removes the older ones. The files are read in order, so
// what a crash left of two is worth no less than the older.
const (
	marksDir = "marks"
	lineMax  = 2 << 10
	// marksSlack is how many bytes of lines are always allowed before they are worth a new file.
	marksSlack = 64 << 10

	// pinNameMax is the length in bytes of the longest name of a pin.
	pinNameMax = 256
)

// reason is why a piece is set aside.
type reason string

const (
	collected reason = "collected" // nothing named it
	trimmed   reason = "trimmed"   // others have it
	damaged   reason = "damaged"
)

// aside says why a piece is not held, and since when, in Unix seconds.
type aside struct {
	why   reason
	since int64
}

// marks is the file of marks. Lines are added under the store's lock, in the order in which they hold, and written by
// whoever syncs next.
type marks struct {
	fs    folder.FS
	state func() []byte // all lines that hold

	adding sync.Mutex // guards buf and added
	buf    []byte
	added  uint64

	mu     sync.Mutex // held while the file is written; taken before adding
	file   folder.File
	gen    uint64
	size   atomic.Int64 // of all files
	fresh  int64        // of what it began with
	synced uint64
	stale  []string // files that are there, the one that is written to last
}

func line(format string, args ...any) []byte {
	b := fmt.Appendf(nil, format+" ", args...)
	return fmt.Appendf(b, "%08x\n", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// parseLine returns the fields of a whole line without its end; nil if it is damaged.
func parseLine(b []byte) []string {
	if len(b) < 10 || len(b) > lineMax {
		return nil
	}
	body, sum := b[:len(b)-8], string(b[len(b)-8:])
	if fmt.Sprintf("%08x", crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))) != sum {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(body), " "), " ")
}

func asideLine(id chunk.CID, a aside) []byte {
	return line("aside %s %d %s", a.why, a.since, id)
}

func pinLine(verb string, id chunk.CID, name string) []byte {
	return line("%s %s %s", verb, id, strconv.QuoteToASCII(name))
}

// readMarks reads all files into the store's maps and returns them, and how many lines were no good.
func (s *Store) readMarks() (files []folder.Info, bad int, err error) {
	files, err = s.fs.List(marksDir)
	if err != nil {
		return nil, 0, err
	}
	slices.SortFunc(files, func(a, b folder.Info) int { return strings.Compare(a.Name, b.Name) }) // fixed width: by age
	for _, f := range files {
		name := marksDir + "/" + f.Name
		// The process that wrote it may have been killed: what is believed now must be true after a loss of power, too.
		if err := s.fs.SyncFile(name); err != nil {
			return nil, 0, err
		}
		data, err := folder.ReadFile(s.fs, name, math.MaxInt64)
		if err != nil {
			return nil, 0, err
		}
		for l := range bytes.Lines(data) {
			if !bytes.HasSuffix(l, []byte("\n")) || !s.readMark(parseLine(l[:len(l)-1])) {
				bad++
			}
		}
	}
	if len(files) > 0 {
		err = s.fs.Sync(marksDir)
	}
	return files, bad, err
}

func (s *Store) readMark(f []string) bool {
	if len(f) < 2 {
		return false
	}
	at := 1
	if f[0] == "aside" {
		at = 3
	}
	if len(f) <= at {
		return false
	}
	id, err := chunk.ParseCID(f[at])
	if err != nil {
		return false
	}
	switch {
	case f[0] == "aside" && len(f) == 4:
		since, err := strconv.ParseInt(f[2], 10, 64)
		s.aside[id] = aside{reason(f[1]), since}
		return err == nil
	case f[0] == "back" && len(f) == 2:
		delete(s.aside, id)
		return true
	case f[0] == "pin" || f[0] == "unpin":
		name, err := strconv.Unquote(strings.Join(f[2:], " "))
		s.setPin(id, name, f[0] == "pin")
		return err == nil
	}
	return false
}

// allMarks gives the lines of all that holds. The caller holds mu, or is alone.
func (s *Store) allMarks() []byte {
	var b []byte
	for _, all := range []map[chunk.CID]aside{s.aside, s.leaving} {
		for id, a := range all {
			b = append(b, asideLine(id, a)...)
		}
	}
	for id, names := range s.pins {
		for _, n := range names {
			b = append(b, pinLine("pin", id, n)...)
		}
	}
	return b
}

// add queues lines. The caller holds the store's lock.
func (m *marks) add(lines []byte) {
	m.adding.Lock()
	defer m.adding.Unlock()
	m.buf = append(m.buf, lines...)
	m.added += uint64(len(lines))
}

// sync returns once all lines added before are durable. After an error the next call writes all that holds into a new
// file.
func (m *marks) sync() error {
	m.adding.Lock()
	want := m.added
	m.adding.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.synced >= want {
		return nil
	}
	if m.file == nil || m.size.Load() > 2*m.fresh+marksSlack {
		return m.begin()
	}
	m.adding.Lock()
	data, upTo := m.buf, m.added
	m.buf = nil
	m.adding.Unlock()
	_, err := m.file.Write(data)
	if err = errors.Join(err, m.file.Sync()); err != nil {
		_ = m.file.Close() // it failed already
		m.file = nil
		return fmt.Errorf("piece: marks: %w", err)
	}
	m.size.Add(int64(len(data)))
	m.synced = upTo
	return nil
}

// begin writes a new file of all that holds and removes the older ones. Nothing is durable before they are gone.
func (m *marks) begin() error {
	m.adding.Lock()
	upTo := m.added
	m.buf = nil
	m.adding.Unlock()
	// What is added from here on comes into the state, the buffer or both: a line may be written twice.
	data := m.state()
	if m.file != nil {
		_ = m.file.Close() // synced already
	}
	m.gen++
	name := fmt.Sprintf("%s/%016x", marksDir, m.gen)
	f, err := m.fs.Create(name)
	if err != nil {
		m.file = nil
		return fmt.Errorf("piece: marks: %w", err)
	}
	m.file = f
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync()); err == nil {
		err = m.fs.Sync(marksDir)
	}
	if err != nil {
		_ = f.Close()
		m.file, m.stale = nil, append(m.stale, name)
		return fmt.Errorf("piece: marks: %w", err)
	}
	m.stale = append(m.stale, name)
	if err := m.removeOld(); err != nil {
		_ = f.Close()
		m.file = nil
		return fmt.Errorf("piece: marks: %w", err)
	}
	m.fresh, m.synced = int64(len(data)), upTo
	m.size.Store(m.fresh)
	return nil
}

// removeOld removes all files but the last, for good: the last one says only what holds, so what an older one says and was
// taken back since would hold again if a loss of power brought that back.
func (m *marks) removeOld() error {
	last := len(m.stale) - 1
	if last == 0 {
		return nil
	}
	for _, old := range m.stale[:last] {
		if err := m.fs.Remove(old); err != nil && !isGone(err) {
			return err
		}
	}
	if err := m.fs.Sync(marksDir); err != nil {
		return err
	}
	m.stale = append(m.stale[:0], m.stale[last])
	return nil
}

func (m *marks) close() error {
	err := m.sync()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file != nil {
		err = errors.Join(err, m.file.Close())
		m.file = nil
	}
	return err
}
