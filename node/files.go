package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/pool"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage"
	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/repair"
	"github.com/shoal-os/shoal/storage/tree"
	"github.com/shoal-os/shoal/tasks/keep"
)

const (
	piecesDir = "pieces" // what this peer holds of pool files, whichever pool it is in
	repairDir = "repair" // in the folder of a pool's names: who holds what

	// staging is the room of a peer that lends none: what it puts passes through it on its way to those that do.
	staging = 4 << 30

	// waking is for how long nothing is mended after this machine woke up: by then its links are up again. As long as
	// they are not, less than half of the pool is seen, and nothing is mended either.
	waking = 2 * time.Minute

	// coming is how long the wakening grace of repairs is for a peer that was started: by then the others have greeted it.
	coming = 30 * time.Second
)

// openPieces opens the store of pool files.
func (n *Node) openPieces() (*piece.Store, error) {
	dir := filepath.Join(n.cfg.Home, piecesDir)
	quota, err := spaceOf(n.cfg.Lend.Space, n.cfg.Home, dir)
	if err != nil {
		return nil, homeError(n.cfg.Home, err)
	}
	n.space = quota
	if quota == 0 {
		quota = staging
	}
	s, err := piece.Open(piece.Config{Dir: dir, Quota: quota, Log: n.cfg.Log, Now: n.cfg.Now})
	if err != nil {
		return nil, openError(err)
	}
	return s, nil
}

// spaceOf is how many bytes pool files may take: the setting, or half of what they and nothing take now.
func spaceOf(setting int64, home, dir string) (int64, error) {
	if setting != 0 {
		return max(setting, 0), nil
	}
	free, err := block.FreeSpace(home)
	if err != nil {
		return 0, err
	}
	var taken int64
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err == nil {
			taken += info.Size()
		}
		return nil
	})
	return (free + taken) / 2, err
}

// openFiles adds the pool's files to a circle that has its names.
func (n *Node) openFiles(c *circle, opened *closers) (err error) {
	dir := filepath.Join(c.dir, repairDir)
	if err := os.MkdirAll(dir, homeMode); err != nil {
		return homeError(n.cfg.Home, err)
	}
	timings := repair.Timings{Patience: n.cfg.Patience, Grace: waking}
	if n.cfg.Patience > 0 { // impatience is for tests and benches: nothing else may be slower than it
		timings.Urgent, timings.Grace, timings.Lease = n.cfg.Patience, min(n.cfg.Patience, coming), max(n.cfg.Patience, coming)
	}
	// A peer that has met nobody since it started cannot know what the others need, nor what time it is.
	inStep := func() bool { return len(c.pool.Members()) < 2 || !c.names.Status().Met.IsZero() }
	c.repair, err = repair.Open(repair.Config{
		Self: n.ident.ID, Dir: dir, Pool: c.pool.ID(), Pieces: n.pieces, Fetch: fetcher{n.storage},
		Members: c.pool, Streams: c.pool, Records: c.names,
		InStep: inStep,
		Lends:  func() repair.Offer { return n.offerOf(c) },
		Power:  power,
		Near:   func(id peer.ID) bool { return n.near(id) },
		Now:    n.cfg.Now,
		Boot:   pool.BootTime,
		Log:    n.cfg.Log, Timings: timings,
	})
	if err != nil {
		return openError(err)
	}
	opened.add("repair", c.repair.Close)
	c.tree, err = tree.Open(tree.Config{
		Self: n.ident.ID, Name: n.ident.Name, Names: c.names, Bytes: c.repair, Log: n.cfg.Log,
		Now:     c.names.Now,
		Trusted: inStep,
	})
	if err != nil {
		return openError(err)
	}
	opened.add("tree", c.tree.Close)
	c.keeper = keep.Open(c.names)
	opened.add("keeper", c.keeper.Close)
	c.repair.Use(keep.Union(c.tree, c.keeper))
	return nil
}

// offerOf is what this peer lends to the pool's files.
func (n *Node) offerOf(c *circle) repair.Offer {
	o := repair.Offer{Owner: n.cfg.Lend.Owner, Site: n.cfg.Lend.Site, Anchor: n.cfg.Lend.Anchor}
	if lendsSpace(c.pool) {
		o.Space = uint64(n.space)
	}
	return o
}

