package tasks

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/shoal-os/shoal/tasks/job"
)

// itemBlock is how much of a list is read at a time, in bytes; two such blocks are kept.
const itemBlock = 256 << 10

// items reads what the tasks of a job have each for itself.
type items struct {
	spec   *job.Spec
	list   *blockReader // of a List
	reader File
}

// items opens a job's items; for a List its file.
func (t *Tasks) items(ctx context.Context, spec *job.Spec) (*items, error) {
	it := &items{spec: spec}
	if spec.Split.Kind != job.List {
		return it, nil
	}
	r, err := t.OpenFile(ctx, spec.Split.File)
	if err != nil {
		return nil, err
	}
	it.reader, it.list = r, &blockReader{r: r, size: spec.Split.File.Size}
	return it, nil
}

// at returns one task's item. Other than of items and lists it is the zero value.
func (it *items) at(task int) (job.Item, error) {
	switch {
	case task >= it.spec.Tasks():
		return job.Item{}, nil // the reduce
	case it.spec.Split.Kind == job.Items:
		return it.spec.Split.Items[task], nil
	case it.list != nil:
		return job.ItemAt(it.list, int(it.spec.Split.Count), task)
	}
	return job.Item{}, nil
}

// broken returns the error of reading the list, as against one of what it says.
func (it *items) broken() error {
	if it.list == nil {
		return nil
	}
	it.list.mu.Lock()
	defer it.list.mu.Unlock()
	return it.list.err
}

func (it *items) close() {
	if it.reader != nil {
		_ = it.reader.Close()
	}
}

// blockReader reads a file by blocks, so that many short reads side by side cost few.
type blockReader struct {
	r    io.ReaderAt
	size int64

	mu     sync.Mutex
	blocks [2]struct {
		at   int64 // 0-based number of the block, plus one
		data []byte
	}
	next int
	err  error
}

// ReadAt implements io.ReaderAt.
func (b *blockReader) ReadAt(p []byte, off int64) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n < len(p) {
		if off < 0 || off >= b.size {
			return n, io.EOF
		}
		data, err := b.block(off / itemBlock)
		if err != nil {
			b.err = err
			return n, err
		}
		m := copy(p[n:], data[off%itemBlock:])
		n, off = n+m, off+int64(m)
	}
	return n, nil
}

func (b *blockReader) block(i int64) ([]byte, error) {
	for k := range b.blocks {
		if b.blocks[k].at == i+1 {
			return b.blocks[k].data, nil
		}
	}
	x := &b.blocks[b.next]
	b.next = 1 - b.next
	x.at = 0
	if x.data == nil {
		x.data = make([]byte, itemBlock)
	}
	x.data = x.data[:min(itemBlock, b.size-i*itemBlock)]
	n, err := b.r.ReadAt(x.data, i*itemBlock)
	if n < len(x.data) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	x.at = i + 1
	return x.data, nil
}
