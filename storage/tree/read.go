package tree

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"sync"
)

// OpenFile is a file that is being read. It shows the version that was there when it was opened, whatever is written
// since. ReadAt is safe for concurrent use; Read and Seek share one position and are for one goroutine.
type OpenFile struct {
	entry Entry
	r     Reader // nil if the file is empty
	stop  context.CancelFunc
	once  sync.Once
	at    int64
	err   error
}

// OpenRead opens a file for reading: from this peer's store what is there, the rest from other peers as it is read.
// The context bounds all later reads too.
func (t *Tree) OpenRead(ctx context.Context, path string) (*OpenFile, error) {
	i, err := t.lookup("open", path)
	if err != nil {
		return nil, err
	}
	if i.Kind != File {
		return nil, fault("open", i.Path, ErrIsFolder)
	}
	e := entry(&i, nil)
	return t.OpenEntry(ctx, &e)
}

// OpenEntry opens the version that an entry of Stat, List or History is about.
func (t *Tree) OpenEntry(ctx context.Context, e *Entry) (*OpenFile, error) {
	if e.Kind != File {
		return nil, fault("open", e.Path, ErrIsFolder)
	}
	f := &OpenFile{entry: *e, stop: func() {}}
	if e.Size() == 0 {
		return f, nil
	}
	ctx, f.stop = context.WithCancel(ctx)
	r, err := t.cfg.Bytes.Open(ctx, e.File)
	if err != nil {
		f.stop()
		return nil, fault("open", e.Path, err)
	}
	f.r = r
	return f, nil
}

// Entry is what was opened.
func (f *OpenFile) Entry() Entry { return f.entry }

// Size is the file's, in bytes.
func (f *OpenFile) Size() int64 { return f.entry.Size() }

// ReadAt reads bytes that are verified against the file's root.
func (f *OpenFile) ReadAt(b []byte, off int64) (int, error) {
	size := f.Size()
	switch {
	case off < 0:
		return 0, fault("read", f.entry.Path, fs.ErrInvalid)
	case off >= size || f.r == nil:
		return 0, io.EOF
	}
	short := int64(len(b)) > size-off
	if short {
		b = b[:size-off]
	}
	n, err := f.r.ReadAt(b, off)
	switch {
	case n < len(b) && (err == nil || errors.Is(err, io.EOF)):
		// The record promised more than there is.
		return n, fault("read", f.entry.Path, io.ErrUnexpectedEOF)
	case n == len(b) && short:
		return n, io.EOF
	case n == len(b):
		return n, nil
	}
	return n, fault("read", f.entry.Path, err)
}

// Read reads on from where it is.
func (f *OpenFile) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := f.ReadAt(b, f.at)
	f.at += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// Seek sets where Read goes on.
func (f *OpenFile) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		off += f.at
	case io.SeekEnd:
		off += f.Size()
	default:
		return 0, fault("seek", f.entry.Path, fs.ErrInvalid)
	}
	if off < 0 {
		return 0, fault("seek", f.entry.Path, fs.ErrInvalid)
	}
	f.at = off
	return off, nil
}

// Close lets go of the file. A second Close does nothing.
func (f *OpenFile) Close() error {
	f.once.Do(func() {
		if f.r != nil {
			f.err = f.r.Close()
		}
		f.stop()
	})
	return f.err
}
