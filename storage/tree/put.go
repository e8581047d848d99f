package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/tree/paths"
)

const (
	// putFiles and putBytes bound what a Put gathers before it makes it durable and names it. One file may be larger.
	putFiles = 512
	putBytes = 256 << 20
	// putFlights is how many such groups may be waiting for their copies while the next is read.
	putFlights = 2
)

// FileMax is the largest file, in bytes: 896 GiB, so that the names of its pieces fit into a record.
const FileMax = paths.PiecesMax * paths.PieceMax

// PutOptions say how files are put. The zero value is good.
type PutOptions struct {
	Copies int // wanted; 0: the tree's default
	// Ack is how many durable copies there must be before a file gets its name; 0: two, or Copies if that is less.
	// When no more can be had at present, fewer do, and Result.Copies says so.
	Ack int
	// Background names files as soon as they are durable here, and has copies made afterwards.
	Background bool
	AnyName    bool // names that Windows or macOS cannot hold, or take for another's, are allowed
	NoParents  bool // a missing folder is ErrNotExist instead of being made
	Progress   func(Progress)
}

// Progress says how far a put or a get is. It comes often, one at a time, from whichever goroutine did something; who
// shows it picks.
type Progress struct {
	Path            string // at work on
	Files           int    // done
	Bytes           int64  // read or written
	TotalFiles      int    // 0: not known
	TotalBytes      int64
	Secured, Pieces int // of the group whose copies are being made: pieces that have enough, and all
}

// Result says what a put did.
type Result struct {
	Files, Folders int
	Unchanged      int    // files that were there already, the same
	Bytes          int64  // of Files
	Copies         int    // durable ones at the end, of the piece with the fewest; 0 if nothing was waited for
	Skipped        []Skip // the first 10,000 of them
	SkippedCount   int
}

// Skip is something that was left out, and why.
type Skip struct {
	Path string
	Err  error
}

// Put puts many files. What it was given gets durable and named in groups, each file wholly or not at all: a crash
// leaves for each path the old version or the new one. It is for one goroutine, and must be ended by Commit or Abort.
type Put struct {
	tree   *Tree
	opt    PutOptions
	batch  Batch
	next   *drafts       // of the group that is gathered
	pieces []piece.Piece // of that group
	size   int64
	flying []*flight // groups on their way, the earliest first
	result Result
	faults faults
	err    error         // that ended it
	wrote  func(*drafts) // if not nil, hears of each group that has its names

	exclusive bool // nothing is put where something is

	telling sync.Mutex // at, and calls of opt.Progress
	at      Progress
}

// flight is a group on its way to its names.
type flight struct {
	drafts  *drafts
	done    chan struct{}
	err     error  // that ended the put
	faults  faults // of single files
	secured int
}

// NewPut begins a put.
func (t *Tree) NewPut(opt PutOptions) *Put {
	return &Put{tree: t, opt: opt, next: newDrafts()}
}

// File reads a file to its end and puts it at a path. Folders above it that are missing are made. It may return before
// the file has its name; what goes wrong with that comes from Commit. After an error of r, or one of the kinds that
// say what is wrong with a path, the put can go on with other files.
func (p *Put) File(ctx context.Context, path string, mode fs.FileMode, mtime time.Time, r io.Reader) error {
	clean, err := p.place(path, File)
	if err != nil {
		return err
	}
	if err := p.room(ctx); err != nil {
		return err
	}
	if p.batch == nil {
		p.batch = p.tree.cfg.Bytes.NewBatch()
	}
	counted := &counter{r: r, put: p, path: clean}
	f, err := p.batch.Add(ctx, counted)
	if err != nil {
		return fault("put", clean, err)
	}
	p.gather(p.tree.fileDraft(clean, f, orMode(mode, fileMode), mtime, p.opt.Copies))
	p.pieces = append(p.pieces, f.Pieces...)
	p.size += f.Size
	p.result.Files++
	p.result.Bytes += f.Size
	p.tell(func(at *Progress) { at.Path, at.Files, at.Bytes = clean, p.result.Files, p.result.Bytes })
	return nil
}

