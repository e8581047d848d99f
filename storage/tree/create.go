package tree

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"sync"
	"time"
)

// writersMax is how many files may be written by Create at a time. Each has a goroutine and a batch.
const writersMax = 128

// CreateOptions say how a file is written. The zero value is good.
type CreateOptions struct {
	Mode      fs.FileMode // 0: that of what it replaces, or 0644
	ModTime   time.Time   // zero: when it is closed
	Copies    int         // wanted; 0: those of what it replaces, or the tree's default
	AnyName   bool        // as in PutOptions
	Exclusive bool        // ErrExist if something is there, from Close too
}

// Writer writes one file. It is for one goroutine.
type Writer struct {
	tree  *Tree
	ctx   context.Context
	put   *Put
	path  string
	pipe  *io.PipeWriter
	added chan error
	leave func() bool // stops listening to ctx
	once  sync.Once
	err   error
	entry Entry
}

// Create begins to write a file, whose folder must be there. What is written goes into this peer's store as it comes.
// Close makes it durable here, gives it its name and returns; copies on other peers are made after that. Until then,
// and for ever if Abort is called, ctx ends or the peer dies, the path shows what it showed.
func (t *Tree) Create(ctx context.Context, path string, opt CreateOptions) (*Writer, error) {
	old, err := t.lookup("create", path)
	switch {
	case err == nil && opt.Exclusive:
		return nil, fault("create", old.Path, ErrExist)
	case err == nil && old.Kind == Folder:
		return nil, fault("create", old.Path, ErrIsFolder)
	case err == nil:
		if opt.Mode == 0 {
			opt.Mode = fs.FileMode(old.Head.Mode)
		}
		if opt.Copies == 0 {
			opt.Copies = int(old.Head.Copies)
		}
		path = old.Path
	case !errors.Is(err, ErrNotExist):
		return nil, err
	}
	put := t.NewPut(PutOptions{Copies: opt.Copies, AnyName: opt.AnyName, NoParents: true, Background: true})
	clean, err := put.place(path, File)
	if err != nil {
		return nil, err
	}
	select {
	case t.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.ctx.Done():
		return nil, ErrClosed
	}
	r, pipe := io.Pipe()
	w := &Writer{tree: t, ctx: ctx, put: put, path: clean, pipe: pipe, added: make(chan error, 1)}
	put.wrote, put.exclusive = w.wrote, opt.Exclusive
	go func() {
		err := put.File(ctx, clean, opt.Mode, opt.ModTime, r)
		_ = r.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // a Write that waits fails with it
		w.added <- err
	}()
	// A caller that goes away without a word must not leave a goroutine behind.
	w.leave = context.AfterFunc(ctx, func() { _ = pipe.CloseWithError(context.Cause(ctx)) })
	return w, nil
}

// Write adds to the file. An error is the file's end: only Abort and Close, which will fail, may follow.
func (w *Writer) Write(b []byte) (int, error) {
	n, err := w.pipe.Write(b)
	return n, fault("write", w.path, err)
}

// Path is the path that the file will have.
func (w *Writer) Path() string { return w.path }

// Entry is the version that Close wrote, whatever others have written at the path since. It is the zero Entry before
// Close, and after one that failed.
func (w *Writer) Entry() Entry { return w.entry }

// wrote takes note of the file's version.
func (w *Writer) wrote(group *drafts) {
	i, ok := group.at[w.path]
	if !ok || !group.list[i].v.ID.Defined() {
		return
	}
	v := group.list[i].v
	v.Time = w.tree.timeOf(w.path, v.ID)
	w.entry = version(w.path, &v, nil)
}

// Close ends the file: it is durable here and can be seen when Close returns nil. After an error the path shows what it
// showed. A second Close returns what the first did.
func (w *Writer) Close() error {
	w.once.Do(func() {
		_ = w.pipe.Close() // never fails
		w.err = <-w.added
		if w.err == nil {
			_, w.err = w.put.Commit(w.ctx)
		}
		w.release()
	})
	return w.err
}

// Abort gives the file up. After Close it does nothing.
func (w *Writer) Abort() {
	w.once.Do(func() {
		w.err = fault("write", w.path, fs.ErrClosed)
		_ = w.pipe.CloseWithError(w.err)
		<-w.added
		w.release()
	})
}

func (w *Writer) release() {
	w.leave()
	w.put.Abort()
	<-w.tree.slots
}
