// Package crash owns a folder in memory that loses its power: the file system under the tests of what must survive
// that. After a chosen number of steps every call fails; Reboot then makes the folder that a machine might find: all
// that was synced, and of the rest whatever chance and the rules of real file systems let it keep.
//
// It knows the worst that is allowed, not the habits of one file system: names and bytes become durable apart, bytes
// not synced may be kept in part or be rubbish. It is for tests only.
package crash

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/shoal-os/shoal/storage/directory/disk"
)

// ErrPower is what every call returns once the power is gone.
var ErrPower = errors.New("the power is gone")

// ErrFault is what the one step that Fail chose returns.
var ErrFault = errors.New("injected fault")

// content is one file's bytes; synced is how many of them are durable.
type content struct {
	data   []byte
	synced int
}

// FS is the folder. It is safe for concurrent use. The zero value is not usable; New makes one.
type FS struct {
	mu      sync.Mutex
	rng     *rand.Rand
	names   map[string]*content // as the running process sees them
	durable map[string]*content // as of the last Sync of the folder
	steps   int
	crashAt int
	failAt  int
	dead    bool
}

// New returns an empty folder whose chances follow from seed. Its power never fails until CrashAt.
func New(seed uint64) *FS {
	return &FS{
		rng:     rand.New(rand.NewPCG(seed, 0)),
		names:   map[string]*content{},
		durable: map[string]*content{},
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

// Size is the sum of all files' bytes.
func (f *FS) Size() (n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.names {
		n += int64(len(c.data))
	}
	return n
}

// Damage flips one bit in the middle of a file, as a bad disk would.
func (f *FS) Damage(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.names[name]
	c.data[len(c.data)/2] ^= 4
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

// List implements disk.FS.
func (f *FS) List() ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return nil, ErrPower
	}
	return slices.Sorted(maps.Keys(f.names)), nil
}

// Open implements disk.FS.
func (f *FS) Open(name string) (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.names[name]
	if f.dead {
		return nil, ErrPower
	}
	if c == nil {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(bytes.Clone(c.data))), nil
}

// Create implements disk.FS.
func (f *FS) Create(name string) (disk.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step(); err != nil {
		return nil, err
	}
	c := &content{}
	f.names[name] = c
	return &handle{f, c}, nil
}

// Rename implements disk.FS.
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

// Remove implements disk.FS.
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

// Sync implements disk.FS.
func (f *FS) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step(); err != nil {
		return err
	}
	f.durable = maps.Clone(f.names)
	return nil
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

// Close implements disk.File.
func (h *handle) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.fs.dead {
		return ErrPower
	}
	return nil
}