// near reports whether a member is on this machine or its network.
func (n *Node) near(id peer.ID) bool {
	for _, p := range n.host.Paths(id) {
		if scope := pathShape(p).Scope; scope == "loopback" || scope == "lan" {
			return true
		}
	}
	return false
}

// fetcher is storage as repair wants it.
type fetcher struct{ *storage.Storage }

func (f fetcher) OpenPiece(ctx context.Context, p piece.Piece, from []peer.ID) (repair.PieceReader, error) {
	return f.Storage.OpenPiece(ctx, p, from)
}

// FilePut copies a file or folder of this machine into the pool.
func (n *Node) FilePut(ctx context.Context, req client.FilePutRequest, progress func(client.Progress)) (client.FileTransfer, error) {
	c, err := n.circle()
	if err == nil {
		err = absolute(req.Source)
	}
	if err != nil {
		return client.FileTransfer{}, err
	}
	began := time.Now()
	r, err := c.tree.PutDir(ctx, req.Source, req.Path, tree.PutOptions{
		Copies: req.Copies, Background: req.NoWait, AnyName: req.AnyName, Progress: fileProgress("storing", progress),
	})
	if err != nil {
		return client.FileTransfer{}, fileError(err)
	}
	if r.Files+r.Folders+r.Unchanged == 0 && len(r.Skipped) > 0 {
		return client.FileTransfer{}, fileError(r.Skipped[0].Err)
	}
	return transferShape(req.Path, r, wantedCopies(req.Copies), began), nil
}

// FileWrite makes a pool file of what r yields.
func (n *Node) FileWrite(ctx context.Context, path string, copies int, r io.Reader) (client.FileTransfer, error) {
	c, err := n.circle()
	if err != nil {
		return client.FileTransfer{}, err
	}
	began := time.Now()
	p := c.tree.NewPut(tree.PutOptions{Copies: copies})
	defer p.Abort()
	if err := p.File(ctx, path, 0o644, began, r); err != nil {
		return client.FileTransfer{}, fileError(err)
	}
	result, err := p.Commit(ctx)
	if err != nil {
		return client.FileTransfer{}, fileError(err)
	}
	return transferShape(path, result, wantedCopies(copies), began), nil
}

// FileGet copies a file or folder of the pool to this machine.
func (n *Node) FileGet(ctx context.Context, req client.FileGetRequest, progress func(client.Progress)) (client.FileTransfer, error) {
	c, err := n.circle()
	if err == nil {
		err = absolute(req.Dest)
	}
	if err != nil {
		return client.FileTransfer{}, err
	}
	began := time.Now()
	r, err := c.tree.GetTo(ctx, req.Path, req.Dest, tree.GetOptions{Overwrite: req.Force, Progress: fileProgress("fetching", progress)})
	if err != nil {
		return client.FileTransfer{}, fileError(err)
	}
	for _, s := range r.Skipped {
		if errors.Is(s.Err, tree.ErrExist) {
			return client.FileTransfer{}, client.Errorf(client.KindExists, "replace what is there with --force, or choose another place with -o",
				"%s is something else", s.Path)
		}
	}
	return transferShape(req.Dest, r, 0, began), nil
}

// copiesDefault is how many copies are made when nobody says; it is the tree's.
const copiesDefault = 3

func wantedCopies(n int) int { return cmp.Or(n, copiesDefault) }

func transferShape(path string, r tree.Result, wanted int, began time.Time) client.FileTransfer {
	out := client.FileTransfer{
		Path: path, Files: r.Files, Folders: r.Folders, Size: r.Bytes, Same: r.Unchanged,
		Copies: r.Copies, Wanted: wanted, Elapsed: time.Since(began).Seconds(),
	}
	for _, s := range r.Skipped {
		out.Skipped = append(out.Skipped, wire.CleanText(fmt.Sprintf("%s: %v", s.Path, plainFile{s.Err})))
	}
	if more := r.SkippedCount - len(r.Skipped); more > 0 {
		out.Skipped = append(out.Skipped, fmt.Sprintf("and %d more", more))
	}
	return out
}

