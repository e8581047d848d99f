package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/tree/paths"
)

const (
	// getWorkers is how many files are read and written at a time: small ones wait for the network most of the time.
	getWorkers = 4
	// copySize is how much of a file is read and written at a time, by each worker.
	copySize = 1 << 20
	// warmFiles and warmBytes bound the small files that are fetched together.
	warmFiles, warmBytes = 512, 32 << 20
)

// GetOptions say how files are got. The zero value is good.
type GetOptions struct {
	Overwrite bool // replace files that are in the way; else they are left out and listed
	Progress  func(Progress)
}

// GetTo writes a file, or a folder with all that is in it, to the path dest of this machine. Files get their final
// names when they are whole, with their modes and times; what is there already with the same size and time is not
// read again, so a get that was broken off goes on where it was. What this system cannot hold is left out and listed.
// Files that cannot be read are in the error, by themselves; all others are written all the same.
func (t *Tree) GetTo(ctx context.Context, path, dest string, opt GetOptions) (Result, error) {
	e, err := t.Stat(path)
	if err != nil {
		return Result{}, err
	}
	g := &dirGet{tree: t, opt: opt, jobs: make(chan getJob)}
	g.ctx, g.stop = context.WithCancel(ctx)
	defer g.stop()
	if e.Kind == File {
		return g.one(e, dest)
	}
	if err := os.MkdirAll(dest, 0o777); err != nil {
		return Result{}, err
	}
	if g.root, err = os.OpenRoot(dest); err != nil {
		return Result{}, err
	}
	defer g.root.Close()
	if opt.Progress != nil {
		u, err := t.Usage(e.Path)
		if err != nil {
			return Result{}, err
		}
		g.at.TotalFiles, g.at.TotalBytes = u.Files, u.Bytes
	}
	return g.all(e)
}

// dirGet is a GetTo at work.
type dirGet struct {
	ctx  context.Context
	stop context.CancelFunc
	tree *Tree
	opt  GetOptions
	root *os.Root
	jobs chan getJob

	mu     sync.Mutex // all below
	result Result
	faults faults
	at     Progress
	probed bool // whether the disk ignores case is known
	blind  bool // it does
}

// getJob is a file to write under a name below the root.
type getJob struct {
	entry Entry
	name  string
}

// one writes a single file.
func (g *dirGet) one(e Entry, dest string) (_ Result, err error) {
	dir, name := filepath.Split(dest)
	if dir == "" {
		dir = "."
	}
	if g.root, err = os.OpenRoot(dir); err != nil {
		return Result{}, err
	}
	defer g.root.Close()
	g.at.TotalFiles, g.at.TotalBytes = 1, e.Size()
	g.file(getJob{e, name})
	if len(g.result.Skipped) > 0 {
		return g.result, &fs.PathError{Op: "get", Path: dest, Err: g.result.Skipped[0].Err}
	}
	return g.result, g.faults.err()
}

// all writes a folder.
func (g *dirGet) all(e Entry) (Result, error) {
	var work sync.WaitGroup
	for range getWorkers {
		work.Go(func() {
			for job := range g.jobs {
				g.file(job)
			}
		})
	}
	made := g.folder(e, ".")
	close(g.jobs)
	work.Wait()
	// Writing into a folder changes its time, and may be forbidden by its mode: both are set when all is done.
	for _, job := range slices.Backward(made) {
		g.dress(&job.entry, job.name)
	}
	if err := context.Cause(g.ctx); err != nil {
		return g.result, err
	}
	return g.result, g.faults.err()
}

// folder goes through a folder that was made, and returns it and those inside.
func (g *dirGet) folder(e Entry, name string) []getJob {
	made := []getJob{{e, name}}
	list, err := g.tree.List(e.Path)
	if err != nil {
		g.fail(err)
		return made
	}
	folds := make(map[string]bool, len(list))
	warm := 0 // files before this one were asked for
	for i, e := range list {
		if g.ctx.Err() != nil {
			return made
		}
		if i >= warm {
			warm = i + g.warm(list[i:], name)
		}
		job := getJob{e, filepath.Join(name, e.Name)}
		if err := g.fits(e.Name, folds); err != nil {
			g.leaveOut(e.Path, err)
			continue
		}
		if e.Kind == File {
			select {
			case g.jobs <- job:
			case <-g.ctx.Done():
			}
			continue
		}
		if err := g.mkdir(job.name); err != nil {
			g.fail(err)
			continue
		}
		made = append(made, g.folder(e, job.name)...)
	}
	return made
}

// warmer is a Bytes that can fetch many small pieces in one go.
type warmer interface {
	Warm(ctx context.Context, pieces []piece.Piece)
}

