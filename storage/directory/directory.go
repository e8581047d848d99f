// Package directory owns the pool's convergent names: a map of small signed records (key, value, hybrid time, author)
// that every member holds whole, can always write, and that becomes the same on all of them. It is the shell of package
// names: it keeps the records on disk, tells others of new ones by gossip, and catches up over /shoal/directory/1.
//
// The later record of a key wins, by the pool's time; deletions are remembered for thirty days. What was acknowledged
// survives a loss of power. The package refuses to know what the keys mean, and who is a member: it asks.
package directory

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/directory/disk"
	"github.com/shoal-os/shoal/storage/directory/names"
	"github.com/shoal-os/shoal/storage/folder"
)

// Protocol is the id of the streams by which two members catch up.
const Protocol protocol.ID = "/shoal/directory/1"

// Limits of what can be stored, in bytes.
const (
	KeyMax   = names.KeyMax
	ValueMax = names.ValueMax
)

// ErrClosed is what writing to a closed directory returns.
var ErrClosed = errors.New("directory: it is closed")

type (
	// Record says what a key holds; it is immutable, its Value included.
	Record = names.Record
	// Change is a wish to give a key a value, or to delete it.
	Change = names.Change
	// Digest stands for all that a directory holds.
	Digest = names.Digest
)

// Members says who may write. It must be safe for concurrent use, and must not call the directory.
type Members interface {
	// Wrote returns nil if what author signed at that time counts: it is or was a member that may write, and had not
	// been evicted by then; else the reason. A record whose author is not known yet is kept apart for a while, and asked for again.
	Wrote(author peer.ID, at time.Time) error
}

// Streams carries the protocol between members. Its streams must come from, and go to, members only.
type Streams interface {
	// Handle registers the one handler of a protocol.
	Handle(protocol.ID, network.StreamHandler)
	// NewStream opens a stream to a connected member.
	NewStream(context.Context, peer.ID, protocol.ID) (network.Stream, error)
}

// Presence says which members there is a connection to.
type Presence interface {
	// Connected returns those of this moment, without this peer.
	Connected() []peer.ID
	// OnConnected has f called, on any goroutine, for each member that is connected from now on, until stop is
	// called. f does not block.
	OnConnected(f func(peer.ID)) (stop func())
}

// News is the pool's news topic.
type News interface {
	// Publish sends up to 64 KiB to all members that are there.
	Publish(context.Context, []byte) error
	// Next waits for the next message of another member; from is its verified sender.
	Next(context.Context) (from peer.ID, data []byte, err error)
}

// Config is what a directory needs. All fields but Now and Boot must be set.
type Config struct {
	Dir      string // the folder of its files, its alone
	Self     ident.Identity
	Pool     [32]byte // the pool's id: records of another pool are refused
	Members  Members
	Streams  Streams
	Presence Presence
	News     News
	Now      func() time.Time     // this machine's clock; nil: time.Now
	Boot     func() time.Duration // a clock that counts sleep and never leaps; nil: Go's own, to which sleep looks like a leap
}

