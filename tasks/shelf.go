package tasks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/shoal-os/shoal/tasks/job"
)

const (
	// shelfMax is how many bytes of inputs and programs are kept as files for guests that may need them again. What is in use counts,
	// and is never let go.
	shelfMax = 8 << 30
	// copyBuffer is how much is copied at a time.
	copyBuffer = 1 << 20
)

// shelf keeps files of the pool as files of this system, for guests to read. It is safe for concurrent use.
type shelf struct {
	t   *Tasks
	dir string

	mu    sync.Mutex
	files map[string]*shelved // by moduleID
	bytes int64
}

// shelved is one file. Its fields but ready are guarded by the shelf's mu.
type shelved struct {
	key     string
	path    string
	size    int64
	users   int
	last    time.Time
	ready   chan struct{} // closed once it is there, or err says why not
	err     error
	fetched int64
}

// loan is a file in use.
type loan struct {
	path    string
	fetched int64 // bytes that were not here before
	release func()
}

func newShelf(t *Tasks) *shelf {
	return &shelf{t: t, dir: filepath.Join(t.cfg.Dir, "shelf"), files: map[string]*shelved{}}
}

// close deletes what is kept.
func (s *shelf) close() { _ = os.RemoveAll(s.dir) }

// get makes a file of f, or finds the one that there is.
func (s *shelf) get(ctx context.Context, f job.File) (loan, error) {
	key := moduleID(f)
	for {
		s.mu.Lock()
		x, first := s.files[key], false
		if x == nil {
			x, first = &shelved{key: key, path: filepath.Join(s.dir, key), size: f.Size, ready: make(chan struct{})}, true
			s.files[key] = x
		}
		x.users++
		s.mu.Unlock()
		if first {
			s.fill(ctx, x, f)
		} else {
			select {
			case <-x.ready:
			case <-ctx.Done():
				s.release(x)
				return loan{}, ctx.Err()
			}
		}
		if x.err == nil {
			got := loan{path: x.path, release: sync.OnceFunc(func() { s.release(x) })}
			if first {
				got.fetched = x.fetched
			}
			return got, nil
		}
		s.release(x)
		if first || !errors.Is(x.err, context.Canceled) {
			return loan{}, x.err
		}
	}
}

func (s *shelf) release(x *shelved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.users--
	x.last = time.Now()
}

// fill copies a file, and makes room for it.
func (s *shelf) fill(ctx context.Context, x *shelved, f job.File) {
	s.room(f.Size)
	fetched, err := s.t.copyOut(ctx, f, 0, f.Size, x.path)
	s.mu.Lock()
	defer s.mu.Unlock()
	x.fetched, x.err = fetched, err
	if err != nil {
		delete(s.files, x.key)
	} else {
		s.bytes += x.size
	}
	close(x.ready)
}

// room lets go of what nobody uses until size more bytes fit, the oldest first.
func (s *shelf) room(size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.bytes+size > shelfMax {
		var oldest *shelved
		for _, x := range s.files {
			if x.users == 0 && (oldest == nil || x.last.Before(oldest.last)) {
				oldest = x
			}
		}
		if oldest == nil {
			return
		}
		delete(s.files, oldest.key)
		s.bytes -= oldest.size
		_ = os.Remove(oldest.path)
	}
}

// copyOut writes a part of a file of the pool to a file of this system, which is there whole or not at all. fetched is how many bytes of
// the pieces it touches were not here before.
func (t *Tasks) copyOut(ctx context.Context, f job.File, first, size int64, path string) (fetched int64, err error) {
	fetched = t.away(f, first, size)
	r, err := t.OpenFile(ctx, f)
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Close() }()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return 0, err
	}
	w, err := os.CreateTemp(filepath.Dir(path), "part-")
	if err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, w.Close())
		if err == nil {
			err = os.Rename(w.Name(), path)
		}
		if err != nil {
			_ = os.Remove(w.Name())
		}
	}()
	n, err := io.CopyBuffer(onlyWriter{w}, io.NewSectionReader(r, first, size), make([]byte, min(copyBuffer, max(size, 1))))
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, fmt.Errorf("tasks: copy %s: %w", f.Root, errors.Join(ctx.Err(), err))
	}
	return fetched, nil
}

// onlyWriter hides that a file could read by itself, which would take a buffer of its own.
type onlyWriter struct{ io.Writer }

// away counts the bytes of a part of a file that lie in pieces which are not here.
func (t *Tasks) away(f job.File, first, size int64) (n int64) {
	at := int64(0)
	for _, p := range f.All() {
		from, to := max(at, first), min(at+p.Size, first+size)
		at += p.Size
		if from < to {
			if _, here := t.cfg.Bytes.Get(p.ID); !here {
				n += to - from
			}
		}
	}
	return n
}
