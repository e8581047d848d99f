// Package crash owns a folder in memory that loses its power: the file system under the tests of what must survive
// that. After a chosen number of steps every call fails; Reboot then makes the folder that a machine might find: all
// that was synced, and of the rest whatever chance and the rules of real file systems let it keep.
//
// It knows the worst that is allowed, not the habits of one file system: names and bytes become durable apart, the
// names of each folder apart, bytes not synced may be kept in part or be rubbish. It is for tests only.
package crash

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"sync"

	"github.com/shoal-os/shoal/storage/folder"
)

var (
	// ErrPower is what every call returns once the power is gone.
	ErrPower = errors.New("the power is gone")
	// ErrFault is what the one step that FailAt chose returns.
	ErrFault = errors.New("injected fault")
)

// content is one file's bytes; synced is how many of them are durable.
type content struct {
	data   []byte
	synced int
}

// FS is the folder. It is safe for concurrent use. New makes one.
type FS struct {
	mu      sync.Mutex
	rng     *rand.Rand
	names   map[string]*content // as the running process sees them
	durable map[string]*content // as of the last Sync of each folder
	steps   int
	crashAt int
	failAt  int
	dead    bool
}

// New returns an empty folder whose chances follow from seed. Its power never fails until CrashAt.
func New(seed uint64) *FS {
	return &FS{
		rng:   rand.New(rand.NewPCG(seed, 0)),
		names: map[string]*content{}, durable: map[string]*content{},
	}
}

// CrashAt lets the power fail at the n-th step from now that changes something; 0: never. A write that it meets is
// done in part.
func (f *FS) CrashAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashAt, f.steps = n, 0
}

// FailAt lets just the n-th step from now fail, as a full disk would.
func (f *FS) FailAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failAt, f.steps = n, 0
}

// Dead reports whether the power is gone.
func (f *FS) Dead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// Names lists all files, with their folders.
func (f *FS) Names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.names))
}

// Size is how many bytes a file has.
func (f *FS) Size(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.names[name].data)
}

// Total is how many bytes all files have together.
func (f *FS) Total() (n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.names {
		n += int64(len(c.data))
	}
	return n
}

// Flip flips one bit of a file, as a bad disk would.
func (f *FS) Flip(name string, bit int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.names[name].data[bit/8] ^= 1 << (bit % 8)
}

// Clone returns a copy of the folder as the running process sees it, all of it durable.
func (f *FS) Clone() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := New(f.rng.Uint64())
	for name, c := range f.names {
		c := &content{bytes.Clone(c.data), len(c.data)}
		next.names[name], next.durable[name] = c, c
	}
	return next
}

// Reboot returns what is found after the power came back, as a new folder.
func (f *FS) Reboot() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := New(f.rng.Uint64())
	found := maps.Clone(f.durable)
	// Each change of a name since the last sync may have reached the disk or not.
	for _, name := range slices.Sorted(maps.Keys(f.names)) {
		if f.durable[name] != f.names[name] && f.rng.IntN(2) == 0 {
			found[name] = f.names[name]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.durable)) {
		if f.names[name] == nil && f.rng.IntN(2) == 0 {
			delete(found, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		data := f.survive(found[name])
		c := &content{data: data, synced: len(data)}
		next.names[name], next.durable[name] = c, c
	}
	return next
}

// Kill returns the folder as another process finds it when just this one was killed: the kernel has all that was
// written, and may lose what was not synced still.
func (f *FS) Kill() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := New(f.rng.Uint64())
	copies := map[*content]*content{}
	for _, m := range []struct{ from, to map[string]*content }{{f.names, next.names}, {f.durable, next.durable}} {
		for name, c := range m.from {
			if copies[c] == nil {
				copies[c] = &content{bytes.Clone(c.data), c.synced}
			}
			m.to[name] = copies[c]
		}
	}
	return next
}

// survive returns the synced bytes and some of those after them, of which the last may be rubbish.
func (f *FS) survive(c *content) []byte {
	data := bytes.Clone(c.data[:c.synced+f.rng.IntN(len(c.data)-c.synced+1)])
	if loose := len(data) - c.synced; loose > 0 && f.rng.IntN(2) == 0 {
		for i := len(data) - f.rng.IntN(loose) - 1; i < len(data); i++ {
			data[i] = byte(f.rng.Uint32())
		}
	}
	return data
}

