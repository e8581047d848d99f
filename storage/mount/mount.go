// Package mount is the WebDAV face (RFC 4918) of a pool's files: what lets every desktop open them as a folder. It owns
// HTTP: paths, conditions, locks, properties, statuses, and the door in front of them (see [Guard]). It refuses to know
// how files are kept: all that it does to them goes through an [FS], and nothing is answered before the FS has done it.
package mount

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// FS is a tree of files and folders. Paths are absolute and clean, with slashes: "/", "/a", "/a/b". It must be safe for
// concurrent use. Its errors are the ones below and fs.ErrNotExist and fs.ErrExist of io/fs, wrapped as it likes.
type FS interface {
	Reader
	Writer
	Mover
	Sizer
}

// Reader gives what is there.
type Reader interface {
	// Stat describes one file or folder. "/" is always there.
	Stat(ctx context.Context, path string) (Info, error)
	// List describes what a folder holds, sorted by name; ErrNotFolder for a file.
	List(ctx context.Context, path string) ([]Info, error)
	// Open opens a file; ErrIsFolder for a folder. The File outlives what happens to the path, and reads with ctx.
	Open(ctx context.Context, path string) (File, error)
}

// File is one state of a file's bytes, however the path changes meanwhile.
type File interface {
	io.ReaderAt
	io.Closer
	Info() Info
}

// Writer changes what is there. A change is durable when the call returns. One of a file is whole or not at all; a crash
// in the middle of one of a folder may leave some of it done.
type Writer interface {
	// Put makes body, read to its end, the bytes of a file, in place of those it had. If body fails, nothing changes. The
	// folder must be there (fs.ErrNotExist); ErrIsFolder if the path is one.
	Put(ctx context.Context, path string, body io.Reader, modTime time.Time) (Info, error)
	// Mkdir makes an empty folder in one that is there (fs.ErrNotExist); fs.ErrExist if there is something.
	Mkdir(ctx context.Context, path string) error
	// Remove removes a file, or a folder with all that it holds; fs.ErrNotExist if there is nothing.
	Remove(ctx context.Context, path string) error
}

// Mover changes names and times without reading a byte. What a Writer's changes are these are too; a crash in the middle
// of a move may leave things at both paths, never at neither.
type Mover interface {
	// Move gives a file, or a folder with all that it holds, another path. What is at to is replaced with all that it
	// holds, or if !overwrite it is fs.ErrExist. Neither path lies in the other.
	Move(ctx context.Context, from, to string, overwrite bool) error
	// Copy is Move that leaves from as it is. Of a folder, if !deep, it makes only an empty one.
	Copy(ctx context.Context, from, to string, overwrite, deep bool) error
	// SetModTime changes a modification time, at least to the second; of a folder it may be ErrIsFolder.
	SetModTime(ctx context.Context, path string, t time.Time) error
}

// Sizer tells how much space there is.
type Sizer interface {
	Space(ctx context.Context) (Space, error)
}

// Space is in bytes, as somebody who puts files sees it.
type Space struct{ Free, Used int64 }

// Info describes a file or folder.
type Info struct {
	Name    string // the last element of its path; "" for "/"
	Folder  bool
	Size    int64     // bytes; 0 for a folder
	ModTime time.Time // zero if there is none
	// Tag stands for a file's bytes: it is another one for other bytes. A root's CID is. Visible ASCII without '"'.
	Tag string
}

// What an FS can fail with, beside fs.ErrNotExist and fs.ErrExist.
var (
	ErrIsFolder  = errors.New("it is a folder")
	ErrNotFolder = errors.New("it is not a folder")
	ErrSpace     = errors.New("there is not enough space")
	ErrName      = errors.New("the name cannot be used on every system")
	ErrClash     = errors.New("another name differs only in upper and lower case")
	ErrAway      = errors.New("no peer that has the bytes can be reached now")
	ErrReadOnly  = errors.New("it cannot be written here")
)

// Options of a face; the zero value is one that can be written, at the root of its server.
type Options struct {
	// Prefix is the path that stands for "/", such as "/dav". "" is "/".
	Prefix string
	// ReadOnly refuses whatever would change something.
	ReadOnly bool
	// PropsFile keeps the properties that clients invent (dead properties) over restarts. "" keeps them in memory.
	PropsFile string
	// Now is the time of day, for files that come without a time of their own. nil is time.Now.
	Now func() time.Time
	// Log gets what failed for reasons that are not the client's. nil is nowhere.
	Log *slog.Logger
}

// Handler returns the WebDAV face of files. It answers whoever asks: put a [Guard] in front of it.
func Handler(files FS, opt Options) http.Handler {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	opt.Prefix = strings.TrimRight(opt.Prefix, "/")
	return &face{
		files: files, opt: opt, born: time.Now(), props: openProps(opt.PropsFile, opt.Log), locks: newLockTable(),
		slots: make(chan struct{}, requestsMax),
	}
}
