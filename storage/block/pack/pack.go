// Package pack owns append-only files of verified blocks. What was appended and synced is there after any crash; what
// was not may be; and nothing is ever given out that is not what its name says.
//
// Packs are numbered. A pack is only ever written by the process that made it, front to back: whoever opens the folder,
// or meets a write error, goes on in a new one, so nothing is overwritten and a torn end stays where the crash left it.
// A pack that is full gets an index beside it, from which it is opened next time without being read.
//
// The package does not know which frames are wanted: the owner does, and moves them before it removes a pack. It does
// not guard against a second process.
package pack

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/shoal-os/shoal/storage/folder"
)

const (
	packSuffix  = ".pack"
	indexSuffix = ".idx"
	tempSuffix  = ".tmp"

	writeBuffer = 256 << 10
	// framesMax is how many frames a pack may hold: their entries are in memory while it is written.
	framesMax = 1 << 16
	// sizeMax is where an offset ends.
	sizeMax = 1<<32 - 1
	// fileCost is what the end of a file's last block wastes, for a pack and its index.
	fileCost = 2 * 4096
)

// ErrLost is the error for frames that were appended before a write failed: they may be on disk or not.
var ErrLost = errors.New("a write to the packs failed meanwhile")

// Config says where the packs lie and how they are kept. Nothing has a default but Loose.
type Config struct {
	FS   folder.FS
	Dir  string // folder in FS
	Size int64  // bytes after which a pack is full, at most 1 GiB
	// Loose: nothing is synced, every append is written at once, and what was not full when the process ended is
	// dropped. For what can be had again.
	Loose bool
}

// Log is an open folder. It is safe for concurrent use.
type Log struct {
	cfg   Config
	bytes atomic.Int64 // on disk, of packs and indexes
	fails atomic.Uint64

	syncing sync.Mutex // held while a pack is synced or filled up; taken before mu
	mu      sync.Mutex
	next    uint32
	packs   map[uint32]sealed // those not written to
	active  *active
	done    uint64 // bytes appended in all
	synced  uint64 // of them durable

	handles handles
}

// sealed is a pack that is not written to.
type sealed struct {
	size   int64
	frames int // in its index
}

func (p sealed) cost() int64 { return p.size + int64(p.frames*entrySize) + fileCost }

// active is the pack that is written to.
type active struct {
	num     uint32
	file    folder.File
	size    int64 // with what is in buf
	buf     []byte
	entries []entry
	fresh   bool // its name is not durable yet
}

// Opened says what opening found.
type Opened struct {
	Frames int
	Read   int   // packs that had no index and were read
	Bad    int   // frames of them that are damaged
	Torn   int64 // bytes of them that are no frame
}

// Open reads the folder: load is called for each frame, oldest first.
func Open(cfg Config, load func(Frame, Loc)) (*Log, Opened, error) {
	l := &Log{cfg: cfg, next: 1, packs: map[uint32]sealed{}}
	l.handles.log = l
	o, err := l.open(load)
	if err != nil {
		l.handles.close()
		return nil, o, fmt.Errorf("packs: %w", err)
	}
	return l, o, nil
}

func (l *Log) name(num uint32, suffix string) string {
	return fmt.Sprintf("%s/%08x%s", l.cfg.Dir, num, suffix)
}

func parseName(name string) (num uint32, suffix string, ok bool) {
	for _, suffix := range []string{packSuffix, indexSuffix} {
		stem, found := strings.CutSuffix(name, suffix)
		n, err := strconv.ParseUint(stem, 16, 32)
		if found && err == nil && n > 0 && fmt.Sprintf("%08x%s", n, suffix) == name {
			return uint32(n), suffix, true
		}
	}
	return 0, "", false
}

