package repair

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/tree"
)

const (
	// RateDefault bounds what this peer fetches from beyond its network to mend shortfalls, in bytes a second.
	RateDefault = 8 << 20
	// ScrubDefault is how long it takes to read everything again that this peer holds.
	ScrubDefault = 30 * 24 * time.Hour
	// AuditDefault is how often this peer examines another: about 300 times a day, which finds the loss of one piece in
	// a hundred within a day with 95 per cent.
	AuditDefault = 288 * time.Second
	// CollectDefault is how often what no name needs any more is looked for.
	CollectDefault = time.Hour
	// LowBattery is the charge in per cent below which this peer neither mends nor reads everything again.
	LowBattery = 30
)

// Streams carries the protocol between members. Its streams come from, and go to, members only; *pool.Pool is one.
type Streams interface {
	// Handle registers the one handler of a protocol.
	Handle(protocol.ID, network.StreamHandler)
	// NewStream opens a stream to a member.
	NewStream(context.Context, peer.ID, protocol.ID) (network.Stream, error)
	// NewBulkStream is NewStream for many bytes.
	NewBulkStream(context.Context, peer.ID, protocol.ID) (network.Stream, error)
}

// Members says who is in the pool; *pool.Pool is one.
type Members interface {
	// Members returns the members in force, this peer included.
	Members() []roster.Member
	// Watch has f called when one came, went, or changed its state. f does not block.
	Watch(f func(roster.Change)) (stop func())
}

// Records is the pool's directory; *directory.Directory is one.
type Records interface {
	Put(key string, value []byte) error
	Scan(prefix string) iter.Seq[*directory.Record]
	Watch(prefix string, f func(*directory.Record)) (stop func())
}

// Names says which pieces are wanted; *tree.Tree is one. Its methods are safe for concurrent use.
type Names interface {
	// Wants yields each piece that some name needs.
	Wants() iter.Seq[tree.Want]
	// WatchWants has f called, in order and from one goroutine, with what came to be wanted, is wanted differently, or is
	// not wanted any more (Copies is 0).
	WatchWants(f func([]tree.Want)) (stop func())
	// Live returns a test whether some name needs a piece.
	Live() func(chunk.CID) bool
}

// PieceReader reads one large piece.
type PieceReader interface {
	io.ReaderAt
	io.Closer
}

// Fetch moves large pieces; Swarm makes one of a Storage.
type Fetch interface {
	// TakePiece fetches a piece from members into the piece store; it is on the disk when it returns.
	TakePiece(ctx context.Context, p piece.Piece, from []peer.ID, progress func(bytes int64)) error
	// TakePieceNow is TakePiece without the bound of SetRepairRate.
	TakePieceNow(ctx context.Context, p piece.Piece, from []peer.ID, progress func(bytes int64)) error
	// SetRepairRate bounds the bytes a second that TakePiece fetches in all; 0: no bound.
	SetRepairRate(bytesPerSecond int64)
	// OpenPiece opens a piece that is held, or is fetched as it is read.
	OpenPiece(ctx context.Context, p piece.Piece, from []peer.ID) (PieceReader, error)
}

// Offer is what this peer lends.
type Offer struct {
	Space       uint64 // bytes that it holds for the pool at most; 0: it is chosen for nothing
	Owner, Site string // whom it belongs to and where it stands; "": counts as its own
	Anchor      bool   // it is meant to be always on
}

// Timings are the planner's, the zero value of each its default. Tests and benches set them to seconds.
type Timings struct {
	Patience time.Duration // how long a member may be away before its copies are made anew; 0: 72 h
	Urgent   time.Duration // the same when only one copy can be reached; 0: 15 min
	Grace    time.Duration // after this machine woke up or started, nothing is mended; 0: 10 min; negative: none
	Jitter   time.Duration // by how much repairs are spread; 0: 30 min, at most a quarter of Patience
	Lease    time.Duration // how long a fetch that says nothing keeps others off; 0: 10 min
}

// Config is what repair needs.
type Config struct {
	Self    peer.ID
	Dir     string   // the folder of its files, its alone
	Pool    [32]byte // the pool's id: the files of another pool are refused
	Pieces  *piece.Store
	Fetch   Fetch
	Members Members
	Streams Streams
	Records Records

	// InStep reports whether this peer has lately compared its names with another member's, or is alone: before that
	// nothing is taken for needless. nil: always.
	InStep func() bool
	Lends  func() Offer                 // asked now and then; nil: nothing is lent
	Power  func() (roster.Power, uint8) // what this machine runs on, and the charge in per cent; nil: mains
	Near   func(peer.ID) bool           // whether a member is on this network, or this machine; nil: none is
	Now    func() time.Time             // the time of day; nil: time.Now
	Boot   func() time.Duration         // a clock that counts sleep and never leaps; nil: Go's own
	Log    *slog.Logger                 // nil: nothing is logged

	Timings Timings
	Rate    int64 // RateDefault if 0; negative: no bound
	// Reserve is how many bytes are kept free for what is written; see placement.Config. 0: a twentieth of the space.
	Reserve uint64
	Scrub   time.Duration // ScrubDefault if 0; negative: never
	Audit   time.Duration // AuditDefault if 0; negative: never
	Collect time.Duration // CollectDefault if 0; negative: only when asked
}

func (c *Config) check() error {
	switch {
	case c.Dir == "" || c.Self == "":
		return errors.New("no folder or no identity was given")
	case c.Pieces == nil || c.Fetch == nil || c.Members == nil || c.Streams == nil || c.Records == nil:
		return errors.New("a part of the peer is missing")
	}
	c.fill()
	return nil
}

// fill puts defaults where nothing was given.
func (c *Config) fill() {
	if c.InStep == nil {
		c.InStep = func() bool { return true }
	}
	if c.Lends == nil {
		c.Lends = func() Offer { return Offer{} }
	}
	if c.Power == nil {
		c.Power = func() (roster.Power, uint8) { return roster.PowerMains, 0 }
	}
	if c.Near == nil {
		c.Near = func(peer.ID) bool { return false }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Boot == nil {
		start := time.Now()
		c.Boot = func() time.Duration { return time.Since(start) }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Rate == 0 {
		c.Rate = RateDefault
	}
	for _, d := range []struct {
		is        *time.Duration
		otherwise time.Duration
	}{{&c.Scrub, ScrubDefault}, {&c.Audit, AuditDefault}, {&c.Collect, CollectDefault}} {
		if *d.is == 0 {
			*d.is = d.otherwise
		}
	}
}
