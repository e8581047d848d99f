package disk

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// FS is the one folder that a Log lives in: what it needs of a file system, so that tests can let one fail or lose its
// power at any step. Names have no separators.
type FS interface {
	// List returns the names of the files in the folder.
	List() ([]string, error)
	// Open opens a file for reading from its start; the caller closes it.
	Open(name string) (io.ReadCloser, error)
	// Create makes an empty file, or empties the one that is there, for writing.
	Create(name string) (File, error)
	// Rename replaces to by from, at once or not at all.
	Rename(from, to string) error
	Remove(name string) error
	// Sync returns once names made, renamed and removed before will survive a loss of power.
	Sync() error
}

// File is a file that is written from its start to its end.
type File interface {
	io.WriteCloser
	// Sync returns once all that was written will survive a loss of power.
	Sync() error
}

// Dir returns the file system's folder of that path, making it (0700) if it is not there.
func Dir(path string) (FS, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	return folder(path), nil
}

type folder string

func (d folder) path(name string) string { return filepath.Join(string(d), name) }

func (d folder) List() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func (d folder) Open(name string) (io.ReadCloser, error) { return os.Open(d.path(name)) }

func (d folder) Create(name string) (File, error) {
	return os.OpenFile(d.path(name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
}

func (d folder) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d folder) Remove(name string) error { return os.Remove(d.path(name)) }

func (d folder) Sync() error {
	if runtime.GOOS == "windows" { // folders cannot be synced there; NTFS journals its names
		return nil
	}
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
