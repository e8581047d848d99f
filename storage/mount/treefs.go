package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"syscall"
	"time"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/tree"
)

// TreeOptions say what a tree cannot tell of itself.
type TreeOptions struct {
	// Space tells how much there is for somebody who puts files at this peer. nil: nobody knows.
	Space func(context.Context) (Space, error)
	// Away reports whether an error of reading means that no peer with the bytes can be reached. nil: none does.
	Away func(error) bool
	// AnyName lets names be written that other systems cannot hold.
	AnyName bool
}

// Tree makes an FS of the pool's files. What is written is in this peer's store and has its name when a call returns;
// copies on other peers are made after that.
func Tree(t *tree.Tree, opt TreeOptions) FS { return &treeFS{t, opt} }

type treeFS struct {
	tree *tree.Tree
	opt  TreeOptions
}

// treeErrors are the tree's own errors in our terms. Its fs.ErrNotExist and fs.ErrExist are already.
var treeErrors = []struct{ theirs, ours error }{
	{tree.ErrIsFolder, ErrIsFolder}, {tree.ErrNotFolder, ErrNotFolder}, {tree.ErrCase, ErrClash}, {tree.ErrName, ErrName},
	{tree.ErrPath, ErrName}, {tree.ErrTooLarge, ErrSpace}, {tree.ErrConflict, ErrReadOnly}, {piece.ErrQuota, ErrSpace},
	{syscall.ENOSPC, ErrSpace},
}

// ours puts an error in our terms, and keeps what it says.
func (f *treeFS) ours(err error) error {
	if err == nil {
		return nil
	}
	for _, e := range treeErrors {
		if errors.Is(err, e.theirs) {
			return treeError{err, e.ours}
		}
	}
	if f.opt.Away != nil && f.opt.Away(err) {
		return treeError{err, ErrAway}
	}
	return err
}

// seen is ours for what only looks: at a path that is none there is nothing.
func (f *treeFS) seen(err error) error {
	if errors.Is(err, tree.ErrPath) {
		return treeError{err, fs.ErrNotExist}
	}
	return f.ours(err)
}

// treeError is a tree's error that also is one of ours.
type treeError struct{ err, kind error }

func (e treeError) Error() string   { return e.err.Error() }
func (e treeError) Unwrap() []error { return []error{e.kind, e.err} }

func infoOf(e *tree.Entry) Info {
	i := Info{Name: e.Name, Folder: e.IsFolder(), Size: e.Size(), ModTime: e.ModTime}
	if !i.Folder {
		i.Tag = e.File.Root.String()
	}
	return i
}

// Stat implements [FS].
func (f *treeFS) Stat(_ context.Context, p string) (Info, error) {
	e, err := f.tree.Stat(p)
	if err != nil {
		return Info{}, f.seen(err)
	}
	return infoOf(&e), nil
}

// List implements [FS].
func (f *treeFS) List(_ context.Context, p string) ([]Info, error) {
	entries, err := f.tree.List(p)
	if err != nil {
		return nil, f.seen(err)
	}
	out := make([]Info, len(entries))
	for i := range entries {
		out[i] = infoOf(&entries[i])
	}
	return out, nil
}

// Open implements [FS].
func (f *treeFS) Open(ctx context.Context, p string) (File, error) {
	file, err := f.tree.OpenRead(ctx, p)
	if err != nil {
		return nil, f.seen(err)
	}
	return &treeFile{file, f}, nil
}

type treeFile struct {
	*tree.OpenFile
	fs *treeFS
}

// Info implements [File].
func (f *treeFile) Info() Info {
	e := f.Entry()
	return infoOf(&e)
}

// ReadAt implements [File].
func (f *treeFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.OpenFile.ReadAt(b, off)
	if err == io.EOF {
		return n, err
	}
	return n, f.fs.ours(err)
}

// Put implements [FS]. A file that is replaced keeps its mode, and how many copies it is to have.
func (f *treeFS) Put(ctx context.Context, p string, body io.Reader, at time.Time) (Info, error) {
	w, err := f.tree.Create(ctx, p, tree.CreateOptions{ModTime: at, AnyName: f.opt.AnyName})
	if err != nil {
		return Info{}, f.ours(err)
	}
	defer w.Abort()
	if _, err := io.Copy(w, body); err != nil {
		return Info{}, f.ours(err)
	}
	if err := w.Close(); err != nil {
		return Info{}, f.ours(err)
	}
	e := w.Entry()
	return infoOf(&e), nil
}

// Mkdir implements [FS].
func (f *treeFS) Mkdir(ctx context.Context, p string) error {
	return f.ours(f.tree.Mkdir(ctx, p, tree.MkdirOptions{AnyName: f.opt.AnyName}))
}

// Remove implements [FS].
func (f *treeFS) Remove(ctx context.Context, p string) error {
	return f.ours(f.tree.Remove(ctx, p, true))
}

// Move implements [FS].
func (f *treeFS) Move(ctx context.Context, from, to string, overwrite bool) error {
	return f.ours(f.tree.Move(ctx, from, to, overwrite))
}

// Copy implements [FS].
func (f *treeFS) Copy(ctx context.Context, from, to string, overwrite, deep bool) error {
	e, err := f.tree.Stat(from)
	if err != nil {
		return f.seen(err)
	}
	if deep || !e.IsFolder() {
		return f.ours(f.tree.Copy(ctx, from, to, overwrite))
	}
	if _, err := f.tree.Stat(to); err == nil {
		if !overwrite {
			return fmt.Errorf("copy %s: %w", path.Base(to), fs.ErrExist)
		}
		// Not one step, for once: a folder alone in the place of something is what nobody asks for but test suites, and
		// what a crash in between would take away can be restored.
		if err := f.tree.Remove(ctx, to, true); err != nil {
			return f.ours(err)
		}
	}
	return f.Mkdir(ctx, to)
}

// SetModTime implements [FS].
func (f *treeFS) SetModTime(ctx context.Context, p string, at time.Time) error {
	return f.ours(f.tree.SetTimes(ctx, p, at))
}

// Space implements [FS].
func (f *treeFS) Space(ctx context.Context) (Space, error) {
	if f.opt.Space == nil {
		return Space{}, errors.ErrUnsupported
	}
	return f.opt.Space(ctx)
}
