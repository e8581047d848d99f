package tree

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/tree/paths"
)

// Names keeps the records; *directory.Directory does. It must be safe for concurrent use and must not hold a lock
// while it calls a watcher.
type Names interface {
	// Write makes the changes in order, and returns once they will survive a loss of power. When it fails, or ctx ends
	// first, some may have been made.
	Write(ctx context.Context, changes ...directory.Change) error
	// Get returns the record of a key that has a value.
	Get(key string) (*directory.Record, bool)
	// Scan yields the records with a value whose keys begin with prefix, in order.
	Scan(prefix string) iter.Seq[*directory.Record]
	// Watch has fn called after each change of a key that begins with prefix, this peer's own included.
	Watch(prefix string, fn func(*directory.Record)) (cancel func())
}

// Bytes is what the tree needs of those who hold pieces. It must be safe for concurrent use.
type Bytes interface {
	// NewBatch begins to add files.
	NewBatch() Batch
	// Open reads a file from here or from other peers, whatever is at hand. ctx bounds all later reads too.
	Open(ctx context.Context, f piece.File) (Reader, error)
	// Safety says how safe a file with these pieces is, as of now and without asking others.
	Safety(pieces []piece.Piece, wanted int) Safety
	// Secure has the chosen peers make copies, and returns when each piece has ack durable ones, this peer's own
	// counted, or when no more can be had at present: then Secured says how many there are, and it is no error.
	Secure(ctx context.Context, pieces []piece.Piece, copies, ack int, progress func(done, total int)) (Secured, error)
}

// Batch is files on their way into the store of this peer. It is used by one goroutine at a time.
type Batch interface {
	// Add reads all of r and makes a file of it, which is not durable yet.
	Add(ctx context.Context, r io.Reader) (piece.File, error)
	// Commit returns once all that was added will survive a loss of power.
	Commit() error
	// Close lets go of what was added: what was not committed, or no version names, may be collected from then on.
	Close()
}

// Reader is an open file. ReadAt is safe for concurrent use.
type Reader interface {
	io.ReaderAt
	io.Closer
}

// Safety says how safe something is.
type Safety struct {
	Copies   int  // durable copies known of, of the piece with the fewest
	Wanted   int  // copies
	Online   int  // copies on peers that can be reached now, this one included
	Survives int  // how many peers may be lost at once, whichever they are, before something is
	Asleep   bool // some piece is on sleeping peers only
}

// Secured is what Secure reached.
type Secured struct {
	Copies int // durable ones, of the piece with the fewest
}

// Config is what a tree needs. Self, Names and Bytes must be set.
type Config struct {
	Self  peer.ID // whose records Names writes
	Name  string  // what this peer is called; it stands in the names of conflicts
	Names Names
	Bytes Bytes
	// Copies is how many are wanted of a file when nobody says. 0: three.
	Copies int
	// Now is the pool's time. nil: time.Now.
	Now func() time.Time
	// Trusted says whether Now can be relied on to delete what is 30 days old; a laptop that lost its clock's battery
	// must not. It is asked every hour. nil: always.
	Trusted func() bool
	Log     *slog.Logger // nil: silent
}

func (c *Config) complete() error {
	if c.Self == "" || c.Names == nil || c.Bytes == nil {
		return errors.New("tree: Self, Names and Bytes must be set")
	}
	if c.Copies == 0 {
		c.Copies = paths.CopiesDefault
	}
	c.Copies = min(max(c.Copies, 1), paths.CopiesMax)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Trusted == nil {
		c.Trusted = func() bool { return true }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
