package tree

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/tree/paths"
)

// skipsMax is how many things that were left out are listed.
const skipsMax = 10_000

// Why something of a folder of this machine was left out, by errors.Is.
var (
	ErrSpecial = errors.New("it is neither a file nor a folder") // a symbolic link, a device, a socket
	ErrChanged = errors.New("it changed while it was read")      // what was read was put: put it again
)

// PutDir puts a file or a folder of this machine, with all that is in it, at a path. Symbolic links inside are not
// followed; they, and whatever else the pool cannot hold, are left out and listed. A file that is at its path already
// with the same size and time is not read again, so a put that was broken off goes on where it was.
func (t *Tree) PutDir(ctx context.Context, src, path string, opt PutOptions) (Result, error) {
	clean, err := paths.Clean(path)
	if err != nil {
		return Result{}, fault("put", path, err)
	}
	fi, err := os.Stat(src)
	if err != nil {
		return Result{}, err
	}
	dir, start := src, "."
	if !fi.IsDir() {
		dir, start = filepath.Split(src)
		if dir == "" {
			dir = "."
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Result{}, err
	}
	defer root.Close()
	p := &dirPut{ctx: ctx, tree: t, root: root, start: start, to: clean}
	if progress := opt.Progress; progress != nil {
		p.count()
		opt.Progress = func(at Progress) {
			at.TotalFiles, at.TotalBytes = p.total.Files, p.total.Bytes
			at.Files, at.Bytes = at.Files+int(p.skipped.Load()), at.Bytes+p.skippedBytes.Load()
			progress(at)
		}
	}
	p.Put = t.NewPut(opt)
	defer p.Abort()
	if fi.IsDir() {
		err = fs.WalkDir(root.FS(), start, p.visit)
	} else {
		err = p.file(start, clean)
	}
	if err != nil {
		p.Abort()
		return p.Put.result, err
	}
	return p.Commit(ctx)
}

// dirPut is a PutDir at work.
type dirPut struct {
	*Put
	ctx   context.Context
	tree  *Tree
	root  *os.Root
	start string
	to    string
	total Progress // of all regular files

	skipped, skippedBytes atomic.Int64 // files that were not read
}

// count finds the totals.
func (p *dirPut) count() {
	_ = fs.WalkDir(p.root.FS(), p.start, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || p.ctx.Err() != nil {
			return p.ctx.Err() // what cannot be read is told when it is put
		}
		if d.Type().IsRegular() {
			if fi, err := d.Info(); err == nil {
				p.total.Files++
				p.total.Bytes += fi.Size()
			}
		}
		return nil
	})
}

// visit puts one thing of the folder. Only what ends the whole put is an error.
func (p *dirPut) visit(name string, d fs.DirEntry, err error) error {
	to := p.to
	if name != "." {
		to = paths.Join(p.to, name)
	}
	switch {
	case p.ctx.Err() != nil:
		return p.ctx.Err()
	case err != nil:
		p.leaveOut(name, err)
		return nil
	case name != ".":
		if err := chunk.CheckName(d.Name(), ""); err != nil {
			p.leaveOut(name, errors.Join(ErrPath, err))
			return skipDir(d)
		}
	}
	switch {
	case d.IsDir():
		return p.folder(name, to, d)
	case d.Type().IsRegular():
		return p.file(name, to)
	}
	p.leaveOut(name, ErrSpecial)
	return nil
}

func skipDir(d fs.DirEntry) error {
	if d.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// leaveOut lists something that is not put.
func (p *dirPut) leaveOut(name string, err error) {
	p.result.skip(filepath.Join(p.root.Name(), filepath.FromSlash(name)), err)
}

func (r *Result) skip(path string, err error) {
	if len(r.Skipped) < skipsMax {
		r.Skipped = append(r.Skipped, Skip{path, err})
	}
	r.SkippedCount++
}

// folder puts a folder, unless it is there: its time changes with all that is put into it.
func (p *dirPut) folder(name, to string, d fs.DirEntry) error {
	if i, ok := p.tree.item(to); ok && i.Kind == Folder && i.Head.ID.Defined() {
		return nil
	}
	var mode fs.FileMode
	var mtime time.Time
	if fi, err := d.Info(); err == nil {
		mode, mtime = fi.Mode(), fi.ModTime()
	}
	if err := p.Folder(p.ctx, to, mode, mtime); err != nil {
		if p.err != nil {
			return p.err
		}
		p.leaveOut(name, err)
		return fs.SkipDir
	}
	return nil
}

// file puts a file, unless it is there the same.
func (p *dirPut) file(name, to string) error {
	f, err := p.root.Open(name)
	if err != nil {
		p.leaveOut(name, err)
		return nil
	}
	defer f.Close()
	before, err := f.Stat()
	if err == nil && !before.Mode().IsRegular() {
		err = ErrSpecial
	}
	if err != nil {
		p.leaveOut(name, err)
		return nil
	}
	if p.unchanged(to, before) {
		return nil
	}
	src := &source{r: f}
	if err := p.File(p.ctx, to, before.Mode(), before.ModTime(), src); err != nil {
		if p.err != nil || p.ctx.Err() != nil || src.err == nil && !isOfPath(err) {
			return err
		}
		p.leaveOut(name, err)
		return nil
	}
	if after, err := f.Stat(); err != nil || after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		p.leaveOut(name, ErrChanged)
	}
	return nil
}

// source remembers why a file could not be read, as opposed to why it could not be put.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// isOfPath reports whether an error is about the one path or file, so that others can still be put: a full disk is not.
func isOfPath(err error) bool {
	for _, kind := range []error{ErrIsFolder, ErrNotFolder, ErrPath, ErrCase, ErrName, ErrTooLarge} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// unchanged reports whether the pool has the file already. What differs in its mode alone gets that without being read.
func (p *dirPut) unchanged(to string, fi fs.FileInfo) bool {
	i, ok := p.tree.item(to)
	if !ok || i.Kind != File || i.Conflict() || i.Head.Size != fi.Size() || i.Head.MTime != fi.ModTime().UnixNano() {
		return false
	}
	if mode := uint32(fi.Mode().Perm()); mode != i.Head.Mode {
		d := again(to, i.Head)
		d.v.Mode = mode
		p.gather(d)
	}
	p.result.Unchanged++
	p.skipped.Add(1)
	p.skippedBytes.Add(fi.Size())
	p.tell(func(at *Progress) { at.Path = to })
	return true
}
