package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/car"
)

// ErrImport reports a CAR file whose content cannot be had from it.
var ErrImport = errors.New("cannot be imported")

// CarSuffix ends the names of CAR files.
const CarSuffix = ".car"

// ImportOptions says where the files of a CAR file go.
type ImportOptions struct {
	Dest  string // the path of the file or folder to make; "" is beside the CAR file, without its suffix
	Force bool   // replace what stands there
}

// Import unpacks a CAR file into files and shares these in place. Every block is
// verified. A destination that holds exactly that already is success.
//
// Errors: car.ErrFormat, ErrImport, chunk.ErrTree (the root is none that can be a
// file or folder here), ErrExists, ErrSpace, exchange.ErrBusy, the disk's own.
func (s *Storage) Import(ctx context.Context, path string, opt ImportOptions, progress func(Progress)) (Share, error) {
	if progress == nil {
		progress = func(Progress) {}
	}
	if opt.Dest == "" {
		opt.Dest = strings.TrimSuffix(path, CarSuffix)
		if opt.Dest == path {
			opt.Dest += "-files"
		}
	}
	share, err := s.unpack(ctx, path, opt, progress)
	if err != nil {
		return Share{}, fmt.Errorf("storage: import: %w", err)
	}
	return share, nil
}

func (s *Storage) unpack(ctx context.Context, path string, opt ImportOptions, progress func(Progress)) (Share, error) {
	dest, err := filepath.Abs(opt.Dest)
	if err != nil {
		return Share{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return Share{}, err
	}
	defer f.Close()
	a := &archive{file: f, nodes: map[chunk.CID][]byte{}, leaves: map[chunk.CID]span{}, progress: progress}
	if err := a.scan(ctx); err != nil {
		return Share{}, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	release, err := s.claim(a.root)
	if err != nil {
		return Share{}, err
	}
	defer release()
	defer s.fillers.hold(a.root)()
	g := &getting{
		s: s, link: chunk.Link{Root: a.root, Name: filepath.Base(dest)}, dest: dest, progress: progress,
		opt: GetOptions{Dest: dest, Force: opt.Force},
	}
	if err := there(a.into(ctx, g)); err != nil {
		return Share{}, err
	}
	r, ok := s.store.Root(a.root)
	if !ok {
		return Share{}, ErrNotShared
	}
	s.seed(a.root)
	return s.describe(r), nil
}

// span is where a leaf's bytes lie in a CAR file.
type span struct {
	offset int64
	size   int32
}

// archive is what a CAR file holds: its nodes, and where its leaves lie.
type archive struct {
	file      *os.File
	root      chunk.CID
	nodes     map[chunk.CID][]byte
	nodeBytes int64
	leaves    map[chunk.CID]span
	tree      *chunk.Tree
	order     [][]byte // nodes in walk order
	progress  func(Progress)
}

// scan reads the file once, verifying every block, and finds the root's tree.
func (a *archive) scan(ctx context.Context) error {
	fi, err := a.file.Stat()
	if err != nil {
		return err
	}
	r, err := car.NewReader(a.file)
	if err != nil {
		return err
	}
	if n := len(r.Roots()); n != 1 {
		return fmt.Errorf("%w: it has %d roots, and one is what can be shared", ErrImport, n)
	}
	a.root = r.Roots()[0]
	var rate rates
	for n := 0; ; n++ {
		id, data, offset, err := r.Next()
		if errors.Is(err, io.EOF) {
			return a.walk()
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = a.add(id, data, offset)
		}
		if err != nil {
			return err
		}
		if n%64 == 0 {
			a.progress(Progress{Phase: "verifying", Done: offset, Total: fi.Size(), Rate: rate.at(time.Now(), offset)})
		}
	}
}

// add notes one block, within the limits that a tree has.
func (a *archive) add(id chunk.CID, data []byte, offset int64) error {
	if id.IsRaw() {
		if len(a.leaves) >= chunk.LeavesMax {
			return fmt.Errorf("%w: it has more than %d leaves", ErrImport, chunk.LeavesMax)
		}
		a.leaves[id] = span{offset, int32(len(data))}
		return nil
	}
	if a.nodes[id] != nil {
		return nil
	}
	if a.nodeBytes += int64(len(data)); a.nodeBytes > chunk.NodeBytesMax {
		return fmt.Errorf("%w: its blocks that are not leaves have more than %d bytes", ErrImport, int64(chunk.NodeBytesMax))
	}
	a.nodes[id] = bytes.Clone(data)
	return nil
}

// walk makes the tree and looks whether all of it is there.
func (a *archive) walk() error {
	w := chunk.NewWalker(a.root, chunk.Limits{})
	for id, more := w.Next(); more; id, more = w.Next() {
		data, ok := a.nodes[id]
		if !ok {
			return a.missing(id)
		}
		if err := w.Add(data); err != nil {
			return err
		}
		a.order = append(a.order, data)
	}
	tree, err := w.Tree()
	if err != nil {
		return err
	}
	for i := range tree.Leaves {
		l := &tree.Leaves[i]
		at, ok := a.leaves[l.CID]
		switch {
		case !ok:
			return a.missing(l.CID)
		case l.Size < 0: // a raw root, whose size only its leaf tells
			l.Size, tree.Entries[0].Size, tree.Size = at.size, int64(at.size), int64(at.size)
		case l.Size != at.size:
			return fmt.Errorf("%w: a leaf has %d bytes where the tree says %d", chunk.ErrTree, at.size, l.Size)
		}
	}
	a.tree, a.nodes = tree, nil
	return nil
}

func (a *archive) missing(id chunk.CID) error {
	return fmt.Errorf("%w: block %s of its root is not in it", ErrImport, id)
}

// into writes the files and records them. A root that is here whole already
// keeps its record; the files are a second copy then.
func (a *archive) into(ctx context.Context, g *getting) error {
	if old, ok := g.s.store.Root(a.root); ok && old.Info().State != block.Partial {
		bad, err := old.Check(1)
		if err != nil || len(bad) == 0 {
			if err != nil || old.Info().Path == g.dest {
				return err
			}
			return a.copy(ctx, g)
		}
	}
	r, err := g.begin(ctx, a.tree, a.order)
	if err != nil {
		return err
	}
	if err := a.fill(ctx, r); err != nil {
		return err
	}
	return g.finish(r)
}

// copy writes the files beside a record that stays as it is.
func (a *archive) copy(ctx context.Context, g *getting) error {
	if exists(g.dest) {
		same, err := matches(ctx, g.dest, a.tree, nil)
		switch {
		case err != nil:
			return err
		case same:
			return nil
		case !g.opt.Force:
			return fmt.Errorf("%s: %w", g.dest, ErrExists)
		}
	}
	if err := errors.Join(checkNames(a.tree), checkSpace(filepath.Dir(g.dest), a.tree.Size)); err != nil {
		return err
	}
	r, err := g.s.store.BeginCopy(a.tree, g.name(), g.dest)
	if err != nil {
		return err
	}
	if err = a.fill(ctx, r); err == nil {
		err = r.Finish(g.opt.Force)
	}
	return errors.Join(err, g.s.store.Discard(r))
}

// fill copies what the record lacks out of the CAR file.
func (a *archive) fill(ctx context.Context, r *block.Root) error {
	w, err := r.NewWriter()
	if err != nil {
		return err
	}
	defer w.Close()
	buf := make([]byte, chunk.LeafMax)
	var done int64
	var rate rates
	for i := range a.tree.Leaves {
		at := a.leaves[a.tree.Leaves[i].CID]
		done += int64(at.size)
		if r.Has(i) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		data := buf[:at.size]
		if _, err := a.file.ReadAt(data, at.offset); err != nil {
			return err
		}
		if chunk.SumRaw(data) != a.tree.Leaves[i].CID {
			return fmt.Errorf("%s: %w", a.file.Name(), ErrChanging)
		}
		if err := errors.Join(w.WriteLeaf(i, data), r.Mark(i)); err != nil {
			return err
		}
		if i%64 == 0 {
			a.progress(Progress{Phase: "writing", Done: done, Total: a.tree.Size, Rate: rate.at(time.Now(), done)})
		}
	}
	return nil
}

// Export writes what link names to a CAR file at opt.Dest: CARv1, depth first, no
// block twice; the same root always gives the same bytes. What is not here is
// fetched as it is written, and kept in the cache for the next attempt. A file that
// holds exactly that already is success. Of opt, Dest, Force and Timeout count.
func (s *Storage) Export(ctx context.Context, link chunk.Link, opt GetOptions, progress func(Progress)) (GetResult, error) {
	res, err := s.export(ctx, link, opt, progress)
	if err != nil {
		return res, fmt.Errorf("storage: export: %w", err)
	}
	return res, nil
}

func (s *Storage) export(ctx context.Context, link chunk.Link, opt GetOptions, progress func(Progress)) (GetResult, error) {
	start := time.Now()
	dest, err := filepath.Abs(opt.Dest)
	if err != nil || opt.Dest == "" {
		return GetResult{}, fmt.Errorf("destination: %w", errors.Join(err, os.ErrInvalid))
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	if err := writable(filepath.Dir(dest)); err != nil {
		return GetResult{}, err
	}
	// Only until the tree is here: then what is written is the progress.
	c, err := s.Open(ctx, link, OpenOptions{Timeout: opt.Timeout})
	if err != nil {
		return GetResult{}, err
	}
	defer c.Close()
	res := GetResult{Path: dest, Root: link.Root, Size: c.tree.Size, Files: c.tree.Files, Fetched: c.lacking()}
	res.Reused = max(0, res.Size-res.Fetched)
	out := &counting{progress: progress, total: c.tree.Size}
	if exists(dest) && !opt.Force {
		err = c.sameCAR(ctx, dest, out)
	} else {
		err = c.saveCAR(ctx, dest, out)
	}
	res.Elapsed = time.Since(start)
	return res, err
}

// lacking is how many bytes of leaves are not here.
func (c *Content) lacking() (n int64) {
	roots, seen := c.fill.roots(), map[chunk.CID]bool{}
	for i := range c.tree.Leaves {
		if l := &c.tree.Leaves[i]; !held(roots, i) && !seen[l.CID] {
			seen[l.CID] = true
			n += max(0, int64(l.Size))
		}
	}
	return n
}

// saveCAR writes the file under a partial's name first.
func (c *Content) saveCAR(ctx context.Context, dest string, out *counting) error {
	if err := os.MkdirAll(filepath.Dir(dest), 0o777); err != nil {
		return err
	}
	if err := checkSpace(filepath.Dir(dest), c.tree.Size); err != nil {
		return err
	}
	// The name is of this root: a download of another to the same path has a partial of its own. Nor is it emptied first, for
	// another export of the same root may be at work on it, which writes the same bytes.
	root := c.Root().String()
	partial := dest + "." + root[len(root)-16:] + block.PartialSuffix
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	out.w = f
	err = c.WriteCAR(ctx, out, CarOptions{})
	if err == nil {
		err = f.Truncate(out.done) // an export that was killed may have left more behind
	}
	if err = errors.Join(err, f.Close()); err == nil {
		if fi, bad := os.Lstat(dest); bad == nil && fi.IsDir() {
			err = fmt.Errorf("%s: %w and is a folder", dest, ErrExists)
		} else {
			err = os.Rename(partial, dest)
		}
	}
	if err != nil {
		_ = os.Remove(partial)
	}
	return err
}

// sameCAR is nil if the file at dest is what would be written, and ErrExists at the
// first byte that is not.
func (c *Content) sameCAR(ctx context.Context, dest string, out *counting) error {
	f, err := os.Open(dest)
	if err != nil {
		return err
	}
	defer f.Close()
	cmp := &comparing{f: f}
	out.w = cmp
	err = c.WriteCAR(ctx, out, CarOptions{})
	if err == nil {
		if n, _ := f.Read(make([]byte, 1)); n > 0 {
			err = errDiffers
		}
	}
	if errors.Is(err, errDiffers) {
		return fmt.Errorf("%s: %w", dest, ErrExists)
	}
	return err
}

var errDiffers = errors.New("differs")

// comparing is a writer that fails at the first byte that a file does not have.
type comparing struct {
	f   io.Reader
	buf []byte
}

func (c *comparing) Write(p []byte) (int, error) {
	if cap(c.buf) < len(p) {
		c.buf = make([]byte, len(p))
	}
	got := c.buf[:len(p)]
	if _, err := io.ReadFull(c.f, got); err != nil || !bytes.Equal(got, p) {
		return 0, errDiffers
	}
	return len(p), nil
}

// counting shows how much was written.
type counting struct {
	w        io.Writer
	progress func(Progress)
	done     int64
	total    int64
	rate     rates
	said     time.Time
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.done += int64(n)
	if now := time.Now(); now.Sub(c.said) >= progressPeriod {
		c.said = now
		c.progress(Progress{Phase: "writing", Done: min(c.done, c.total), Total: c.total, Rate: c.rate.at(now, c.done)})
	}
	return n, err
}
