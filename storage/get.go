package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/exchange"
)

// TimeoutDefault is how long a get waits for anybody to send anything.
const TimeoutDefault = 60 * time.Second

// GetOptions says where a root goes, and how.
type GetOptions struct {
	Dest       string        // the path of the file or folder to make; required
	Force      bool          // replace what stands there
	Timeout    time.Duration // give up when nothing came for so long; 0: TimeoutDefault, negative: never
	Sequential bool          // in order, so that it can be read meanwhile
	// Only are patterns (see CheckPatterns) that choose files and whole folders;
	// empty for all. What they choose stands at Dest alone; a later Get of more of
	// the same root to the same Dest goes on from it.
	Only []string
	// WebPrivate lets web seeds of the link be at addresses that are not public.
	WebPrivate bool
	Limit      Limit // when what was fetched will have been seeded enough; zero changes nothing
}

// GetResult says what a get did.
type GetResult struct {
	Path    string
	Root    chunk.CID
	Size    int64
	Files   int
	Fetched int64 // bytes that came over the network and were kept
	Reused  int64 // bytes that were here already, verified
	Wasted  int64 // bytes that came in vain
	Elapsed time.Duration
	Sources []exchange.Source
	Banned  []exchange.Banned
	Web     []exchange.WebSource
}

// Get fetches what link names to opt.Dest, verified, from every provider at
// once. A destination that holds exactly that already is success. Interrupted,
// it leaves a partial that the same call goes on with.
//
// Errors: ErrExists, ErrSpace, *exchange.NoProviderError, chunk.ErrTree (the
// root itself is bad), exchange.ErrBusy, and the disk's own.
func (s *Storage) Get(ctx context.Context, link chunk.Link, opt GetOptions, progress func(Progress)) (GetResult, error) {
	dest, err := filepath.Abs(opt.Dest)
	if err != nil || opt.Dest == "" {
		return GetResult{}, fmt.Errorf("storage: get: destination: %w", errors.Join(err, os.ErrInvalid))
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	if opt.Timeout == 0 {
		opt.Timeout = TimeoutDefault
	}
	release, err := s.claim(link.Root)
	if err != nil {
		return GetResult{Root: link.Root, Path: dest}, fmt.Errorf("storage: get: %w", err)
	}
	defer release()
	defer s.fillers.hold(link.Root)()
	g := &getting{s: s, link: link, opt: opt, dest: dest, progress: progress}
	start := time.Now()
	if err = g.run(ctx); err == nil {
		err = g.settle()
	}
	g.result.Elapsed = time.Since(start)
	g.result.Root, g.result.Path = link.Root, dest
	if g.root != nil {
		i := g.root.Info()
		g.result.Size, g.result.Files = i.Size, i.Files
		if g.chosen != nil {
			i.Size = g.chosen.bytes
			g.result.Size, g.result.Files = g.chosen.bytes, g.chosen.files
		}
		if err == nil {
			g.result.Reused = max(0, i.Size-g.result.Fetched)
		}
	}
	if err != nil {
		return g.result, fmt.Errorf("storage: get: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetched.add(link.Root, time.Now())
	return g.result, nil
}

// settle notes in the finished record what the link and the options say of it.
func (g *getting) settle() error {
	var good []string
	for _, w := range g.result.Web {
		if w.Why == "" {
			good = append(good, w.URL)
		}
	}
	if r, ok := g.s.store.Root(g.link.Root); ok && len(good) > 0 {
		if err := r.SetWeb(good); err != nil {
			return err
		}
	}
	if !g.opt.Limit.Set() {
		return nil
	}
	return g.s.SetLimit(g.link.Root, g.opt.Limit)
}

// errThere ends a get whose destination holds the content already.
var errThere = errors.New("already there")

// getting is one running Get.
type getting struct {
	s        *Storage
	link     chunk.Link
	opt      GetOptions
	dest     string
	progress func(Progress)
	root     *block.Root
	chosen   *selection // of opt.Only, once the tree is known; nil for all
	result   GetResult
}

func (g *getting) run(ctx context.Context) error {
	if err := CheckPatterns(g.opt.Only); err != nil {
		return err
	}
	if !exists(g.dest) { // what stands there may be what is wanted, and then nothing is written
		if err := writable(filepath.Dir(g.dest)); err != nil {
			return err
		}
	}
	old, ok := g.s.store.Root(g.link.Root)
	if !ok {
		if done, err := g.rawThere(ctx); done || err != nil {
			return err
		}
		return g.fetch(ctx, nil)
	}
	err := g.goOn(ctx, old)
	if errors.Is(err, block.ErrDamaged) {
		// Its tree cannot be read. The network has it, and what lies in a partial
		// is taken over when the tree is here.
		if err := g.s.store.Remove(old.CID()); err != nil {
			return err
		}
		return g.fetch(ctx, nil)
	}
	return err
}

// goOn starts from what an earlier record says is here.
func (g *getting) goOn(ctx context.Context, old *block.Root) error {
	if tree, err := old.Tree(); err != nil {
		return err
	} else if err := g.choose(tree); err != nil {
		return err
	}
	i := old.Info()
	switch {
	case i.State != block.Partial:
		return g.fromLocal(ctx, old)
	case i.Path != g.dest:
		return g.moveOn(ctx, old)
	case !exists(i.PartialPath):
		return g.lost(ctx, old)
	case i.Placed:
		if done, err := g.reopen(old); done || err != nil {
			return err
		}
	}
	if err := g.trust(ctx, old); err != nil {
		return err
	}
	if exists(g.dest) { // better said now than when all is fetched
		if err := g.overtaken(ctx, old); err != nil {
			return there(err)
		}
	}
	return g.fetch(ctx, old)
}

// overtaken looks at what was put at the destination since the download began.
func (g *getting) overtaken(ctx context.Context, old *block.Root) error {
	tree, nodes, err := treeOf(old)
	if err != nil {
		return err
	}
	err = g.identical(ctx, tree, nodes)
	if errors.Is(err, errThere) {
		return errors.Join(err, os.RemoveAll(old.Info().PartialPath))
	}
	return err
}

// there is nil for errThere.
func there(err error) error {
	if errors.Is(err, errThere) {
		return nil
	}
	return err
}

// treeOf reads a record's tree and node blocks.
func treeOf(r *block.Root) (tree *chunk.Tree, nodes [][]byte, err error) {
	if tree, err = r.Tree(); err != nil {
		return nil, nil, err
	}
	err = r.Nodes(func(n []byte) error {
		nodes = append(nodes, append([]byte(nil), n...))
		return nil
	})
	return tree, nodes, err
}

// rawThere looks whether the destination holds a root that needs no tree to be
// compared with: then nobody has to be asked.
func (g *getting) rawThere(ctx context.Context) (bool, error) {
	if !g.link.Root.IsRaw() || !exists(g.dest) {
		return false, nil
	}
	tree, err := chunk.NewWalker(g.link.Root, chunk.Limits{}).Tree()
	if err != nil {
		return false, err
	}
	err = g.identical(ctx, tree, nil)
	if errors.Is(err, errThere) {
		return true, nil
	}
	return false, err
}

// fetch gets what is missing from the network, into a partial that is there
// already or one that is begun when the tree is known, and puts it in place.
func (g *getting) fetch(ctx context.Context, into *block.Root) error {
	err := g.receive(ctx, into)
	if err != nil {
		return there(err)
	}
	err = g.finish(g.root)
	if !errors.Is(err, block.ErrChanged) {
		return err
	}
	// Somebody touched the partial meanwhile. Once is forgiven.
	if err := g.recheck(ctx, g.root); err != nil {
		return err
	}
	if err := g.receive(ctx, g.root); err != nil {
		return err
	}
	return g.finish(g.root)
}

// receive is fetch without the last step.
func (g *getting) receive(ctx context.Context, into *block.Root) error {
	g.root = into
	if into != nil {
		if err := g.enoughSpace(into); err != nil {
			return err
		}
	}
	from, err := peer.AddrInfosFromP2pAddrs(withPeer(g.link.Addrs)...)
	if err != nil {
		return fmt.Errorf("addresses of the link: %w", err)
	}
	rep, err := g.s.swarm.Fetch(ctx, exchange.Job{
		Root: g.link.Root, From: from, Into: into, Begin: g.begin, Timeout: max(0, g.opt.Timeout),
		Sequential: g.opt.Sequential, Want: g.want(),
		Web: g.link.Web, WebPrivate: g.opt.WebPrivate,
		Progress: func(p exchange.Progress) {
			g.progress(Progress{Phase: string(p.Phase), Done: p.Done, Total: p.Total, Peers: p.Peers, Rate: p.Rate})
		},
	})
	g.result.Fetched += rep.Fetched
	g.result.Wasted += rep.Wasted
	g.result.Sources, g.result.Banned, g.result.Web = rep.Sources, rep.Banned, rep.Web
	return err
}

// withPeer keeps the addresses that name a peer.
func withPeer(addrs []multiaddr.Multiaddr) (out []multiaddr.Multiaddr) {
	for _, a := range addrs {
		if _, err := a.ValueForProtocol(multiaddr.P_P2P); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// begin prepares the destination once the tree is known.
func (g *getting) begin(ctx context.Context, tree *chunk.Tree, nodes [][]byte) (*block.Root, error) {
	if err := checkNames(tree); err != nil {
		return nil, err
	}
	if err := g.choose(tree); err != nil {
		return nil, err
	}
	need := tree.Size
	if g.chosen != nil {
		need = g.chosen.bytes
	}
	if exists(g.dest) {
		if err := g.identical(ctx, tree, nodes); err != nil {
			return nil, err
		}
	}
	if err := checkSpace(filepath.Dir(g.dest), need); err != nil {
		return nil, err
	}
	r, err := g.s.store.Begin(tree, nodes, g.name(), g.dest)
	if err != nil {
		return nil, err
	}
	g.root = r
	g.s.fillers.tell(r.CID())
	if err := g.trust(ctx, r); err != nil {
		return nil, err
	}
	g.s.seed(r.CID()) // what has arrived is served at once
	return r, nil
}

func (g *getting) name() string {
	if g.link.Name != "" {
		return g.link.Name
	}
	return filepath.Base(g.dest)
}

// identical returns errThere, after recording it, if the destination holds the
// tree already; nil if it may be replaced; ErrExists otherwise.
func (g *getting) identical(ctx context.Context, tree *chunk.Tree, nodes [][]byte) error {
	if g.chosen != nil { // what was chosen before is told by its record
		if g.opt.Force {
			return nil
		}
		return fmt.Errorf("%s: %w", g.dest, ErrExists)
	}
	same, err := matches(ctx, g.dest, tree, func(done int64) {
		g.progress(Progress{Phase: "verifying", Done: done, Total: tree.Size})
	})
	if err != nil {
		return err
	}
	if same {
		r, err := g.s.store.Adopt(tree, nodes, g.name(), g.dest)
		if err != nil {
			return err
		}
		g.root = r
		g.s.seed(r.CID())
		return errThere
	}
	if !g.opt.Force {
		return fmt.Errorf("%s: %w", g.dest, ErrExists)
	}
	return nil
}

func (g *getting) finish(r *block.Root) error {
	if err := g.put(r); err != nil {
		return err
	}
	g.s.seed(r.CID())
	g.s.syncLater(r)
	return nil
}

// fromLocal makes a second copy of a root that this peer holds whole.
func (g *getting) fromLocal(ctx context.Context, old *block.Root) error {
	tree, err := old.Tree()
	if err != nil {
		return err
	}
	if old.Info().Path == g.dest && !old.Suspect() {
		if bad, err := old.Check(1); err == nil && len(bad) == 0 {
			g.root = old
			return nil
		}
	} else if exists(g.dest) {
		if same, err := matches(ctx, g.dest, tree, nil); err != nil || same {
			g.root = old
			return err
		}
	}
	if exists(g.dest) && !g.opt.Force {
		return fmt.Errorf("%s: %w", g.dest, ErrExists)
	}
	if err := checkSpace(filepath.Dir(g.dest), tree.Size); err != nil {
		return err
	}
	r, err := g.s.store.BeginCopy(tree, g.name(), g.dest)
	if err != nil {
		return err
	}
	missing, err := g.copyLeaves(ctx, old, r)
	if err == nil && missing == 0 {
		g.root = r
		err = g.put(r)
		return errors.Join(err, g.s.store.Discard(r))
	}
	if err := errors.Join(err, g.s.store.Discard(r)); err != nil {
		return err
	}
	return g.moveOn(ctx, old) // some of it changed since: the network has it, perhaps
}

// moveOn begins a new download with what an older record still has.
func (g *getting) moveOn(ctx context.Context, old *block.Root) error {
	tree, nodes, err := treeOf(old)
	if err != nil {
		return err
	}
	r, err := g.begin(ctx, tree, nodes)
	if err != nil {
		return there(err)
	}
	if _, err := g.copyLeaves(ctx, old, r); err != nil {
		return err
	}
	if i := old.Info(); i.State == block.Partial && !i.Placed && i.Path != g.dest && (g.chosen == nil || g.s.cached(i)) {
		// All that was good in it is in the new one, and no record tells of it any more.
		if err := os.RemoveAll(i.PartialPath); err != nil {
			g.s.log.Warn("a partial was left behind", "path", i.PartialPath, "err", err)
		}
	}
	return g.fetch(ctx, r)
}

// lost goes on when the partial's bytes are gone: either they were put in
// place and only the record does not say so yet, or somebody removed them.
func (g *getting) lost(ctx context.Context, old *block.Root) error {
	if exists(g.dest) {
		return g.moveOn(ctx, old)
	}
	if err := g.s.store.Remove(old.CID()); err != nil {
		return err
	}
	return g.fetch(ctx, nil)
}

// trust reads a partial's bytes again unless they can be believed unread.
func (g *getting) trust(ctx context.Context, r *block.Root) error {
	if r.Trusted() {
		return nil
	}
	return g.recheck(ctx, r)
}

func (g *getting) recheck(ctx context.Context, r *block.Root) error {
	return recheck(ctx, r, func(done int64) {
		g.progress(Progress{Phase: "verifying", Done: done, Total: r.Info().Size})
	})
}

func (g *getting) enoughSpace(r *block.Root) error {
	tree, err := r.Tree()
	if err != nil {
		return err
	}
	var missing int64
	for i := range tree.Leaves {
		if !r.Has(i) && g.wants(i) {
			missing += max(0, int64(tree.Leaves[i].Size))
		}
	}
	return checkSpace(filepath.Dir(g.dest), missing)
}

// checkSpace refuses early what the disk clearly cannot hold.
func checkSpace(dir string, need int64) error {
	for !exists(dir) && filepath.Dir(dir) != dir {
		dir = filepath.Dir(dir)
	}
	free, err := block.FreeSpace(dir)
	if err != nil || need <= free {
		return nil // unknown: the write itself will tell
	}
	return fmt.Errorf("%s: %w: %d bytes needed, %d free", dir, ErrSpace, need, free)
}

// writable fails early when nothing can be made in dir.
func writable(dir string) error {
	for !exists(dir) && filepath.Dir(dir) != dir {
		dir = filepath.Dir(dir)
	}
	f, err := os.CreateTemp(dir, ".shoal-*")
	if err != nil {
		return fmt.Errorf("destination: %w", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}
