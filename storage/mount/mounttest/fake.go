// Package mounttest holds what tests of the WebDAV face need: an FS in memory, and the suite that every FS must pass. It
// is for tests only, and refuses to be more than the simplest thing that keeps the contract of mount.FS.
package mounttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-os/shoal/storage/mount"
)

// Fake is an FS in memory. It is safe for concurrent use.
type Fake struct {
	// Quota bounds the bytes of all files; 0 is no bound. Set it before use.
	Quota int64
	// Fail, if not nil, is asked before each operation ("stat", "put", …) and may make it fail.
	Fail func(op, path string) error

	mu    sync.Mutex
	nodes map[string]*node
}

var _ mount.FS = (*Fake)(nil)

type node struct {
	folder bool
	data   []byte // never changed in place
	tag    string
	at     time.Time
}

// NewFake returns an FS with nothing in it.
func NewFake() *Fake { return &Fake{nodes: map[string]*node{"/": {folder: true}}} }

func (f *Fake) begin(op, p string) error {
	if f.Fail != nil {
		return f.Fail(op, p)
	}
	return nil
}

func (n *node) info(p string) mount.Info {
	i := mount.Info{Name: path.Base(p), Folder: n.folder, Size: int64(len(n.data)), ModTime: n.at, Tag: n.tag}
	if p == "/" {
		i.Name = ""
	}
	return i
}

// Stat implements [mount.FS].
func (f *Fake) Stat(_ context.Context, p string) (mount.Info, error) {
	if err := f.begin("stat", p); err != nil {
		return mount.Info{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[p]
	if n == nil {
		return mount.Info{}, fs.ErrNotExist
	}
	return n.info(p), nil
}

// List implements [mount.FS].
func (f *Fake) List(_ context.Context, p string) ([]mount.Info, error) {
	if err := f.begin("list", p); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[p]
	switch {
	case n == nil:
		return nil, fs.ErrNotExist
	case !n.folder:
		return nil, mount.ErrNotFolder
	}
	var out []mount.Info
	for q, n := range f.nodes {
		if q != "/" && path.Dir(q) == p {
			out = append(out, n.info(q))
		}
	}
	slices.SortFunc(out, func(a, b mount.Info) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

type openFile struct {
	*bytes.Reader
	info mount.Info
}

func (f openFile) Info() mount.Info { return f.info }
func (openFile) Close() error       { return nil }

// Open implements [mount.FS].
func (f *Fake) Open(_ context.Context, p string) (mount.File, error) {
	if err := f.begin("open", p); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[p]
	switch {
	case n == nil:
		return nil, fs.ErrNotExist
	case n.folder:
		return nil, mount.ErrIsFolder
	}
	return openFile{bytes.NewReader(n.data), n.info(p)}, nil
}

// room tells whether something new may be at p. The caller holds mu.
func (f *Fake) room(p string) error {
	if n := f.nodes[path.Dir(p)]; n == nil {
		return fs.ErrNotExist
	} else if !n.folder {
		return mount.ErrNotFolder
	}
	if strings.ContainsAny(path.Base(p), "\\:\n") {
		return mount.ErrName
	}
	for q := range f.nodes {
		if q != p && strings.EqualFold(q, p) {
			return mount.ErrClash
		}
	}
	return nil
}

// Put implements [mount.FS].
func (f *Fake) Put(ctx context.Context, p string, body io.Reader, at time.Time) (mount.Info, error) {
	if err := f.begin("put", p); err != nil {
		return mount.Info{}, err
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return mount.Info{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.nodes[p]
	switch {
	case old != nil && old.folder:
		return mount.Info{}, mount.ErrIsFolder
	case old == nil:
		if err := f.room(p); err != nil {
			return mount.Info{}, err
		}
	}
	if f.Quota > 0 && f.used()+int64(len(data)) > f.Quota {
		return mount.Info{}, mount.ErrSpace
	}
	sum := sha256.Sum256(data)
	n := &node{data: data, tag: hex.EncodeToString(sum[:16]), at: at}
	f.nodes[p] = n
	return n.info(p), nil
}

func (f *Fake) used() (n int64) {
	for _, node := range f.nodes {
		n += int64(len(node.data))
	}
	return n
}

// Mkdir implements [mount.FS].
func (f *Fake) Mkdir(_ context.Context, p string) error {
	if err := f.begin("mkdir", p); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.nodes[p] != nil {
		return fs.ErrExist
	}
	if err := f.room(p); err != nil {
		return err
	}
	f.nodes[p] = &node{folder: true, at: time.Now()}
	return nil
}

// Remove implements [mount.FS].
func (f *Fake) Remove(_ context.Context, p string) error {
	if err := f.begin("remove", p); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.nodes[p] == nil {
		return fs.ErrNotExist
	}
	f.drop(p)
	return nil
}

// drop removes p and all below. The caller holds mu.
func (f *Fake) drop(p string) {
	for q := range f.nodes {
		if q == p || strings.HasPrefix(q, p+"/") {
			delete(f.nodes, q)
		}
	}
}

// Move implements [mount.FS].
func (f *Fake) Move(_ context.Context, from, to string, overwrite bool) error {
	if err := f.begin("move", from); err != nil {
		return err
	}
	return f.place(from, to, overwrite, true, true)
}

// Copy implements [mount.FS].
func (f *Fake) Copy(_ context.Context, from, to string, overwrite, deep bool) error {
	if err := f.begin("copy", from); err != nil {
		return err
	}
	return f.place(from, to, overwrite, deep, false)
}

func (f *Fake) place(from, to string, overwrite, deep, move bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.nodes[from] == nil {
		return fs.ErrNotExist
	}
	if f.nodes[to] != nil && !overwrite {
		return fs.ErrExist
	}
	moved := make(map[string]*node)
	for q, n := range f.nodes {
		if q == from || deep && strings.HasPrefix(q, from+"/") {
			moved[to+strings.TrimPrefix(q, from)] = n
		}
	}
	kept := f.nodes
	f.nodes = make(map[string]*node)
	for q, n := range kept {
		f.nodes[q] = n
	}
	f.drop(to)
	if move {
		f.drop(from)
	}
	if err := f.room(to); err != nil {
		f.nodes = kept
		return err
	}
	for q, n := range moved {
		f.nodes[q] = n
	}
	return nil
}

// SetModTime implements [mount.FS].
func (f *Fake) SetModTime(_ context.Context, p string, at time.Time) error {
	if err := f.begin("time", p); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[p]
	if n == nil {
		return fs.ErrNotExist
	}
	changed := *n
	changed.at = at
	f.nodes[p] = &changed
	return nil
}

// Space implements [mount.FS].
func (f *Fake) Space(context.Context) (mount.Space, error) {
	if err := f.begin("space", "/"); err != nil {
		return mount.Space{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	used := f.used()
	free := int64(1 << 40)
	if f.Quota > 0 {
		free = f.Quota - used
	}
	return mount.Space{Free: free, Used: used}, nil
}
