package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/exchange"
)

// shelf is the roots of one circle: those that everybody may have, or the
// pool's pieces. What is known, opened or fetched in one is unknown in the other.
type shelf struct {
	s       *Storage
	store   *block.Store
	cache   string // where bytes of its opened roots go
	private bool
	pieces  *pieces // of the private one; else nil
	fillers fillers
	getting map[chunk.CID]bool // roots that a Get works on; guarded by s.mu
}

// claim keeps a root for one Get at a time: two would fill each other's partial.
func (h *shelf) claim(root chunk.CID) (release func(), err error) {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	if h.getting[root] {
		return nil, fmt.Errorf("%s: %w", root, exchange.ErrBusy)
	}
	if h.getting == nil {
		h.getting = map[chunk.CID]bool{}
	}
	h.getting[root] = true
	return func() {
		h.s.mu.Lock()
		defer h.s.mu.Unlock()
		delete(h.getting, root)
	}, nil
}

// records are those that may have leaves of a root, where it is kept for good
// before where it is cached.
func (h *shelf) records(root chunk.CID) (out []*block.Root) {
	if h.pieces != nil {
		if r, ok := h.pieces.held.Roots().Root(root); ok {
			out = append(out, r)
		}
	}
	if r, ok := h.store.Root(root); ok {
		out = append(out, r)
	}
	return out
}

// seed announces a root that has something to serve, if everybody may have it.
func (h *shelf) seed(root chunk.CID) {
	if !h.private {
		h.s.announce(root)
	}
}

// unseed ends that.
func (h *shelf) unseed(root chunk.CID) {
	if !h.private {
		h.s.conceal(root)
	}
}

// cacheDir makes the folder of a root in the cache, and notes its use.
func (h *shelf) cacheDir(root chunk.CID) (string, error) {
	dir := filepath.Join(h.cache, root.String())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	now := time.Now()
	return dir, os.Chtimes(dir, now, now)
}

// cached reports that a record's bytes lie in the cache.
func (h *shelf) cached(i block.Info) bool {
	return i.State == block.Partial && strings.HasPrefix(i.Path, h.cache+string(filepath.Separator))
}

// dropCached forgets a root whose bytes are in the cache, and removes them.
func (h *shelf) dropCached(root chunk.CID, dir string) error {
	release := h.fillers.hold(root)
	defer release()
	if err := h.store.Remove(root); err != nil {
		return err
	}
	h.unseed(root)
	return os.RemoveAll(dir)
}

// sweepCache removes what no record tells of: a crash left it, or a Get that
// took the root over.
func (h *shelf) sweepCache() {
	known := map[string]bool{}
	for _, r := range h.store.Roots() {
		if i := r.Info(); h.cached(i) {
			known[filepath.Base(filepath.Dir(i.Path))] = true
		}
	}
	entries, err := os.ReadDir(h.cache)
	if err != nil {
		return // most peers have none
	}
	for _, e := range entries {
		if _, err := chunk.ParseCID(e.Name()); err != nil || known[e.Name()] {
			continue // not ours, or in use
		}
		if err := os.RemoveAll(filepath.Join(h.cache, e.Name())); err != nil {
			h.s.log.Warn("something is left in the cache", "path", e.Name(), "err", err)
		}
	}
}
