//go:build lossydisk || breakfsync

package folder

import (
	"io"
	"os"
	"path"
	"sync"
)

// lossy is a folder whose kernel writes nothing by itself: bytes that were never synced are in memory only, so that killing
// the process is to them what a loss of power is on a real machine. It is for the testnet, where a power cut must be
// green with it (tag lossydisk), and red when in addition nothing is ever synced (tag breakfsync). Names are durable at once.
type lossy struct {
	onDisk
	mu    sync.Mutex
	files map[string]*unsynced
}

// kernels holds what is in memory only of each folder that this process has opened: like a kernel's, that outlives whoever closes
// the folder and opens it again, and not the end of the process.
var kernels sync.Map

func wrap(f onDisk) FS {
	l, _ := kernels.LoadOrStore(f, &lossy{onDisk: f, files: map[string]*unsynced{}})
	return l.(*lossy)
}

// unsynced is a file that this process wrote: what of it is on the disk, and what is not.
type unsynced struct {
	mu      sync.Mutex
	disk    *os.File
	durable int64
	pending []byte // from durable on
}

func (l *lossy) of(name string) *unsynced {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.files[name]
}

func (l *lossy) Create(name string) (File, error) {
	f, err := os.OpenFile(l.path(name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	u := &unsynced{disk: f}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files[name] = u
	return u, nil
}

func (u *unsynced) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.pending = append(u.pending, p...)
	return len(p), nil
}

func (u *unsynced) Skip(n int64) error {
	_, err := u.Write(make([]byte, n))
	return err
}

// Sync writes what is pending, unless this build is the one that forgets to.
func (u *unsynced) Sync() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if syncForgotten {
		return nil
	}
	n, err := u.disk.WriteAt(u.pending, u.durable)
	u.durable += int64(n)
	u.pending = u.pending[n:]
	return err
}

// Close keeps what is pending, as the kernel's cache does, and the file open: others may still sync it.
func (u *unsynced) Close() error { return nil }

func (u *unsynced) size() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.durable + int64(len(u.pending))
}

func (l *lossy) List(dir string) ([]Info, error) {
	infos, err := l.onDisk.List(dir)
	for i := range infos {
		if u := l.of(path.Join(dir, infos[i].Name)); u != nil {
			infos[i].Size = u.size()
		}
	}
	return infos, err
}

func (l *lossy) Open(name string) (Reader, error) {
	r, err := l.onDisk.Open(name)
	u := l.of(name)
	if err != nil || u == nil {
		return r, err
	}
	return cached{r, u}, nil
}

// cached reads a file of this process: its pending bytes too.
type cached struct {
	Reader
	u *unsynced
}

func (c cached) Size() (int64, error) { return c.u.size(), nil }

func (c cached) ReadAt(p []byte, off int64) (n int, err error) {
	c.u.mu.Lock()
	defer c.u.mu.Unlock()
	if off < c.u.durable {
		n, err = c.Reader.ReadAt(p[:min(int64(len(p)), c.u.durable-off)], off)
		if err != nil || n == len(p) {
			return n, err
		}
	}
	if at := off + int64(n) - c.u.durable; at < int64(len(c.u.pending)) {
		n += copy(p[n:], c.u.pending[at:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (l *lossy) Rename(from, to string) error {
	err := l.onDisk.Rename(from, to)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.files, to)
		if u := l.files[from]; u != nil {
			l.files[to] = u
			delete(l.files, from)
		}
	}
	return err
}

func (l *lossy) Remove(name string) error {
	l.mu.Lock()
	delete(l.files, name)
	l.mu.Unlock()
	return l.onDisk.Remove(name)
}

func (l *lossy) SyncFile(name string) error {
	if u := l.of(name); u != nil {
		return u.Sync()
	}
	return l.onDisk.SyncFile(name)
}