func (c *Config) check() error {
	switch {
	case c.Dir == "":
		return errors.New("no folder was given")
	case c.Self.Key == nil:
		return errors.New("no identity was given")
	case c.Members == nil || c.Streams == nil || c.Presence == nil || c.News == nil:
		return errors.New("a part of the pool is missing")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Boot == nil {
		start := time.Now()
		c.Boot = func() time.Duration { return time.Since(start) }
	}
	return nil
}

// Directory is one peer's copy of the pool's names. All methods are safe for concurrent use.
type Directory struct {
	cfg    Config
	log    *disk.Log
	opened disk.Opened
	clock  leaping

	mu      sync.RWMutex // guards replica; only the committer changes its set
	replica *names.Replica

	jobs     chan *job
	watchers watchers
	outbox   outbox
	contacts contacts
	waiting  waiting
	slots    chan struct{} // one for each session that another peer may have here

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	leave  func()
	once   sync.Once
	closed error
}

// Open opens or makes the directory in cfg.Dir and begins to keep it in step with the pool. Records that crashes or
// bad disks damaged are left out and fetched again from others; files of another pool are an error.
func Open(cfg Config) (*Directory, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	fs, err := folder.Dir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	return open(cfg, fs)
}

func open(cfg Config, fs folder.FS) (*Directory, error) {
	d := &Directory{
		cfg:     cfg,
		replica: names.NewReplica(cfg.Pool, cfg.Self.ID, cfg.Self.Key),
		jobs:    make(chan *job, jobsMax),
		slots:   make(chan struct{}, sessionsIn),
	}
	d.watchers.wake = make(chan struct{}, 1)
	d.clock.init(cfg.Now, cfg.Boot)
	d.outbox.wake = make(chan struct{}, 1)
	d.contacts.init(cfg.Self.ID, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	var err error
	if d.log, d.opened, err = disk.Open(fs, cfg.Pool, d.load); err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	for _, run := range []func(){d.commit, d.notify, d.publish, d.listen, d.keepInStep, d.keepClean} {
		d.wg.Go(run)
	}
	cfg.Streams.Handle(Protocol, d.serve)
	d.leave = cfg.Presence.OnConnected(d.contacts.connected)
	return d, nil
}

// The kinds of entries on disk.
const (
	entryRecord disk.Kind = 1 // an encoded record, to be that of its key whatever was before
	entryDrop   disk.Kind = 2 // a key whose record is gone
	entrySynced disk.Kind = 3 // 8 bytes, milliseconds since 1970: Replica.Synced
)

// load takes in what a file says.
func (d *Directory) load(e disk.Entry) error {
	switch e.Kind {
	case entryRecord:
		r, err := names.Decode(d.cfg.Pool, e.Payload)
		if err != nil {
			return err
		}
		d.replica.Apply(r)
	case entryDrop:
		d.replica.Set.Drop(string(e.Payload))
	case entrySynced:
		if len(e.Payload) != 8 {
			return fmt.Errorf("%d bytes of time", len(e.Payload))
		}
		d.replica.Synced = time.UnixMilli(int64(binary.BigEndian.Uint64(e.Payload)))
	default:
		return fmt.Errorf("an entry of the kind %d", e.Kind)
	}
	return nil
}

// Put gives key a value and returns once that will survive a loss of power. It then wins over everything that this
// peer had seen. value must not be changed afterwards.
func (d *Directory) Put(key string, value []byte) error {
	return d.Write(context.Background(), Change{Key: key, Value: value})
}

// Delete takes a key's value away, as durably as Put gives it. Deleting what is not there does nothing.
func (d *Directory) Delete(key string) error {
	return d.Write(context.Background(), Change{Key: key, Delete: true})
}

// Get returns the record of a key that has a value.
func (d *Directory) Get(key string) (*Record, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	r := d.replica.Set.Get(key)
	if r == nil || r.Deleted {
		return nil, false
	}
	return r, true
}

// scanPage is how many records Scan takes at once.
const scanPage = 256

// Scan yields the records that have a value and whose keys begin with prefix, in the order of their keys. It sees the
// directory as it is while it goes on; the loop's body may write to it.
func (d *Directory) Scan(prefix string) iter.Seq[*Record] {
	return func(yield func(*Record) bool) {
		for from, more := prefix, true; more; {
			var page []*Record
			page, from, more = d.page(prefix, from)
			for _, r := range page {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// page returns the next records of a scan and where the one after them begins.
func (d *Directory) page(prefix, from string) (page []*Record, next string, more bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	seen := 0
	for r := range d.replica.Set.Scan(prefix, from) {
		if seen == scanPage {
			return page, r.Key, true
		}
		seen++
		if !r.Deleted {
			page = append(page, r)
		}
	}
	return page, "", false
}

// Len is the number of keys that have a value.
func (d *Directory) Len() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.replica.Set.Live()
}

// Digest stands for all that is held, deletions included: members with the same digest hold the same.
func (d *Directory) Digest() Digest {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.replica.Set.Digest()
}

// Status describes a directory for people.
type Status struct {
	Live, Tombstones int
	Bytes            int64 // of all records
	Digest           Digest
	Offset           time.Duration // the pool's time minus this machine's, if they disagree
	Waiting          int           // records kept apart because their author may not write yet
	Synced           time.Time     // when it was last known to be in step with another member, to the hour; zero: never
	Met              time.Time     // when it last heard out another member, since it was opened: what that one held is here; zero: not yet
	Damaged          []string      // files that could not be read whole at opening
}

// Now is the pool's time: this machine's clock, or what most others say. When this machine's clock is set it goes on as it was,
// as long as others are there to say so.
func (d *Directory) Now() time.Time {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.replica.Clock.Now(d.clock.now())
}

// Status describes the directory as it is now.
func (d *Directory) Status() Status {
	d.mu.RLock()
	defer d.mu.RUnlock()
	set := d.replica.Set
	return Status{
		Live: set.Live(), Tombstones: set.Len() - set.Live(), Bytes: set.Bytes(), Digest: set.Digest(),
		Offset: d.replica.Clock.Offset(), Waiting: d.waiting.len(), Synced: d.replica.Synced, Met: d.contacts.lastMet(), Damaged: d.opened.Damaged,
	}
}

// Close ends all work and makes everything durable. Streams of others are refused from then on.
func (d *Directory) Close() error {
	d.once.Do(func() {
		for range newsLast {
			if !d.publishOne() { // what was written in this moment should not be known here alone
				break
			}
		}
		d.leave()
		d.cancel()
		d.wg.Wait()
		d.closed = d.log.Close()
	})
	return d.closed
}
