// Package piece owns what this peer holds of the pool's files: the pieces, which of them are durable, and the room
// they take.
//
// A piece is the unit of placement. A file of at most 1 MiB is one small piece: a raw leaf. A larger one is one large
// piece, the file's own UnixFS root, or, above 1 GiB, several: the subtrees of 1,024 leaves that its balanced tree
// consists of, and what is left, as a file of its own. Small pieces lie in packs (storage/block/pack); a large one is a file of its bytes beside them, and its
// one node, which names the leaves, lies in a pack too. A piece is held once both are on the disk itself.
//
// The package does not decide what to hold, and it never deletes what it was told to hold, except what Quarantine or
// Collect set aside, once Purge is due. It does not guard against a second process. See DESIGN.md.
package piece

import (
	"errors"
	"time"

	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	// SmallMax is the size in bytes of the largest small piece: one leaf.
	SmallMax = chunk.LeafSize
	// PieceMax is the size in bytes of the largest piece: the leaves of one node.
	PieceMax = chunk.LeafSize * chunk.LinksMax
	// FileMax is the size in bytes of the largest file that can be cut: no walk accepts a larger one.
	FileMax = chunk.LeafSize * int64(chunk.LeavesMax)

	// QuarantineTime is how long a piece that was set aside can be restored before it is purged.
	QuarantineTime = 24 * time.Hour
	// youth is how long a piece is safe from Collect after it came: its name may be on its way still.
	youth = time.Minute
)

// Piece is one piece of a file.
type Piece struct {
	ID   chunk.CID
	Size int64 // bytes of the file in it
}

// Small reports whether the piece is one raw leaf, which lies in a pack. All pieces of at most SmallMax bytes are.
func (p Piece) Small() bool { return p.ID.IsRaw() }

// File is a file that was cut.
type File struct {
	Root   chunk.CID // as chunk.FileDAG gives it
	Size   int64
	Pieces []Piece // in the order of their bytes; a piece that repeats is listed each time; none of an empty file
}

// Change is one piece that came to be held, or is held no longer.
type Change struct {
	Piece
	Added bool
}

// Usage says what the store's bytes are used for. All are bytes on disk but Pieces. What a piece costs beyond its
// bytes is counted where it lies.
type Usage struct {
	Quota       int64
	Held        int64 // of pieces that are held
	Cached      int64 // of what the cache keeps; goes when room is needed
	Quarantined int64 // of pieces set aside
	Damaged     int64 // of pieces found damaged, kept until they come again or nobody wants them
	Reserved    int64 // promised to what is being fetched or added, written or not
	Waste       int64 // in packs, of no use until they are compacted
	Free        int64 // what may still be added: within the quota and on the disk
	Pieces      int   // held
}

var (
	// ErrQuota is the error for what does not fit the quota.
	ErrQuota = errors.New("no room left in the space lent to the pool")
	// ErrNotFound is the error for a piece that is neither held nor cached.
	ErrNotFound = errors.New("not held here")
	// ErrDamaged is the error for bytes that are no longer what they were; the piece is held no more.
	ErrDamaged = errors.New("damaged on this disk")
	// ErrNotPiece is the error for what cannot be a piece: bytes of another name, or a tree of another shape.
	ErrNotPiece = errors.New("not a piece")
	// ErrClosed is the error of a batch or a store that is closed.
	ErrClosed = errors.New("closed")
)
