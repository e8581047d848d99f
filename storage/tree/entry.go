package tree

import (
	"io/fs"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/tree/paths"
)

// Kind is what an entry is: a file, a folder, or, in a history, a removal.
type Kind = paths.Kind

// The kinds.
const (
	File    = paths.File
	Folder  = paths.Folder
	Removed = paths.Removed
)

// ID names one version of a path.
type ID = paths.ID

// ParseID reads what ID.String wrote.
func ParseID(s string) (ID, error) { return paths.ParseID(s) }

// Entry is a file or a folder, or one version of either. Names in it come from other peers: they have no control
// characters and no slashes, but may be any other text.
type Entry struct {
	Path       string // absolute
	Name       string // the last element of Path, "" of the root
	Kind       Kind
	File       piece.File  // of a file; its Pieces must not be changed
	Mode       fs.FileMode // permissions, and fs.ModeDir
	ModTime    time.Time   // of the contents, as their writer said; of a folder that has no record of its own, zero
	Time       time.Time   // when the version was written, by the pool's time, to the millisecond
	Author     peer.ID     // who wrote the version: proved by its signature
	AuthorName string      // what the author calls itself: proved by nothing
	Version    ID          // not Defined for a folder that is there only because something is in it
	Copies     int         // wanted
	Conflict   bool        // it stands beside the path Of, which shows something else
	Of         string
	Children   int // of a folder: how many entries are in it
}

// IsFolder reports whether the entry is a folder.
func (e *Entry) IsFolder() bool { return e.Kind == Folder }

// Size is the bytes of a file; 0 for all else.
func (e *Entry) Size() int64 { return e.File.Size }

// The modes of what says none.
const (
	fileMode   = 0o644
	folderMode = 0o755
)

// entry makes an Entry of an item. Pieces are appended to pool, so that a long listing needs one allocation for all;
// nil is allowed.
func entry(i *paths.Item, pool *[]piece.Piece) Entry {
	e := version(i.Path, &i.Head, pool)
	e.Kind, e.Name, e.Children = i.Kind, i.Name, i.Inside
	e.Conflict, e.Of = i.Conflict(), i.Of
	if i.Kind == Folder {
		e.Mode |= fs.ModeDir
		if !i.Head.ID.Defined() {
			e.Mode = fs.ModeDir | folderMode
		}
	}
	return e
}

// version makes an Entry of one version.
func version(path string, v *paths.Version, pool *[]piece.Piece) Entry {
	_, name := paths.Split(path)
	e := Entry{Path: path, Name: name, Kind: v.Kind}
	if !v.ID.Defined() {
		return e
	}
	e.Mode = fs.FileMode(v.Mode)
	e.ModTime, e.Time = time.Unix(0, v.MTime), v.Time.Time()
	e.Author, e.AuthorName, e.Version = v.Author.Peer, v.Author.Name, v.ID
	e.Copies = int(v.Copies)
	if v.Kind == Folder {
		e.Mode |= fs.ModeDir
	}
	if v.Kind == File {
		e.File = fileOf(v, pool)
	}
	return e
}

func fileOf(v *paths.Version, pool *[]piece.Piece) piece.File {
	if pool == nil {
		pool = new([]piece.Piece)
	}
	from := len(*pool)
	for p := range v.EachPiece() {
		*pool = append(*pool, piece.Piece{ID: p.ID, Size: p.Size})
	}
	to := len(*pool)
	return piece.File{Root: v.Root, Size: v.Size, Pieces: (*pool)[from:to:to]}
}
