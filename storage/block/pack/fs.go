package pack

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// FS is the folder that packs and pieces live in: what they need of a file system, so that tests can let one fail or
// lose its power at any step. Names are relative and slash-separated; folders are made by whoever made the FS.
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

// Dir returns the folder at path with the given folders in it, making (0700) what is not there.
func Dir(path string, dirs ...string) (FS, error) {
	for _, d := range append(dirs, "") {
		if err := os.MkdirAll(filepath.Join(path, d), 0o700); err != nil {
			return nil, err
		}
	}
	f := folder(path)
	return wrap(f), f.Sync("")
}

type folder string

func (d folder) path(name string) string { return filepath.Join(string(d), filepath.FromSlash(name)) }

func (d folder) List(dir string) ([]Info, error) {
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

func (d folder) Open(name string) (Reader, error) {
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

func (d folder) Create(name string) (File, error) {
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

func (d folder) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d folder) Remove(name string) error { return os.Remove(d.path(name)) }

func (d folder) Sync(dir string) error {
	if runtime.GOOS == "windows" { // folders cannot be synced there; NTFS journals its names
		return nil
	}
	f, err := os.Open(d.path(dir))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d folder) SyncFile(name string) error {
	f, err := os.OpenFile(d.path(name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
