package tasks

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/quorum"
	"github.com/shoal-os/shoal/storage/tree"
	"github.com/shoal-os/shoal/tasks/market"
)

// Members says who is in the pool; *pool.Pool is one.
type Members interface {
	// Members returns the members in force, this peer included.
	Members() []roster.Member
	// Member returns one peer's entry, and whether it is a member in force.
	Member(peer.ID) (roster.Member, bool)
	// OnConnected has f called each time a link to a member comes up, until stop is called. f does not block.
	OnConnected(f func(peer.ID)) (stop func())
}

// Streams carries the protocols between members; *pool.Pool is one.
type Streams interface {
	// Handle registers the one handler of a protocol. It sees streams of members only.
	Handle(protocol.ID, network.StreamHandler)
	// NewStream opens a stream to another member.
	NewStream(context.Context, peer.ID, protocol.ID) (network.Stream, error)
}

// Ads is the pool's topic of announcements, which CheckAd guards.
type Ads interface {
	// Publish sends to all members that are there.
	Publish(context.Context, []byte) error
	// Next waits for the next message of another member; from is its verified sender.
	Next(context.Context) (from peer.ID, data []byte, err error)
}

// Records is the pool's directory; *directory.Directory is one.
type Records interface {
	Write(context.Context, ...directory.Change) error
	Get(key string) (*directory.Record, bool)
	Scan(prefix string) iter.Seq[*directory.Record]
}

// Bytes is what the pool does with files: *repair.Repair is the most of it, *piece.Store has Get.
type Bytes interface {
	// NewBatch begins to add files to this peer's store.
	NewBatch() tree.Batch
	// Open reads a file from here or from other peers. ctx bounds all later reads too.
	Open(ctx context.Context, f piece.File) (tree.Reader, error)
	// Secure has the chosen peers make copies; see tree.Bytes.
	Secure(ctx context.Context, pieces []piece.Piece, copies, ack int, progress func(done, total int)) (tree.Secured, error)
	// Get returns a piece that is held here.
	Get(chunk.CID) (piece.Piece, bool)
}

// Keeper remembers which pieces jobs need; *keep.Keeper is one.
type Keeper interface {
	// Lists reports whether a record names a piece, and Want of what size it is.
	Lists(chunk.CID) bool
	Want(chunk.CID) tree.Want
	// Hold keeps pieces from collection on this peer until release is called, or d is over.
	Hold(d time.Duration, pieces ...chunk.CID) (release func())
}

// Config is what a peer's tasks need. Fields without a default must be set.
type Config struct {
	Dir     string // the folder of what is only for now (inputs, programs, output of guests), its alone; emptied by Open
	Self    ident.Identity
	Pool    ident.PoolID
	Members Members
	Streams Streams
	Ads     Ads
	Records Records
	Bytes   Bytes
	Keeper  Keeper
	// Quorum holds the groups of jobs. Open registers the kind KindJob with it. Its Config.Accept should be Accept of this package.
	Quorum *quorum.Engine
	// Runner runs guests: Over(pool). nil: this peer runs none.
	Runner Runner
	// Lends is what this peer lends now, as its owner set it (market.Allow); asked every two seconds and by Refresh. nil: nothing.
	Lends func() market.Lends
	// Uptime and Owner, when set, say how much of the time a member is there (0..100), and whose it is: for the choice of stewards.
	Uptime func(peer.ID) uint8
	Owner  func(peer.ID) string
	Boot   func() time.Duration // the boot-time clock, which counts sleep, as a runner's child reads it; nil: pool.BootTime
	Now    func() time.Time     // the time of day; nil: time.Now
	Log    *slog.Logger         // nil: nothing is logged
}

func (c *Config) check() error {
	switch {
	case c.Dir == "":
		return errors.New("no folder was given")
	case c.Self.Key == nil:
		return errors.New("no identity was given")
	case c.Members == nil || c.Streams == nil || c.Ads == nil || c.Records == nil:
		return errors.New("a part of the pool is missing")
	case c.Bytes == nil || c.Keeper == nil || c.Quorum == nil:
		return errors.New("a part of the peer is missing")
	}
	if c.Lends == nil {
		c.Lends = func() market.Lends { return market.Lends{Why: "this peer lends nothing"} }
	}
	if c.Uptime == nil {
		c.Uptime = func(peer.ID) uint8 { return 0 }
	}
	if c.Owner == nil {
		c.Owner = func(peer.ID) string { return "" }
	}
	if c.Boot == nil {
		c.Boot = pool.BootTime
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
