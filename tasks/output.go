package tasks

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/tasks/exec"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/keep"
	"github.com/shoal-os/shoal/tasks/market"
)

const (
	// outputHold is how long outputs are kept from collection until a record lists them.
	outputHold = time.Hour
	// secureTries is how often a second copy is tried to be had, secureAgain how long after the one before: members that have just
	// met do not know yet what room the others have.
	secureTries = 20
	secureAgain = time.Second
	// tailOut and tailErr are how much of a failed attempt's output stays with its result, in bytes.
	tailOut, tailErr = 400, 900
)

// failed makes the end of an attempt that counts against its task.
func (x *try) failed(r *job.Result) market.End {
	for _, s := range []struct {
		to   *job.Stream
		from *capture
		max  int
	}{{&r.Stdout, &x.out, tailOut}, {&r.Stderr, &x.err, tailErr}} {
		size, cut, _ := s.from.state()
		*s.to = job.Stream{Inline: s.from.tail(s.max), Cut: cut || size > int64(s.max)}
	}
	r.Outputs = nil
	raw, err := r.Encode()
	if err != nil || len(raw) > market.FailureMax {
		raw, _ = (&job.Result{Exit: r.Exit, Reason: "it failed, and how does not fit"}).Encode()
	}
	return market.End{Result: raw, Failed: true}
}

// part is a part of what an attempt leaves: a stream or a file.
type part struct {
	name string // of a file
	mode uint32
	size int64
	open func() (io.ReadCloser, error)
	put  func(inline []byte, f job.File) // into the result
}

// result makes the end of an attempt whose guest has ended.
func (x *try) result(spec *job.Spec, exit exec.Exit) (market.End, error) {
	r := &job.Result{Exit: exit.Code, Reason: reason(exit.Reason), Usage: exit.Usage}
	if exit.Code != 0 && r.Reason == "" && !spec.AnyExit {
		r.Reason = fmt.Sprintf("it ended with exit code %d", exit.Code)
	}
	if r.Reason != "" {
		return x.failed(r), nil
	}
	parts, err := x.parts(r)
	if err != nil {
		return market.End{}, err
	}
	if len(parts) > 0 {
		if err := x.pack(r, parts); err != nil {
			return market.End{}, err
		}
	}
	raw, err := r.Encode()
	if err != nil {
		return market.End{}, &blame{err.Error()}
	}
	return market.End{Result: raw}, nil
}

// parts lists what the guest wrote.
func (x *try) parts(r *job.Result) (out []part, err error) {
	for _, s := range []struct {
		from *capture
		to   *job.Stream
	}{{&x.out, &r.Stdout}, {&x.err, &r.Stderr}} {
		size, cut, err := s.from.state()
		if err != nil {
			return nil, err // the disk's fault
		}
		s.to.Cut = cut
		if size > 0 {
			out = append(out, part{
				size: size, open: func() (io.ReadCloser, error) { return io.NopCloser(s.from.all()), nil },
				put: func(inline []byte, f job.File) { s.to.Inline, s.to.File = inline, f },
			})
		}
	}
	files, err := filesIn(filepath.Join(x.guestDir, "out"))
	if err != nil {
		return nil, err
	}
	for i := range files {
		if files[i].size == 0 {
			files[i].open = nil
		}
	}
	slices.SortFunc(files, func(a, b part) int { return cmp.Compare(a.name, b.name) })
	return append(out, files...), nil
}

// filesIn lists the regular files below a folder, which need not be there. No symbolic link is followed.
func filesIn(dir string) (out []part, err error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if len(out) >= job.ManifestFiles {
			return &blame{fmt.Sprintf("it left more than %d files", job.ManifestFiles)}
		}
		out = append(out, part{
			name: name, mode: uint32(info.Mode().Perm()), size: info.Size(),
			open: func() (io.ReadCloser, error) { return os.OpenInRoot(dir, filepath.FromSlash(name)) },
		})
		return nil
	})
	return out, err
}

// pack puts parts into the result: inline what fits, else as files of the pool, which are durable on two peers when it returns.
func (x *try) pack(r *job.Result, parts []part) error {
	files := 0
	for i := range parts {
		if parts[i].put == nil {
			files++
		}
	}
	list := make([]job.Output, 0, files)
	for i := range parts {
		p := &parts[i]
		if p.put != nil {
			continue
		}
		list = append(list, job.Output{Name: p.name, Mode: p.mode})
		o := &list[len(list)-1]
		p.put = func(inline []byte, f job.File) { o.Inline, o.File = inline, f }
	}
	bag := &bag{x: x}
	defer bag.close()
	order := slices.Clone(parts)
	slices.SortStableFunc(order, func(a, b part) int { return cmp.Compare(a.size, b.size) })
	left := int64(job.InlineMax)
	for i := range parts {
		left -= int64(2 * len(parts[i].name)) // which takes room in the result too
	}
	for i := range order {
		p := &order[i]
		if p.size <= left {
			left -= p.size
			data, err := p.read()
			if err != nil {
				return err
			}
			p.put(data, job.File{})
			continue
		}
		f, err := bag.add(p)
		if err != nil {
			return err
		}
		p.put(nil, f)
	}
	if files > job.OutputsMax {
		raw, err := job.EncodeManifest(list)
		if err != nil {
			return &blame{err.Error()}
		}
		f, err := bag.addBytes(raw)
		if err != nil {
			return err
		}
		list = []job.Output{{File: f, Mode: 0o600}}
	}
	r.Outputs = list
	return bag.secure()
}