// warm has the small files at the head of a list, which is of one folder, fetched together: one by one, each would wait
// for its round trip. It returns how many entries it looked at, at least one.
func (g *dirGet) warm(list []Entry, folder string) int {
	w, ok := g.tree.cfg.Bytes.(warmer)
	if !ok {
		return len(list)
	}
	var pieces []piece.Piece
	bytes, seen := int64(0), 0
	for i := range list {
		e := &list[i]
		if len(pieces) >= warmFiles || bytes >= warmBytes {
			break
		}
		seen++
		if e.Kind != File || e.Size() == 0 || e.Size() > piece.SmallMax {
			continue
		}
		if fi, err := g.root.Lstat(filepath.Join(folder, e.Name)); err == nil && fi.Size() == e.Size() {
			continue // it is probably there already
		}
		pieces = append(pieces, e.File.Pieces...)
		bytes += e.Size()
	}
	if len(pieces) > 1 {
		w.Warm(g.ctx, pieces)
	}
	return max(seen, 1)
}

// fits checks a name against what this system can hold. folds are the names before it in its folder.
func (g *dirGet) fits(name string, folds map[string]bool) error {
	if err := chunk.CheckName(name, runtime.GOOS); err != nil {
		return fmt.Errorf("%w: %w", ErrName, err)
	}
	folded := paths.Fold(name)
	if folds[folded] && g.ignoresCase() {
		return ErrCase
	}
	folds[folded] = true
	return nil
}

// ignoresCase finds out whether the disk takes names that differ in case for the same. It is asked only when there are
// such names.
func (g *dirGet) ignoresCase() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.probed {
		return g.blind
	}
	g.probed = true
	const low, high = ".shoal-probe", ".SHOAL-PROBE"
	f, err := g.root.Create(low)
	if err != nil {
		return false
	}
	_ = f.Close()
	_, err = g.root.Lstat(high)
	g.blind = err == nil
	_ = g.root.Remove(low)
	return g.blind
}

func (g *dirGet) mkdir(name string) error {
	err := g.root.Mkdir(name, 0o777)
	if errors.Is(err, fs.ErrExist) {
		fi, statErr := g.root.Lstat(name)
		if statErr == nil && fi.IsDir() {
			err = nil
		}
	}
	if err == nil {
		g.mu.Lock()
		g.result.Folders++
		g.mu.Unlock()
	}
	return err
}

// dress gives a file or folder the mode and time of its entry. Not every disk can hold them, so failing is no error.
func (g *dirGet) dress(e *Entry, name string) {
	if !e.Version.Defined() {
		return
	}
	_ = g.root.Chmod(name, e.Mode.Perm())
	_ = g.root.Chtimes(name, e.ModTime, e.ModTime)
}

func (g *dirGet) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.faults.add(err)
}

func (g *dirGet) leaveOut(path string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.result.skip(path, err)
}

// file writes one file, unless it is there.
func (g *dirGet) file(job getJob) {
	e := &job.entry
	fi, err := g.root.Lstat(job.name)
	switch {
	case err == nil && fi.Mode().IsRegular() && fi.Size() == e.Size() && fi.ModTime().Equal(e.ModTime):
		g.done(e, true)
		return
	case err == nil && !g.opt.Overwrite:
		g.leaveOut(e.Path, ErrExist)
		return
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		g.fail(err)
		return
	}
	// The name of what is not whole yet is the version's own: a later get writes over it.
	partial := filepath.Join(filepath.Dir(job.name), ".shoal-"+e.Version.String()+".part")
	err = g.copy(e, partial)
	if err == nil {
		g.dress(e, partial)
		err = g.root.Rename(partial, job.name)
	}
	if err != nil {
		_ = g.root.Remove(partial)
		g.fail(err)
		return
	}
	g.done(e, false)
}

func (g *dirGet) done(e *Entry, unchanged bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if unchanged {
		g.result.Unchanged++
		g.at.Bytes += e.Size()
	} else {
		g.result.Files++
		g.result.Bytes += e.Size()
	}
	g.at.Files++
	g.tell(e.Path)
}

// tell reports progress. The caller holds mu.
func (g *dirGet) tell(path string) {
	if g.opt.Progress != nil {
		g.at.Path = path
		g.opt.Progress(g.at)
	}
}

// copy writes the bytes of an entry to a name.
func (g *dirGet) copy(e *Entry, name string) error {
	r, err := g.tree.OpenEntry(g.ctx, e)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := g.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	buf := make([]byte, min(copySize, e.Size()))
	for off := int64(0); off < e.Size() && err == nil; {
		var n int
		n, err = r.ReadAt(buf[:min(int64(len(buf)), e.Size()-off)], off)
		if n > 0 {
			_, werr := w.Write(buf[:n])
			err = errors.Join(ignoreEOF(err), werr)
			off += int64(n)
			g.mu.Lock()
			g.at.Bytes += int64(n)
			g.tell(e.Path)
			g.mu.Unlock()
		}
		if err == nil {
			err = g.ctx.Err()
		}
	}
	return errors.Join(err, w.Close())
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
