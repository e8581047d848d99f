package paths

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory/names"
)

const (
	// SmallMax is the size up to which a file is one leaf, which is its root.
	SmallMax = 1 << 20
	// PieceMax is the size of every piece of a larger file but the last.
	PieceMax = 1 << 30
	// PiecesMax is how many pieces a file may have, so that their names fit into a record: files of up to 896 GiB.
	PiecesMax = 896
	// ReplacesMax is how many versions one can replace.
	ReplacesMax = 256
	// CopiesMax is the most copies that can be wanted.
	CopiesMax = 64
	// CopiesDefault is what a version wants that does not say.
	CopiesDefault = 3
)

// ID names one version of a path. It is a hash that the author cannot choose, so nobody can put something else in a
// version's place.
type ID [8]byte

// String gives 16 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Defined reports whether id names anything.
func (id ID) Defined() bool { return id != ID{} }

// ParseID reads what String wrote.
func ParseID(s string) (id ID, err error) {
	if len(s) != hex.EncodedLen(len(id)) || strings.ToLower(s) != s {
		return id, fmt.Errorf("version %.40q: it has %d hexadecimal digits", s, hex.EncodedLen(len(id)))
	}
	if _, err = hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("version %q: %w", s, err)
	}
	return id, nil
}

// Kind is what a version says that its path is. The numbers are in records: they are append-only.
type Kind uint8

// The kinds.
const (
	File    Kind = 1
	Folder  Kind = 2
	Removed Kind = 3
)

// String names the kind.
func (k Kind) String() string {
	switch k {
	case File:
		return "file"
	case Folder:
		return "folder"
	case Removed:
		return "removed"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Author is who wrote a version. One Author is shared by many versions and never changed.
type Author struct {
	Peer peer.ID
	Name string // what the author calls itself; for people only
}

// Version is what was said about one path at one time.
type Version struct {
	ID     ID
	Kind   Kind
	Copies uint8     // wanted; at least 1
	Mode   uint32    // permission bits
	Time   names.HLC // when it was written, by the pool's time
	MTime  int64     // of the contents, nanoseconds since 1970
	Author *Author

	// Of files only.
	Root   chunk.CID
	Size   int64
	Pieces []chunk.CID // of a file of more than PieceMax

	Replaces []ID   // the latest first
	Batch    uint64 // of a removal: what was removed at once has the same
}

// Piece is a unit of placement that a version names.
type Piece struct {
	ID   chunk.CID
	Size int64
}

// Check tells what is wrong with a version of somebody else, nil if nothing: its numbers must be within limits, and its
// size and pieces must fit each other, so that nobody is made to plan for an exabyte by a record.
func (v *Version) Check() error {
	switch {
	case v.Author == nil:
		return errors.New("it has no author")
	case len(v.Replaces) > ReplacesMax:
		return fmt.Errorf("it replaces %d versions, the limit is %d", len(v.Replaces), ReplacesMax)
	case v.Mode > 0o777:
		return fmt.Errorf("mode %#o", v.Mode)
	case v.Copies < 1 || v.Copies > CopiesMax:
		return fmt.Errorf("%d copies, the limit is %d", v.Copies, CopiesMax)
	}
	switch v.Kind {
	case File:
		return v.checkFile()
	case Folder, Removed:
		if v.Root.Defined() || v.Size != 0 || len(v.Pieces) > 0 {
			return fmt.Errorf("a %v with contents", v.Kind)
		}
		return nil
	}
	return fmt.Errorf("%v is not known", v.Kind)
}

func (v *Version) checkFile() error {
	switch {
	case !v.Root.Defined():
		return errors.New("a file without a root")
	case v.Size < 0 || v.Size > PiecesMax*PieceMax:
		return fmt.Errorf("a file of %d bytes", v.Size)
	case v.Root.IsRaw() != (v.Size <= SmallMax):
		return fmt.Errorf("a file of %d bytes whose root is %v", v.Size, v.Root.Codec)
	case v.Size <= PieceMax:
		if len(v.Pieces) > 0 {
			return fmt.Errorf("a file of %d bytes in %d pieces", v.Size, len(v.Pieces))
		}
		return nil
	case int64(len(v.Pieces)) != (v.Size+PieceMax-1)/PieceMax:
		return fmt.Errorf("a file of %d bytes in %d pieces", v.Size, len(v.Pieces))
	}
	for i, id := range v.Pieces {
		if small := v.pieceSize(i) <= SmallMax; id.IsRaw() != small || !id.Defined() {
			return fmt.Errorf("piece %d is %v", i, id.Codec)
		}
	}
	return nil
}

// pieceSize is the size of the i-th of several pieces.
func (v *Version) pieceSize(i int) int64 {
	return min(PieceMax, v.Size-int64(i)*PieceMax)
}

// EachPiece yields the file's pieces in order. An empty file has none, a file of up to PieceMax is its own.
func (v *Version) EachPiece() iter.Seq[Piece] {
	return func(yield func(Piece) bool) {
		if v.Kind != File || v.Size == 0 {
			return
		}
		if len(v.Pieces) == 0 {
			yield(Piece{v.Root, v.Size})
			return
		}
		for i, id := range v.Pieces {
			if !yield(Piece{id, v.pieceSize(i)}) {
				return
			}
		}
	}
}

// PieceCount is how many pieces EachPiece yields.
func (v *Version) PieceCount() int {
	switch {
	case v.Kind != File || v.Size == 0:
		return 0
	case len(v.Pieces) == 0:
		return 1
	}
	return len(v.Pieces)
}

// Same reports whether two versions say the same of their path, so that it does not matter which one is shown: folders,
// removals, and files with the same bytes.
func (v *Version) Same(w *Version) bool {
	return v.Kind == w.Kind && v.Root == w.Root && v.Size == w.Size
}

// Compare orders versions by time, then author, then id: a strict total order of the versions of a path. It returns 1
// if v is the later.
func (v *Version) Compare(w *Version) int {
	return cmp.Or(
		cmp.Compare(v.Time, w.Time),
		cmp.Compare(v.Author.Peer, w.Author.Peer),
		strings.Compare(string(v.ID[:]), string(w.ID[:])),
	)
}
