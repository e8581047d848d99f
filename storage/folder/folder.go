// Package folder owns what the packs, the pieces, the directory's files and the quorum's log need of a file system: a
// folder of files that are each written once, front to back, so that tests can let one fail or lose its power at any
// step. What is in the files, and what must be synced before what, is for those who write them. It does not guard
// against a second process.
package folder

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// FS is a folder. Names are relative and slash-separated; the folders in it are made by whoever made the FS, and "" is
// itself. A file that is not there is fs.ErrNotExist. It is safe for concurrent use, but a file has one writer.
type FS interface {
	// List returns the regular files of a folder.
	List(dir string) ([]Info, error)
	// Open opens a file for reading; the caller closes it.
	Open(name string) (Reader, error)
	// Create makes an empty file, or empties the one that is there, for writing from its start to its end.
	Create(name string) (File, error)
	// Rename replaces to by from, at once or not at all.
	Rename(from, to string) error
	Remove(name string) error
	// Sync returns once names made, renamed and removed in a folder before will survive a loss of power.
	Sync(dir string) error
	// SyncFile returns once the bytes of a file will.
	SyncFile(name string) error
}

// Info is one file.
type Info struct {
	Name string // without its folder
	Size int64
}

// Reader is a file that is open for reading.
type Reader interface {
	io.ReaderAt
	io.Closer
	Size() (int64, error)
}

// File is a file that is written from its start to its end.
type File interface {
	io.WriteCloser
	// Skip is a write of n zeros that may take no room.
	Skip(n int64) error
	// Sync returns once all that was written will survive a loss of power.
	Sync() error
}

// ReadFile returns what a file holds, or its first most bytes if it is longer.
func ReadFile(fs FS, name string, most int64) ([]byte, error) {
	r, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	size, err := r.Size()
	if err != nil {
		return nil, err
	}
	buf := make([]byte, min(size, most))
	if n, err := r.ReadAt(buf, 0); n < len(buf) {
		return nil, err
	}
	return buf, nil
}

// Dir returns the file system's folder at path with the given folders in it, making (0700) what is not there.
func Dir(path string, dirs ...string) (FS, error) {
	for _, d := range append(dirs, "") {
		if err := os.MkdirAll(filepath.Join(path, d), 0o700); err != nil {
			return nil, err
		}
	}
	f := onDisk(path)
	return wrap(f), f.Sync("")
}

type onDisk string

func (d onDisk) path(name string) string { return filepath.Join(string(d), filepath.FromSlash(name)) }

func (d onDisk) List(dir string) ([]Info, error) {
	entries, err := os.ReadDir(d.path(dir))
	out := make([]Info, 0, len(entries))
	for _, e := range entries {
		fi, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		if fi.Mode().IsRegular() {
			out = append(out, Info{e.Name(), fi.Size()})
		}
	}
	return out, err
}

func (d onDisk) Open(name string) (Reader, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	return reader{f}, nil
}

type reader struct{ *os.File }

func (r reader) Size() (int64, error) {
	fi, err := r.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func (d onDisk) Create(name string) (File, error) {
	f, err := os.OpenFile(d.path(name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &file{File: f}, nil
}

type file struct {
	*os.File
	at int64
}

func (f *file) Write(p []byte) (int, error) {
	n, err := f.File.WriteAt(p, f.at)
	f.at += int64(n)
	return n, err
}

func (f *file) Skip(n int64) error {
	f.at += n
	return f.Truncate(f.at)
}

func (d onDisk) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d onDisk) Remove(name string) error { return os.Remove(d.path(name)) }

func (d onDisk) Sync(dir string) error {
	if runtime.GOOS == "windows" { // folders cannot be synced there; NTFS journals its names
		return nil
	}
	f, err := os.Open(d.path(dir))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d onDisk) SyncFile(name string) error {
	f, err := os.OpenFile(d.path(name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