// fileProgress passes a tree's progress on in the API's shape.
func fileProgress(phase string, progress func(client.Progress)) func(tree.Progress) {
	if progress == nil {
		return nil
	}
	began := time.Now()
	return func(p tree.Progress) {
		out := client.Progress{Phase: phase, Done: p.Bytes, Total: -1, Files: p.TotalFiles, Peers: 1}
		if p.TotalFiles > 0 {
			out.Total = p.TotalBytes
		}
		if d := time.Since(began).Seconds(); d > 0 {
			out.Rate = float64(p.Bytes) / d
		}
		if p.Pieces > 0 && p.Secured < p.Pieces && out.Done >= out.Total {
			out.Phase = "copying to others"
		}
		progress(out)
	}
}

// FileStat describes one path.
func (n *Node) FileStat(_ context.Context, path string) (client.PoolFile, error) {
	c, err := n.circle()
	if err != nil {
		return client.PoolFile{}, err
	}
	e, err := c.tree.Stat(path)
	if err != nil {
		return client.PoolFile{}, fileError(err)
	}
	return fileShape(c.tree, &e, true), nil
}

// FileList lists.
func (n *Node) FileList(_ context.Context, path string, opt client.ListOptions) iter.Seq2[client.PoolFile, error] {
	return func(yield func(client.PoolFile, error) bool) {
		c, err := n.circle()
		if err != nil {
			yield(client.PoolFile{}, err)
			return
		}
		for e, err := range entries(c.tree, path, opt) {
			if err != nil {
				yield(client.PoolFile{}, fileError(err))
				return
			}
			f := fileShape(c.tree, &e, opt.Long)
			if opt.Sum && e.IsFolder() {
				u, err := c.tree.Usage(e.Path)
				if err != nil {
					continue // removed meanwhile
				}
				f.Size, f.Files = u.Bytes, u.Files
			}
			if !yield(f, nil) {
				return
			}
		}
	}
}