func (p *part) read() ([]byte, error) {
	if p.open == nil {
		return nil, nil
	}
	r, err := p.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	return io.ReadAll(io.LimitReader(r, job.InlineMax))
}

// bag gathers the files of one attempt on their way into the pool.
type bag struct {
	x      *try
	batch  adder
	pieces []piece.Piece
}

// adder is a tree.Batch.
type adder interface {
	Add(ctx context.Context, r io.Reader) (piece.File, error)
	Commit() error
	Close()
}

func (b *bag) close() {
	if b.batch != nil {
		b.batch.Close()
	}
}

func (b *bag) add(p *part) (job.File, error) {
	r, err := p.open()
	if err != nil {
		return job.File{}, err
	}
	defer func() { _ = r.Close() }()
	return b.addFrom(r)
}

func (b *bag) addBytes(raw []byte) (job.File, error) { return b.addFrom(bytes.NewReader(raw)) }

func (b *bag) addFrom(r io.Reader) (job.File, error) {
	if b.batch == nil {
		b.batch = b.x.h.t.cfg.Bytes.NewBatch()
	}
	f, err := b.batch.Add(b.x.ctx, r)
	if err != nil {
		return job.File{}, err
	}
	b.pieces = append(b.pieces, f.Pieces...)
	return jobFile(f), nil
}

// secure makes what was added durable on two peers.
func (b *bag) secure() error {
	if b.batch == nil {
		return nil
	}
	if err := b.batch.Commit(); err != nil {
		return err
	}
	return b.x.h.t.secure(b.x.ctx, b.pieces)
}

// secure has pieces that are here durable on two peers, or on this one when there is no other that lends space, and keeps them from
// collection until a record lists them.
func (t *Tasks) secure(ctx context.Context, pieces []piece.Piece) error {
	if len(pieces) == 0 {
		return nil
	}
	ids := make([]chunk.CID, len(pieces))
	for i, p := range pieces {
		ids[i] = p.ID
	}
	t.cfg.Keeper.Hold(outputHold, ids...)
	for try := 1; ; try++ {
		got, err := t.cfg.Bytes.Secure(ctx, pieces, keep.Copies, keep.Copies, nil)
		if err != nil || got.Copies >= keep.Copies || got.Copies == 1 && !t.othersLend() {
			return err
		}
		if try >= secureTries {
			return fmt.Errorf("tasks: %d copies of an output could be made, %d are wanted", got.Copies, keep.Copies)
		}
		timer := time.NewTimer(secureAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// othersLend reports whether another member that is there lends space.
func (t *Tasks) othersLend() bool {
	return slices.ContainsFunc(t.cfg.Members.Members(), func(m roster.Member) bool {
		return m.ID != t.self && m.State == roster.Online && m.Lends.Space > 0
	})
}

// Outputs returns the files that a result names, one by one, however many they are.
func (t *Tasks) Outputs(ctx context.Context, r *job.Result) ([]job.Output, error) {
	f, ok := r.Manifest()
	if !ok {
		return r.Outputs, nil
	}
	raw, err := t.readAll(ctx, f, job.ManifestMax)
	if err != nil {
		return nil, err
	}
	return job.DecodeManifest(raw)
}

// Store makes a file of bytes, durable on two peers (or on as many as there are), for a spec to name. It is kept for a day; a job
// that names it keeps it on.
func (t *Tasks) Store(ctx context.Context, r io.Reader) (job.File, error) {
	batch := t.cfg.Bytes.NewBatch()
	defer batch.Close()
	f, err := batch.Add(ctx, r)
	if err == nil {
		err = batch.Commit()
	}
	if err == nil {
		err = t.secure(ctx, f.Pieces)
	}
	if err != nil {
		return job.File{}, fmt.Errorf("tasks: store: %w", err)
	}
	ids := make([]chunk.CID, len(f.Pieces))
	for i, p := range f.Pieces {
		ids[i] = p.ID
	}
	t.cfg.Keeper.Hold(storeHold, ids...)
	return jobFile(f), nil
}

// storeHold is how long what was stored is kept for a job to name it.
const storeHold = 24 * time.Hour

// copyAll copies a file of the pool.
func copyAll(w io.Writer, r io.ReaderAt, size int64) (int64, error) {
	n, err := io.CopyBuffer(onlyWriter{w}, io.NewSectionReader(r, 0, size), make([]byte, copyBuffer))
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