func (l *Log) open(load func(Frame, Loc)) (o Opened, err error) {
	infos, err := l.cfg.FS.List(l.cfg.Dir)
	if err != nil {
		return o, err
	}
	sizes, indexes := map[uint32]int64{}, map[uint32]int64{}
	for _, f := range infos {
		switch num, suffix, ok := parseName(f.Name); {
		case strings.HasSuffix(f.Name, tempSuffix):
			err = errors.Join(err, l.cfg.FS.Remove(l.cfg.Dir+"/"+f.Name))
		case ok && suffix == packSuffix:
			sizes[num] = f.Size
			l.next = max(l.next, num+1)
		case ok:
			indexes[num] = f.Size
		}
	}
	for num := range indexes {
		if _, there := sizes[num]; !there {
			err = errors.Join(err, l.cfg.FS.Remove(l.name(num, indexSuffix)))
		}
	}
	nums := make([]uint32, 0, len(sizes))
	for num := range sizes {
		nums = append(nums, num)
	}
	slices.Sort(nums)
	for _, num := range nums {
		if err == nil {
			err = l.load(num, sizes[num], load, &o)
		}
	}
	return o, err
}

// load tells of one pack's frames. A pack without any is removed.
func (l *Log) load(num uint32, size int64, load func(Frame, Loc), o *Opened) error {
	entries, err := l.readIndex(num, size)
	if err != nil && l.cfg.Loose {
		return l.unlink(num)
	}
	if err != nil {
		if entries, err = l.rebuild(num, size, load, o); err != nil {
			return err
		}
	} else {
		for _, e := range entries {
			load(Frame{Head: e.Head, Off: e.off}, Loc{num, e.off})
		}
	}
	o.Frames += len(entries)
	if len(entries) == 0 {
		return l.unlink(num)
	}
	l.packs[num] = sealed{size, len(entries)}
	l.bytes.Add(l.packs[num].cost())
	return nil
}

// readIndex returns the frames that a pack's index names.
func (l *Log) readIndex(num uint32, size int64) ([]entry, error) {
	buf, err := folder.ReadFile(l.cfg.FS, l.name(num, indexSuffix), indexHead+entrySize*size/headSize+4)
	if err != nil {
		return nil, err
	}
	entries, err := decodeIndex(buf, size)
	if err != nil || len(entries) == 0 {
		return entries, err
	}
	// A crash can bring back the index of an earlier pack of the same number.
	for _, e := range []entry{entries[0], entries[len(entries)-1]} {
		if h, err := l.Head(Loc{num, e.off}); err != nil || h != e.Head {
			return nil, errors.Join(errIndex, err)
		}
	}
	return entries, nil
}

// rebuild reads a pack that has no index and makes one. What it finds may be with the operating system only, so it is
// synced before it counts.
func (l *Log) rebuild(num uint32, size int64, load func(Frame, Loc), o *Opened) (entries []entry, err error) {
	if err := errors.Join(l.cfg.FS.SyncFile(l.name(num, packSuffix)), l.cfg.FS.Sync(l.cfg.Dir)); err != nil {
		return nil, err
	}
	r, err := l.cfg.FS.Open(l.name(num, packSuffix))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	o.Read++
	rest := size
	scan(r, size, func(f Frame) {
		rest -= headSize + int64(f.Length)
		if f.Bad {
			o.Bad++
		}
		entries = append(entries, entry{f.Head, f.Off})
		load(f, Loc{num, f.Off})
	})
	o.Torn += rest
	if len(entries) == 0 {
		return nil, nil
	}
	return entries, l.writeIndex(num, size, entries)
}

func (l *Log) writeIndex(num uint32, size int64, entries []entry) error {
	name := l.name(num, indexSuffix)
	f, err := l.cfg.FS.Create(name + tempSuffix)
	if err != nil {
		return err
	}
	_, err = f.Write(encodeIndex(size, entries))
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, l.cfg.FS.Remove(name+tempSuffix))
	}
	return l.cfg.FS.Rename(name+tempSuffix, name)
}

func (l *Log) unlink(num uint32) error {
	err := l.cfg.FS.Remove(l.name(num, packSuffix))
	_ = l.cfg.FS.Remove(l.name(num, indexSuffix)) // or Open does, which finds it alone
	return err
}

// Bytes is what the packs take on disk, in bytes.
func (l *Log) Bytes() int64 { return l.bytes.Load() }
