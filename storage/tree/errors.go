package tree

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/shoal-os/shoal/storage/tree/paths"
)

// Kinds of errors, by errors.Is. All but ErrClosed come in a *fs.PathError, so that os.IsNotExist and its like know
// them too.
var (
	ErrNotExist  = fs.ErrNotExist // there is nothing at the path, or no such version of it
	ErrExist     = fs.ErrExist    // something is in the way, and overwriting it was not asked for
	ErrIsFolder  = errors.New("it is a folder")
	ErrNotFolder = errors.New("it is not a folder")
	ErrNotEmpty  = errors.New("the folder is not empty")
	ErrPath      = paths.ErrPath                                                  // no path at all: too long, with "..", with control characters
	ErrCase      = errors.New("the name differs from another's only in its case") // or in how its accents are written
	ErrName      = errors.New("some systems cannot hold the name")                // PutOptions.AnyName allows it
	ErrConflict  = errors.New("it is one side of a conflict: move or remove one of the two first")
	ErrTooLarge  = errors.New("the file is too large") // more than 896 GiB
	ErrInside    = errors.New("a folder cannot be put into itself")
	ErrPattern   = errors.New("the pattern is malformed")
	ErrClosed    = errors.New("tree: it is closed")
)

// fault says at which path what failed.
func fault(op, path string, err error) error {
	var known *fs.PathError
	if err == nil || errors.As(err, &known) {
		return err
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// faultsMax is how many errors of one command are kept: a million files that fail alike are told as a few.
const faultsMax = 8

// faults collects what went wrong with single files of many.
type faults struct {
	first []error
	more  int
	files int // of those that a put was to name
}

func (f *faults) add(err error) {
	if len(f.first) < faultsMax {
		f.first = append(f.first, err)
	} else {
		f.more++
	}
}

// fail adds why a draft was left out.
func (f *faults) fail(d *draft, err error) {
	if d.v.Kind == File {
		f.files++
	}
	f.add(err)
}

// join takes in those of another.
func (f *faults) join(other *faults) {
	for _, err := range other.first {
		f.add(err)
	}
	f.more += other.more
	f.files += other.files
}

// err joins them; nil if there are none.
func (f *faults) err() error {
	if f.more > 0 {
		return errors.Join(append(f.first, fmt.Errorf("and %d more", f.more))...)
	}
	return errors.Join(f.first...)
}