// Folder puts a folder at a path, or changes the mode and time of one that is there.
func (p *Put) Folder(ctx context.Context, path string, mode fs.FileMode, mtime time.Time) error {
	clean, err := p.place(path, Folder)
	if err != nil || clean == paths.Root {
		return err
	}
	if err := p.room(ctx); err != nil {
		return err
	}
	p.gather(p.tree.folderDraft(clean, orMode(mode, folderMode), mtime))
	p.result.Folders++
	return nil
}

func orMode(mode, other fs.FileMode) fs.FileMode {
	if mode == 0 {
		return other
	}
	return mode
}

// place checks a path, and drafts the folders that are missing above it.
func (p *Put) place(path string, kind Kind) (string, error) {
	if p.err == nil && p.tree.closed.Load() {
		p.err = ErrClosed
	}
	if p.err != nil {
		return "", p.err
	}
	clean, err := paths.Clean(path)
	if err != nil {
		return "", fault("put", path, err)
	}
	there, missing, err := p.sight().place(clean, rules{anyName: p.opt.AnyName})
	switch {
	case err != nil:
		return "", err
	case there == Folder && kind == File:
		return "", fault("put", clean, ErrIsFolder)
	case there == File && kind == Folder:
		return "", fault("put", clean, ErrNotFolder)
	case len(missing) > 0 && p.opt.NoParents:
		return "", fault("put", clean, ErrNotExist)
	}
	for _, d := range p.tree.folders(missing) {
		p.gather(d)
	}
	return clean, nil
}

func (p *Put) sight() sight {
	s := sight{Tree: p.tree}
	for _, f := range p.flying {
		s.soon = append(s.soon, f.drafts)
	}
	s.soon = append(s.soon, p.next)
	return s
}

// gather adds a draft to the group. A file that is put in the place of a conflict takes that away.
func (p *Put) gather(d draft) {
	if i, ok := p.tree.item(d.path); ok && i.Conflict() {
		gone := removal(&i, newBatch()) // at the path that the conflict is about
		d.takes = &gone
	}
	p.next.add(d)
}

// room sends the group on its way if it is full.
func (p *Put) room(ctx context.Context) error {
	if p.err == nil && (len(p.next.list) >= putFiles || p.size >= putBytes) {
		p.err = p.launch(ctx)
	}
	return p.err
}

// launch makes the group durable and sends it on its way to copies and names.
func (p *Put) launch(ctx context.Context) error {
	if len(p.next.list) == 0 {
		return nil
	}
	for len(p.flying) >= putFlights {
		if err := p.land(); err != nil {
			return err
		}
	}
	f := &flight{drafts: p.next, done: make(chan struct{})}
	batch, pieces := p.batch, p.pieces
	p.batch, p.next, p.pieces, p.size = nil, newDrafts(), nil, 0
	if batch != nil {
		if err := batch.Commit(); err != nil {
			batch.Close()
			return err
		}
	}
	p.flying = append(p.flying, f)
	var before *flight
	if len(p.flying) > 1 {
		before = p.flying[len(p.flying)-2]
	}
	ctx, cancel := context.WithCancel(ctx)
	leave := context.AfterFunc(p.tree.ctx, cancel)
	go func() {
		defer close(f.done)
		defer cancel()
		defer leave()
		if batch != nil {
			defer batch.Close() // once there are names, or never will be
		}
		f.err = p.finish(ctx, f, before, pieces)
	}()
	return nil
}

// finish has copies made of a group's pieces and gives it its names, after the group before it has them: a folder must
// be there before what is in it.
func (p *Put) finish(ctx context.Context, f, before *flight, pieces []piece.Piece) error {
	if err := p.secure(ctx, f, pieces); err != nil {
		return err
	}
	if before != nil {
		<-before.done
		if before.err != nil {
			return nil // told already
		}
	}
	if err := p.tree.saveMany(ctx, f.drafts.list, p.recheck, &f.faults); err != nil {
		return err
	}
	if p.wrote != nil {
		p.wrote(f.drafts)
	}
	if p.opt.Background {
		p.tree.secureLater(pieces, int(p.tree.copies(p.opt.Copies)))
	}
	return nil
}