// entries are those that a listing is of.
func entries(t *tree.Tree, path string, opt client.ListOptions) iter.Seq2[tree.Entry, error] {
	top, err := t.Stat(path)
	switch {
	case err == nil && opt.Pattern != "":
		return t.Find(path, opt.Pattern)
	case err == nil && opt.Recursive && top.IsFolder():
		return without(top.Path, t.Walk(path))
	}
	return func(yield func(tree.Entry, error) bool) {
		list := []tree.Entry{top}
		if err == nil && top.IsFolder() {
			list, err = t.List(path)
		}
		if err != nil {
			yield(tree.Entry{}, err)
			return
		}
		if opt.Sum && top.IsFolder() {
			list = append(list, top)
		}
		for _, e := range list {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// without leaves one path out of a walk.
func without(path string, list iter.Seq2[tree.Entry, error]) iter.Seq2[tree.Entry, error] {
	return func(yield func(tree.Entry, error) bool) {
		for e, err := range list {
			if e.Path == path && err == nil {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// FileHistory lists the versions of a path.
func (n *Node) FileHistory(_ context.Context, path string) iter.Seq2[client.PoolFile, error] {
	return func(yield func(client.PoolFile, error) bool) {
		c, err := n.circle()
		if err != nil {
			yield(client.PoolFile{}, err)
			return
		}
		versions, err := c.tree.History(path)
		if err != nil {
			yield(client.PoolFile{}, fileError(err))
			return
		}
		now, statErr := c.tree.Stat(path)
		for i := range versions {
			f := fileShape(c.tree, &versions[i], true)
			f.Current = statErr == nil && versions[i].Version == now.Version
			if !yield(f, nil) {
				return
			}
		}
	}
}

// FilePins lists what is pinned to this peer.
func (n *Node) FilePins(context.Context) iter.Seq2[client.PoolFile, error] {
	return func(yield func(client.PoolFile, error) bool) {
		c, err := n.circle()
		if err != nil {
			yield(client.PoolFile{}, err)
			return
		}
		for _, p := range c.tree.Pins() {
			if p.Peer == n.ident.ID && !yield(client.PoolFile{Path: wire.CleanText(p.Path), Kind: "pin"}, nil) {
				return
			}
		}
	}
}

// fileShape describes an entry for the API.
func fileShape(t *tree.Tree, e *tree.Entry, long bool) client.PoolFile {
	f := client.PoolFile{Path: wire.CleanText(e.Path), Kind: e.Kind.String(), Conflict: e.Conflict}
	if e.Kind == tree.File {
		f.Size = e.Size()
	}
	if !long {
		return f
	}
	f.Mode, f.Modified, f.Written = uint32(e.Mode.Perm()), e.ModTime, e.Time
	f.Author = wire.CleanText(e.AuthorName)
	if e.Version.Defined() {
		f.Version = e.Version.String()
	}
	if e.Kind == tree.File {
		f.Root, f.Safety = e.File.Root.String(), safetyShape(t.Safety(e), len(e.File.Pieces))
	}
	return f
}

func safetyShape(s tree.Safety, pieces int) *client.Safety {
	out := &client.Safety{Copies: s.Copies, Wanted: s.Wanted, Online: s.Online, Survives: s.Survives}
	switch {
	case pieces == 0:
		out.State = "empty"
	case s.Asleep:
		out.State = "asleep"
	case s.Copies == 0:
		out.State = "lost"
	case s.Copies >= s.Wanted:
		out.State = "safe"
	case s.Copies == 1:
		out.State = "single"
	default:
		out.State = "short"
	}
	return out
}

// catPool writes one of the pool's files to what begin returns.
func (n *Node) catPool(ctx context.Context, path string, begin func(size int64) io.Writer) error {
	c, err := n.circle()
	if err != nil {
		return err
	}
	f, err := c.tree.OpenRead(ctx, path)
	if err != nil {
		return fileError(err)
	}
	defer f.Close()
	if _, err := io.CopyBuffer(onlyWriter{begin(f.Size())}, f, make([]byte, catBuffer)); err != nil {
		return fileError(err)
	}
	return nil
}

const catBuffer = 1 << 20

// onlyWriter hides everything else that a writer can do, so that the buffer is used.
type onlyWriter struct{ io.Writer }

// plainFile takes away the words that only a programmer needs.
type plainFile struct{ error }

func (e plainFile) Error() string {
	var at *fs.PathError
	if errors.As(e.error, &at) && at == e.error { //nolint:errorlint // only when it is the outermost
		switch {
		case errors.Is(at.Err, fs.ErrNotExist):
			return at.Path + ": there is nothing at that path"
		case errors.Is(at.Err, fs.ErrExist):
			return at.Path + ": something is there already"
		}
		return at.Path + ": " + inPlainWords{at.Err}.Error()
	}
	return inPlainWords(e).Error()
}

func (e plainFile) Unwrap() error { return e.error }

// fileError is the one place where errors about pool files become kinds of failure, with what can be done.
func fileError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	var known *client.Error
	if errors.As(err, &known) {
		return err
	}
	kind, hint := storageKind(err, client.KindInternal), ""
	switch {
	case errors.Is(err, tree.ErrNotExist):
		kind, hint = client.KindNotFound, "`shoal ls` lists what is there; `shoal history` what was"
	case errors.Is(err, tree.ErrExist):
		kind, hint = client.KindExists, "choose another path, or replace it with --force where the command has it"
	case errors.Is(err, tree.ErrIsFolder), errors.Is(err, tree.ErrNotEmpty):
		kind, hint = client.KindInvalid, "-r removes folders with all that is in them"
	case errors.Is(err, tree.ErrName):
		kind, hint = client.KindInvalid, "choose another name, or --any-name if no member runs Windows or macOS"
	case errors.Is(err, tree.ErrCase):
		kind, hint = client.KindInvalid, "Windows and macOS could not hold both: use the name that is there, or --any-name"
	case errors.Is(err, tree.ErrNotFolder), errors.Is(err, tree.ErrPath), errors.Is(err, tree.ErrInside), errors.Is(err, tree.ErrPattern),
		errors.Is(err, tree.ErrConflict), errors.Is(err, tree.ErrTooLarge), errors.Is(err, tree.ErrPins):
		kind = client.KindInvalid
	case errors.Is(err, piece.ErrQuota):
		kind, hint = client.KindNoSpace, "lend more with `shoal up --store SIZE`, or free some: `shoal rm`, then `shoal purge` for what is kept to be restored"
	case errors.Is(err, repair.ErrNotHere):
		kind, hint = client.KindNotFound, "start one of the machines that have it; `shoal ls -l` and `shoal df` tell more"
	}
	return client.Wrap(kind, plainFile{err}, hint)
}

// lendsSpace reports whether this peer's role lets it keep copies for others.
func lendsSpace(p *pool.Pool) bool { return p.Standing() == roster.OK && lendsAnything(p.Self().Role) }
