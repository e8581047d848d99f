package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/shoal-os/shoal/storage/chunk"
)

// File reads one file of an open content. Reads wait for bytes that are not
// here, and every byte is verified before it is returned. ReadAt and Read may be
// called from several goroutines; they take turns. Close it.
type File struct {
	entry *chunk.Entry
	tree  *chunk.Tree

	mu     sync.Mutex
	leaves *leaves // nil once closed
	offset int64
}

// OpenFile opens the file at index i of Tree().Entries. ctx ends its reads, even
// those that wait. It fails with ErrNotFile for a folder or symbolic link.
func (c *Content) OpenFile(ctx context.Context, i int) (*File, error) {
	e := &c.tree.Entries[i]
	if e.Kind != chunk.File {
		return nil, fmt.Errorf("%q: %w but a %s", e.Path, ErrNotFile, e.Kind)
	}
	return &File{entry: e, tree: c.tree, leaves: c.newLeaves(ctx)}, nil
}

// Size is the file's length in bytes.
func (f *File) Size() int64 { return f.entry.Size }

// Read reads from where the last Read or Seek left off.
func (f *File) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.readAt(p, f.offset)
	f.offset += int64(n)
	return n, err
}

// ReadAt reads len(p) bytes at an offset, or fewer with io.EOF at the end.
func (f *File) ReadAt(p []byte, offset int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	done := 0
	for done < len(p) {
		n, err := f.readAt(p[done:], offset+int64(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// readAt reads at most to the end of one leaf. The caller holds mu.
func (f *File) readAt(p []byte, offset int64) (int, error) {
	switch {
	case f.leaves == nil:
		return 0, ErrClosed
	case offset < 0:
		return 0, errors.New("storage: read: negative offset")
	case offset >= f.entry.Size:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	i := leafAt(f.tree, f.entry, offset)
	data, err := f.leaves.read(i, f.entry.First+f.entry.Count)
	if err != nil {
		return 0, err
	}
	from := offset - f.tree.Leaves[i].Offset
	if from >= int64(len(data)) {
		return 0, io.ErrUnexpectedEOF // a foreign tree whose sizes lie
	}
	return copy(p, data[from:]), nil
}

// Seek moves to where the next Read begins. Nothing is fetched until then.
func (f *File) Seek(offset int64, whence int) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch whence {
	case io.SeekCurrent:
		offset += f.offset
	case io.SeekEnd:
		offset += f.entry.Size
	}
	if offset < 0 {
		return 0, errors.New("storage: seek: before the beginning")
	}
	f.offset = offset
	return offset, nil
}

// Close ends the fetching ahead.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.leaves != nil {
		f.leaves.Close()
		f.leaves = nil
	}
	return nil
}