func (p *Put) secure(ctx context.Context, f *flight, pieces []piece.Piece) error {
	if p.opt.Background || len(pieces) == 0 {
		return nil
	}
	copies := int(p.tree.copies(p.opt.Copies))
	ack := p.opt.Ack
	if ack <= 0 {
		ack = ackDefault
	}
	secured, err := p.tree.cfg.Bytes.Secure(ctx, pieces, copies, min(ack, copies), func(done, total int) {
		p.tell(func(at *Progress) { at.Secured, at.Pieces = done, total })
	})
	f.secured = secured.Copies
	return err
}

// recheck looks again, with no other writer between it and the names, whether what was drafted can still be put: another
// peer's record, or another put, may have come in meanwhile. It says nothing of names that only look alike: those
// are shown beside each other and nothing is lost.
func (p *Put) recheck(d *draft) error {
	if p.exclusive {
		if _, ok := p.tree.item(d.path); ok {
			return fault("put", d.path, ErrExist)
		}
	}
	return p.tree.recheck("put", d)
}

// recheck is Put.recheck for whoever drafted it.
func (t *Tree) recheck(op string, d *draft) error {
	if d.v.Kind == Removed {
		return nil
	}
	i, ok := t.item(d.path)
	switch {
	case ok && d.v.Kind == File && i.Kind == Folder:
		return fault(op, d.path, ErrIsFolder)
	case ok && d.v.Kind == Folder && i.Kind == File: // it would go as if somebody had saved it again
		return fault(op, d.path, ErrNotFolder)
	}
	for dir := d.path; !ok; {
		dir, _ = paths.Split(dir)
		if i, ok = t.item(dir); ok && i.Kind == File {
			return fault(op, dir, ErrNotFolder)
		}
	}
	return nil
}

// land waits for the earliest group on its way.
func (p *Put) land() error {
	f := p.flying[0]
	<-f.done
	p.flying = p.flying[1:]
	p.faults.join(&f.faults)
	if f.secured > 0 && (p.result.Copies == 0 || f.secured < p.result.Copies) {
		p.result.Copies = f.secured
	}
	return f.err
}

// Commit makes all that was put durable and gives it its names. When it returns without an error everything can be
// seen, and has its copies unless that was to be done in the background. Files that failed are in the error, by
// themselves; all others are put all the same.
func (p *Put) Commit(ctx context.Context) (Result, error) {
	err := p.err
	if err == nil {
		err = p.launch(ctx)
	}
	if errors.Is(err, errEnded) {
		return p.result, ErrClosed
	}
	for len(p.flying) > 0 {
		err = errors.Join(err, p.land())
	}
	p.end()
	p.result.Files -= p.faults.files
	return p.result, errors.Join(err, p.faults.err())
}

// errEnded is what a put that was ended is used with.
var errEnded = fmt.Errorf("the put is over: %w", ErrClosed)

// Abort gives up what has no name yet. After Commit it does nothing.
func (p *Put) Abort() {
	for len(p.flying) > 0 {
		_ = p.land() // whoever aborts does not ask
	}
	p.end()
}

func (p *Put) end() {
	p.err = errEnded
	if p.batch != nil {
		p.batch.Close()
		p.batch = nil
	}
}

// tell changes what is known of the progress and reports it.
func (p *Put) tell(change func(*Progress)) {
	if p.opt.Progress == nil {
		return
	}
	p.telling.Lock()
	defer p.telling.Unlock()
	change(&p.at)
	p.opt.Progress(p.at)
}

// counter counts what is read, and tells of it.
type counter struct {
	r    io.Reader
	put  *Put
	path string
	n    int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	if c.n > FileMax { // before all of it was read in vain
		return n, ErrTooLarge
	}
	if n > 0 {
		done := &c.put.result
		c.put.tell(func(at *Progress) { at.Path, at.Files, at.Bytes = c.path, done.Files, done.Bytes+c.n })
	}
	return n, err
}
