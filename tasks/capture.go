package tasks

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// captureInline is how much of one stream stays in memory, in bytes; the rest goes to a file.
const captureInline = 64 << 10

// capture is what a guest writes to one stream: it is kept whole, up to the limit on output, and may be read while it grows.
type capture struct {
	path string // of its file, if it needs one

	mu    sync.Mutex
	limit int64 // more is dropped
	mem   []byte
	file  *os.File
	size  int64
	cut   bool
	err   error
	ended bool
	users int           // readers
	more  chan struct{} // closed at the next change; nil: nobody waits
}

// Write implements io.Writer. What the disk does not take is an error of the attempt, not of the guest.
func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(p)
	if left := c.limit - c.size; int64(len(p)) > left {
		p, c.cut = p[:max(left, 0)], true
	}
	if head := min(len(p), captureInline-len(c.mem)); head > 0 {
		c.mem = append(c.mem, p[:head]...)
		c.size += int64(head)
		p = p[head:]
	}
	if len(p) > 0 && c.err == nil {
		if c.file == nil {
			if c.err = os.MkdirAll(filepath.Dir(c.path), 0o700); c.err == nil {
				c.file, c.err = os.OpenFile(c.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
			}
		}
		if c.err == nil {
			_, c.err = c.file.WriteAt(p, c.size-captureInline)
		}
		if c.err == nil {
			c.size += int64(len(p))
		}
	}
	c.changed()
	return n, nil
}

// changed wakes readers. mu is held.
func (c *capture) changed() {
	if c.more != nil {
		close(c.more)
		c.more = nil
	}
}

// end says that nothing more comes.
func (c *capture) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.changed()
	c.tidy()
}

// open counts a reader in; close counts it out.
func (c *capture) open() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users++
}

func (c *capture) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users--
	c.tidy()
}

// tidy deletes the file when nobody needs it. mu is held.
func (c *capture) tidy() {
	if c.ended && c.users == 0 && c.file != nil {
		_ = c.file.Close()
		_ = os.Remove(c.path)
		c.file = nil
		c.size = int64(len(c.mem))
	}
}

// ReadAt implements io.ReaderAt over what is there.
func (c *capture) ReadAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if off >= c.size {
		return 0, io.EOF
	}
	if off < int64(len(c.mem)) {
		n := copy(p, c.mem[off:])
		if n == len(p) {
			return n, nil
		}
		if c.size == int64(len(c.mem)) {
			return n, io.EOF
		}
		m, err := c.file.ReadAt(p[n:], 0)
		return n + m, err
	}
	return c.file.ReadAt(p, off-captureInline)
}

// next reads what follows at an offset, waiting for it unless the guest has ended or wait is false; io.EOF when there is no more.
func (c *capture) next(ctx context.Context, p []byte, off int64, wait bool) (int, error) {
	for {
		n, err := c.ReadAt(p, off)
		if n > 0 {
			return n, nil
		}
		if !errors.Is(err, io.EOF) {
			return 0, err
		}
		c.mu.Lock()
		if c.ended || !wait {
			done := off >= c.size
			c.mu.Unlock()
			if done {
				return 0, io.EOF
			}
			continue
		}
		if off < c.size {
			c.mu.Unlock()
			continue
		}
		if c.more == nil {
			c.more = make(chan struct{})
		}
		more := c.more
		c.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// state returns the size, whether something was dropped, and what went wrong.
func (c *capture) state() (size int64, cut bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size, c.cut, c.err
}

// all returns what is there as a reader.
func (c *capture) all() io.Reader {
	size, _, _ := c.state()
	return io.NewSectionReader(c, 0, size)
}

// tail returns the last bytes, at most n.
func (c *capture) tail(n int) []byte {
	size, _, _ := c.state()
	from := max(0, size-int64(n))
	buf := make([]byte, size-from)
	m, _ := c.ReadAt(buf, from)
	return buf[:m]
}