// step counts a change. It returns ErrPower at and after the crash.
func (f *FS) step() error {
	if f.dead {
		return ErrPower
	}
	f.steps++
	if f.steps == f.crashAt {
		f.dead = true
		return ErrPower
	}
	if f.steps == f.failAt {
		return ErrFault
	}
	return nil
}

// List implements folder.FS.
func (f *FS) List(dir string) (out []folder.Info, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return nil, ErrPower
	}
	for _, name := range slices.Sorted(maps.Keys(f.names)) {
		if dirOf(name) == dir {
			out = append(out, folder.Info{Name: path.Base(name), Size: int64(len(f.names[name].data))})
		}
	}
	return out, nil
}

func dirOf(name string) string {
	if dir := path.Dir(name); dir != "." {
		return dir
	}
	return ""
}

// Open implements folder.FS.
func (f *FS) Open(name string) (folder.Reader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.names[name]
	if f.dead {
		return nil, ErrPower
	}
	if c == nil {
		return nil, fs.ErrNotExist
	}
	return reader{f, c}, nil
}

// reader is a file that is open for reading; it sees what is written later, as a real one does.
type reader struct {
	fs *FS
	c  *content
}

func (r reader) ReadAt(p []byte, off int64) (int, error) {
	r.fs.mu.Lock()
	defer r.fs.mu.Unlock()
	return bytes.NewReader(r.c.data).ReadAt(p, off)
}

func (r reader) Size() (int64, error) {
	r.fs.mu.Lock()
	defer r.fs.mu.Unlock()
	return int64(len(r.c.data)), nil
}

func (r reader) Close() error { return nil }

// Create implements folder.FS.
func (f *FS) Create(name string) (folder.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step(); err != nil {
		return nil, err
	}
	c := &content{}
	f.names[name] = c
	return &handle{f, c}, nil
}

// Rename implements folder.FS.
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step(); err != nil {
		return err
	}
	c := f.names[from]
	if c == nil {
		return fs.ErrNotExist
	}
	f.names[to] = c
	delete(f.names, from)
	return nil
}

// Remove implements folder.FS.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step(); err != nil {
		return err
	}
	if f.names[name] == nil {
		return fs.ErrNotExist
	}
	delete(f.names, name)
	return nil
}

// Sync implements folder.FS.
func (f *FS) Sync(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step(); err != nil {
		return err
	}
	for name := range f.durable {
		if dirOf(name) == dir && f.names[name] == nil {
			delete(f.durable, name)
		}
	}
	for name, c := range f.names {
		if dirOf(name) == dir {
			f.durable[name] = c
		}
	}
	return nil
}

// SyncFile implements folder.FS.
func (f *FS) SyncFile(name string) error {
	f.mu.Lock()
	c := f.names[name]
	f.mu.Unlock()
	if c == nil {
		return fs.ErrNotExist
	}
	return (&handle{f, c}).Sync()
}

// handle is an open file.
type handle struct {
	fs *FS
	c  *content
}

// Write adds all of p, or on failure some of it.
func (h *handle) Write(p []byte) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	err := h.fs.step()
	n := len(p)
	if err != nil {
		n = h.fs.rng.IntN(len(p) + 1)
	}
	if !errors.Is(err, ErrPower) || h.fs.steps == h.fs.crashAt {
		h.c.data = append(h.c.data, p[:n]...)
	}
	return n, err
}

func (h *handle) Skip(n int64) error {
	_, err := h.Write(make([]byte, n))
	return err
}

// Sync makes the bytes durable, or on failure only some of them; as with real files, nobody is told which.
func (h *handle) Sync() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	err := h.fs.step()
	switch {
	case err == nil:
		h.c.synced = len(h.c.data)
	case errors.Is(err, ErrFault):
		h.c.synced += h.fs.rng.IntN(len(h.c.data) - h.c.synced + 1)
	}
	return err
}

// Close implements folder.File.
func (h *handle) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.fs.dead {
		return ErrPower
	}
	return nil
}
